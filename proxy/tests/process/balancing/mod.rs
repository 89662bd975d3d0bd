//! Which endpoint a request or connection goes to, beside a stock Envoy: the same clusters, the same
//! keys, the same endpoints.
//!
//! - `tables`: rings and Maglev's tables; `hashing`: what is hashed of requests and connections
//! - `sessions`: those that stay on an endpoint; `subsets`: endpoints by their metadata
//! - `shares`: how many requests each endpoint gets, with `localities` and `zones`

mod hashing;
mod localities;
mod sessions;
mod shares;
mod subsets;
mod tables;
mod zones;

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};

use serde_json::{Value, json};

use crate::filters::side::{Seen, Side};

const POLICIES: &str = "type.googleapis.com/envoy.extensions.load_balancing_policies";
const NETWORK: &str = "type.googleapis.com/envoy.extensions.filters.network";
const ROUTER: &str = "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router";

/// The same configuration in both proxies.
struct Pair {
    ours: Side,
    stock: Side,
}

/// What both are configured with.
struct Setup {
    clusters: Vec<Value>,
    routes: Vec<Value>,
    /// Before the router.
    filters: Value,
    /// The cluster of a TCP proxy, at the port after the front's, and further fields of it.
    tcp: Option<(&'static str, Value)>,
    /// Further fields of the bootstrap.
    more: Value,
}

impl Setup {
    fn new(clusters: Vec<Value>, routes: Vec<Value>) -> Self {
        Self {
            clusters,
            routes,
            filters: json!([]),
            tcp: None,
            more: json!({}),
        }
    }

    fn start(&self) -> Pair {
        let bootstrap = |front: SocketAddr, _: &str| self.bootstrap(front);
        Pair {
            ours: Side::anyam_by(&bootstrap),
            stock: Side::envoy_by(&bootstrap),
        }
    }

    fn bootstrap(&self, front: SocketAddr) -> Value {
        let mut filters = self.filters.as_array().unwrap().clone();
        filters.push(json!({"name": "router", "typed_config": {"@type": ROUTER}}));
        let manager = json!({
            "@type": format!("{NETWORK}.http_connection_manager.v3.HttpConnectionManager"),
            "stat_prefix": "front",
            "route_config": {"name": "routes", "virtual_hosts": [
                {"name": "all", "domains": ["*"], "routes": self.routes},
            ]},
            "http_filters": filters,
        });
        let listener = |at: SocketAddr, filter: Value| {
            json!({
                "name": format!("at-{}", at.port()),
                "address": socket_address(at),
                "filter_chains": [{"filters": [{"name": "last", "typed_config": filter}]}],
            })
        };
        let mut listeners = vec![listener(front, manager)];
        if let Some((cluster, more)) = &self.tcp {
            let mut proxy = more.clone();
            proxy["@type"] = format!("{NETWORK}.tcp_proxy.v3.TcpProxy").into();
            proxy["stat_prefix"] = "tcp".into();
            proxy["cluster"] = (*cluster).into();
            listeners.push(listener(after(front), proxy));
        }
        let mut bootstrap = self.more.clone();
        bootstrap["static_resources"] = json!({"listeners": listeners, "clusters": self.clusters});
        bootstrap
    }
}

fn after(front: SocketAddr) -> SocketAddr {
    SocketAddr::new(front.ip(), front.port() + 1)
}

impl Pair {
    /// The endpoint that a request goes to: in both the same.
    fn same(&self, request: &str) -> String {
        let [ours, stock] = self.ask(request).map(|seen| from(&seen));
        assert_eq!(ours, stock, "Anyam | Envoy, for\n{request}");
        ours
    }

    fn ask(&self, request: &str) -> [Seen; 2] {
        [self.ours.ask(request), self.stock.ask(request)]
    }
}

/// Who answered.
fn from(seen: &Seen) -> String {
    assert_eq!(seen.status, 200, "{seen:?}");
    header(seen, "x-from").unwrap()
}

fn header(seen: &Seen, name: &str) -> Option<String> {
    let found = seen.headers.iter().find(|(known, _)| known == name);
    found.map(|(_, value)| value.clone())
}

/// Servers that name themselves in their answers.
fn upstreams(count: usize) -> Vec<SocketAddr> {
    (0..count).map(|_| crate::proxy::upstream(serve)).collect()
}

fn serve(tcp: TcpStream) {
    let own = tcp.local_addr().unwrap();
    let mut writer = tcp.try_clone().unwrap();
    let mut lines = BufReader::new(tcp).lines();
    while let Some(Ok(line)) = lines.next() {
        if !line.is_empty() {
            continue;
        }
        let answer = format!("HTTP/1.1 200 OK\r\nx-from: {own}\r\ncontent-length: 0\r\n\r\n");
        if writer.write_all(answer.as_bytes()).is_err() {
            return;
        }
    }
}

fn socket_address(at: SocketAddr) -> Value {
    json!({"socket_address": {"address": at.ip().to_string(), "port_value": at.port()}})
}

fn endpoint(at: SocketAddr) -> Value {
    json!({"endpoint": {"address": socket_address(at)}})
}

fn weighted(at: SocketAddr, weight: u32) -> Value {
    let mut endpoint = endpoint(at);
    endpoint["load_balancing_weight"] = weight.into();
    endpoint
}

/// A static cluster; `endpoints`: by priority; `more`: further fields.
fn cluster(name: &str, endpoints: &[Vec<Value>], more: Value) -> Value {
    let of_priority = |(priority, endpoints): (usize, &Vec<Value>)| json!({"priority": priority, "lb_endpoints": endpoints});
    let all: Vec<_> = endpoints.iter().enumerate().map(of_priority).collect();
    let mut cluster = more;
    cluster["name"] = name.into();
    cluster["type"] = "STATIC".into();
    cluster["connect_timeout"] = "5s".into();
    cluster["load_assignment"] = json!({"cluster_name": name, "endpoints": all});
    cluster
}

/// Requests below `/<cluster>`; `more`: further fields of the action.
fn route(path: &str, cluster: &str, more: Value) -> Value {
    let mut action = more;
    action["cluster"] = cluster.into();
    json!({"match": {"prefix": path}, "route": action})
}

fn by_user() -> Value {
    json!([{"header": {"header_name": "x-user"}}])
}

fn get(path: &str, headers: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nhost: shop\r\n{headers}\r\n")
}
