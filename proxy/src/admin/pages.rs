//! The pages that can be read. The control plane's Inspect dumps are the same pages.

use bytes::Bytes;
use serde_json::json;

use super::mask::Mask;
use super::query::{AdminQuery, PageError};
use super::{Admin, certs, clusters, dump, rfc3339, runtime, stats};

/// A page and its type.
#[derive(Clone)]
pub struct Page {
    pub content_type: &'static str,
    pub body: Bytes,
}

impl Page {
    pub(super) fn text(body: Vec<u8>) -> Self {
        Page {
            content_type: "text/plain; charset=utf-8",
            body: body.into(),
        }
    }

    pub(super) fn json(value: &serde_json::Value) -> Self {
        let mut body = serde_json::to_vec_pretty(value).unwrap_or_default();
        body.push(b'\n');
        Page {
            content_type: "application/json",
            body: body.into(),
        }
    }
}

const HELP: &str = "\
  /ready                    LIVE, or what is waited for
  /config_dump              configuration in force, as Envoy dumps it; ?include_eds,
                            ?resource=dynamic_active_clusters, ?mask=cluster.name, ?name_regex=…
  /clusters                 clusters and endpoints; ?format=json
  /listeners                listeners and their addresses; ?format=json
  /certs                    certificates in use
  /stats                    metrics as `name: value`; ?format=json or prometheus, ?usedonly,
                            ?filter=REGEX, ?type=Counters, Gauges or Histograms
  /stats/prometheus         metrics for Prometheus; ?usedonly, ?filter=REGEX
  /server_info              version, state, uptime, options, node
  /memory                   memory of the process
  /runtime                  layers of the bootstrap's layered_runtime
  /logging                  log levels; POST /logging?level=debug or ?xds=debug
  /reopen_logs              (POST) open log files again, after a rotation
  /drain, /drain_listeners  (POST) ask every connection to end; ?inboundonly: all but outbound ones
  /healthcheck/fail, /ok    (POST) what /ready says while traffic still flows
  /quitquitquit             (POST) end the process after draining
";

impl Admin {
    /// The page at `path`. Nothing is changed by reading.
    ///
    /// # Errors
    /// There is no such page, or its parameters are not valid.
    pub async fn page(&self, path: &str, query: &str) -> Result<Page, PageError> {
        let query = AdminQuery::parse(query);
        let as_json = query.get("format") == Some("json");
        Ok(match path {
            "/" | "/help" => Page::text(HELP.as_bytes().to_vec()),
            "/config_dump" => {
                let selection = dump::Selection {
                    resource: query.get("resource"),
                    mask: query.get("mask").and_then(Mask::parse),
                    name: query.regex("name_regex")?,
                    endpoints: query.has("include_eds"),
                };
                Page::json(&dump::config_dump(self, &selection).await?)
            }
            "/clusters" if as_json => Page::json(&clusters::json(&self.store.load())),
            "/clusters" => Page::text(clusters::text(&self.store.load())),
            "/listeners" => self.listeners(as_json),
            "/certs" => Page::json(&certs::certs(self)),
            "/stats" => stats::stats(self, &query)?,
            "/stats/prometheus" => stats::for_prometheus(self, &query)?,
            "/server_info" => Page::json(&self.server_info()),
            "/memory" => Page::json(&runtime::memory()),
            "/runtime" => Page::json(&runtime::runtime(self)),
            "/logging" => Page::text(format!("{}\n", self.logging.current()).into_bytes()),
            _ => {
                let why = format!("there is no page {path}; / lists those there are");
                return Err(PageError::missing(why));
            }
        })
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
