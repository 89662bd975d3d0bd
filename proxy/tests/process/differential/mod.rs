//! One configuration in Anyam and in a stock Envoy, the same requests to both: the same bytes come back,
//! the same bytes reach the upstream, the same lines stand in the access logs.
//!
//! - `bytes`: an exchange as it is on the wire; `upstream`: what stands behind both
//! - `failures`: responses that the proxies make themselves; `requests`: what routes do to requests and
//!   responses; `replies`: how responses of their own are changed; `managers`: fields of the connection manager; `retries`; `http2`
//!
//! Where we differ on purpose, docs/envoy-compat.md has the reason, and [`Ask::but`] what is ours.

mod bytes;
mod failures;
mod http2;
mod managers;
mod replies;
mod requests;
mod retries;
mod upstream;

use std::net::SocketAddr;

use serde_json::{Value, json};

use self::bytes::exchange;
use crate::filters::side::Side;

const ROUTER: &str = "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router";
const MANAGER: &str = "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager";
const LOG: &str = "type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog";
const FORMAT: &str = "%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %RESPONSE_CODE% %RESPONSE_FLAGS% \
    %RESPONSE_CODE_DETAILS% %UPSTREAM_TRANSPORT_FAILURE_REASON% %ROUTE_NAME% %UPSTREAM_CLUSTER% \
    %GRPC_STATUS(NUMBER)% %BYTES_RECEIVED% %BYTES_SENT% %REQ(X-LAST)%\n";

/// What both are configured with.
struct Setup {
    routes: Value,
    /// Further fields of the virtual host.
    host: Value,
    /// Further fields of the connection manager.
    manager: Value,
    clusters: Vec<Value>,
}

/// A request, and where our answer to it differs.
struct Ask {
    request: Vec<u8>,
    status: u16,
    /// Our response, but for its head's lines that are always alike: status, body.
    ours: Option<(u16, &'static str)>,
    /// Whether the lines of the logs are to be alike.
    logged: bool,
}

impl Ask {
    /// A request, whose response has this status in both.
    fn new(request: impl Into<Vec<u8>>, status: u16) -> Self {
        Self {
            request: request.into(),
            status,
            ours: None,
            logged: true,
        }
    }

    /// Our log says more.
    fn logged_differently(mut self) -> Self {
        self.logged = false;
        self
    }

    /// We answer with this status and body in place of Envoy's.
    fn but(mut self, status: u16, body: &'static str) -> Self {
        self.ours = Some((status, body));
        self
    }
}

impl Setup {
    /// Sends each request to both, on a connection of its own, and compares what comes of it.
    fn compare(&self, asks: &[Ask]) {
        let bootstrap = |front: SocketAddr, log: &str| self.bootstrap(front, log);
        let ours = Side::anyam_by(&bootstrap);
        let stock = Side::envoy_by(&bootstrap);
        let mut logged = Vec::new();
        let mut differences = Vec::new();
        for (index, ask) in asks.iter().enumerate() {
            let text = String::from_utf8_lossy(&ask.request).into_owned();
            let (own, envoys) = (
                exchange(&ours, &ask.request),
                exchange(&stock, &ask.request),
            );
            assert_eq!(envoys.status, ask.status, "Envoy, for\n{text}\n{envoys:#?}");
            match ask.ours {
                None if own != envoys => {
                    differences.push(format!("{text}\nAnyam {own:#?}\nEnvoy {envoys:#?}"));
                }
                None if ask.logged => logged.push(index),
                None => {}
                Some((status, body)) => {
                    assert_eq!((own.status, own.body.as_str()), (status, body), "{text}");
                }
            }
        }
        assert!(differences.is_empty(), "{}", differences.join("\n\n"));
        let (ours, stock) = (ours.log(asks.len()), stock.log(asks.len()));
        for index in logged {
            let text = String::from_utf8_lossy(&asks[index].request).into_owned();
            if ours[index] != stock[index] {
                differences.push(format!(
                    "{text}\nAnyam {}\nEnvoy {}",
                    ours[index], stock[index]
                ));
            }
        }
        assert!(
            differences.is_empty(),
            "logs:\n{}",
            differences.join("\n\n")
        );
    }

    /// Compares the logs alone, with this filter. The last request is logged in any case.
    fn compare_logs(&self, asks: &[Ask], filter: &Value) {
        let filtered = |front: SocketAddr, log: &str| {
            let mut bootstrap = self.bootstrap(front, log);
            let manager = "/static_resources/listeners/0/filter_chains/0/filters/0/typed_config";
            let manager = bootstrap.pointer_mut(manager).unwrap();
            let marked =
                json!({"header_filter": {"header": {"name": "x-last", "present_match": true}}});
            let either = json!({"or_filter": {"filters": [filter, marked]}});
            manager["access_log"][0]["filter"] = either;
            bootstrap
        };
        let last = request("GET", "/tea", "x-last: last\r\nx-kind: one\r\n", "");
        let lines = |side: &Side| {
            for ask in asks {
                exchange(side, &ask.request);
            }
            exchange(side, last.as_bytes());
            side.until("the last line", |side| {
                let lines = side.log(1);
                let is_last = |line: &String| line.ends_with(" last");
                lines.iter().any(is_last).then_some(lines)
            })
        };
        let (ours, stock) = (Side::anyam_by(&filtered), Side::envoy_by(&filtered));
        assert_eq!(lines(&ours), lines(&stock), "{filter}");
    }

    fn bootstrap(&self, front: SocketAddr, log: &str) -> Value {
        let mut host = json!({"name": "all", "domains": ["shop", "shop:*"], "routes": self.routes});
        extend(&mut host, &self.host);
        let format = json!({"text_format_source": {"inline_string": FORMAT}});
        let mut manager = json!({
            "@type": MANAGER,
            "stat_prefix": "front",
            "access_log": [{
                "name": "file",
                "typed_config": {"@type": LOG, "path": log, "log_format": format},
            }],
            "route_config": {"name": "routes", "virtual_hosts": [host]},
            "http_filters": [{"name": "router", "typed_config": {"@type": ROUTER}}],
        });
        extend(&mut manager, &self.manager);
        json!({"static_resources": {
            "listeners": [{
                "name": "front",
                "address": socket_address(front),
                "filter_chains": [{"filters": [{"name": "http", "typed_config": manager}]}],
            }],
            "clusters": self.clusters,
        }})
    }
}

fn extend(value: &mut Value, more: &Value) {
    for (key, field) in more.as_object().into_iter().flatten() {
        value[key] = field.clone();
    }
}

fn socket_address(address: SocketAddr) -> Value {
    let (ip, port) = (address.ip().to_string(), address.port());
    json!({"socket_address": {"address": ip, "port_value": port}})
}

/// A static cluster with these endpoints; `more`: further fields.
fn cluster(name: &str, endpoints: &[SocketAddr], more: &Value) -> Value {
    let endpoints: Vec<_> = endpoints
        .iter()
        .map(|at| json!({"endpoint": {"address": socket_address(*at)}}))
        .collect();
    let mut cluster = json!({
        "name": name,
        "type": "STATIC",
        "connect_timeout": "5s",
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": endpoints}]},
    });
    extend(&mut cluster, more);
    cluster
}

/// A route by prefix, with these fields of its action.
fn route(prefix: &str, action: Value) -> Value {
    json!({"name": &prefix[1..], "match": {"prefix": prefix}, "route": action})
}

/// A request to the host `shop`; `headers`: lines that end in CRLF.
fn request(method: &str, path: &str, headers: &str, body: &str) -> String {
    format!("{method} {path} HTTP/1.1\r\nhost: shop\r\n{headers}\r\n{body}")
}

fn get(path: &str) -> String {
    request("GET", path, "", "")
}
