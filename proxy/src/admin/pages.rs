//! What can be read. The same pages answer the control plane's Inspect dumps.

use serde_json::json;

use super::routes::pairs;
use super::{Admin, certs, clusters, dump, rfc3339};

/// A page and its type.
pub struct Page {
    pub content_type: &'static str,
    pub body: Vec<u8>,
}

impl Page {
    pub(super) fn text(body: Vec<u8>) -> Self {
        Page {
            content_type: "text/plain; charset=utf-8",
            body,
        }
    }

    pub(super) fn json(value: &serde_json::Value) -> Self {
        let mut body = serde_json::to_vec_pretty(value).unwrap_or_default();
        body.push(b'\n');
        Page {
            content_type: "application/json",
            body,
        }
    }
}

const HELP: &str = "\
  /ready                    LIVE, or what is waited for
  /config_dump              configuration in force, as Envoy dumps it
                            ?resource=dynamic_active_clusters, ?name_regex=…, ?include_eds
  /clusters                 clusters and endpoints; ?format=json
  /listeners                listeners and their addresses; ?format=json
  /certs                    certificates in use
  /stats                    metrics as `name: value`; ?filter=text, ?format=prometheus
  /stats/prometheus         metrics for Prometheus
  /server_info              version, state, uptime, options, node
  /logging                  log levels; POST /logging?level=debug or ?xds=debug
  /drain, /drain_listeners  (POST) ask every connection to end
  /healthcheck/fail, /ok    (POST) what /ready says while traffic still flows
  /quitquitquit             (POST) end the process after draining
";

impl Admin {
    /// The page at `path`; `None`: there is none. Nothing is changed by reading.
    pub async fn page(&self, path: &str, query: &str) -> Option<Page> {
        let parameter = |name: &str| pairs(query).find(|(n, _)| *n == name).map(|(_, v)| v);
        let as_json = parameter("format") == Some("json");
        Some(match path {
            "/" | "/help" => Page::text(HELP.as_bytes().to_vec()),
            "/config_dump" => {
                let selection = dump::Selection {
                    resource: parameter("resource"),
                    name: parameter("name_regex").and_then(|text| regex::Regex::new(text).ok()),
                    endpoints: parameter("include_eds").is_some(),
                };
                Page::json(&dump::config_dump(self, &selection).await)
            }
            "/clusters" if as_json => Page::json(&clusters::json(&self.store.load())),
            "/clusters" => Page::text(clusters::text(&self.store.load())),
            "/listeners" => self.listeners(as_json),
            "/certs" => Page::json(&certs::certs(self)),
            "/stats" if parameter("format") == Some("prometheus") => self.prometheus(),
            "/stats" => self.stats(parameter("filter").unwrap_or_default()),
            "/stats/prometheus" => self.prometheus(),
            "/server_info" => Page::json(&self.server_info()),
            "/logging" => Page::text(format!("{}\n", self.logging.current()).into_bytes()),
            _ => return None,
        })
    }

    fn prometheus(&self) -> Page {
        Page {
            content_type: "text/plain; version=0.0.4; charset=utf-8",
            body: self.registry.expose().unwrap_or_else(|error| {
                tracing::error!(%error, "metrics cannot be written");
                Vec::new()
            }),
        }
    }

    /// The series as Envoy lists them: one line each, name and value.
    fn stats(&self, filter: &str) -> Page {
        let text = String::from_utf8(self.prometheus().body).unwrap_or_default();
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        let matching = lines.filter(|line| line.contains(filter));
        let stats: String = matching
            .filter_map(|line| line.rsplit_once(' '))
            .map(|(name, value)| format!("{name}: {value}\n"))
            .collect();
        Page::text(stats.into_bytes())
    }

    fn listeners(&self, as_json: bool) -> Page {
        let snapshot = self.store.load();
        let mut listeners: Vec<_> = snapshot.listeners.values().collect();
        listeners.sort_by(|a, b| a.def.name.cmp(&b.def.name));
        if !as_json {
            let lines: String = listeners
                .iter()
                .flat_map(|listener| {
                    let def = &listener.def;
                    def.addresses()
                        .map(|address| format!("{}::{address}\n", def.name))
                })
                .collect();
            return Page::text(lines.into_bytes());
        }
        let statuses: Vec<_> = listeners
            .iter()
            .map(|listener| {
                json!({
                    "name": &*listener.def.name,
                    "local_address": clusters::address(listener.def.address),
                    "additional_local_addresses": listener.def.more_addresses.iter()
                        .map(|address| clusters::address(*address)).collect::<Vec<_>>(),
                    "bind_to_port": listener.def.bind_to_port,
                })
            })
            .collect();
        Page::json(&json!({ "listener_statuses": statuses }))
    }

    fn server_info(&self) -> serde_json::Value {
        let uptime = format!("{}s", self.since.elapsed().as_secs());
        json!({
            "version": concat!("anyam-proxy/", env!("CARGO_PKG_VERSION")),
            "state": self.state().label(),
            "uptime_current_epoch": uptime,
            "uptime_all_epochs": uptime,
            "started": rfc3339(self.started),
            "snapshot": self.store.load().generation,
            "hot_restart_version": "disabled",
            "command_line_options": self.options,
            "node": self.node,
        })
    }
}
