//! HTTP filters beside a stock Envoy: the same bootstrap, the same requests, the same answers,
//! the same requests upstream, the same access log.
//!
//! - `side`: one of the two proxies; `upstream`, `coded`: what stands behind both; `tokens`: JSON Web
//!   Tokens
//! - the rest: a table of scenarios per filter

mod buffer;
mod chain;
mod coded;
mod compressor;
mod cors;
mod csrf;
mod decompressor;
mod fault;
mod header_mutation;
mod header_to_metadata;
mod jwt_authn;
mod local_ratelimit;
pub mod side;
mod tokens;
pub mod upstream;

use std::net::SocketAddr;

use serde_json::{Value, json};

use self::side::Side;
use self::upstream::Reflector;

const TYPE: &str = "type.googleapis.com/envoy.extensions.filters.http";

/// What both proxies are configured with.
pub struct Scenario {
    /// Before the router.
    pub filters: Value,
    pub virtual_hosts: Value,
    /// Further fields of the route configuration.
    pub table: Value,
    /// Further fields of the connection manager.
    pub manager: Value,
    /// Further clusters.
    pub clusters: Value,
}

impl Scenario {
    /// These filters, and one route to the cluster `app`.
    pub fn new(filters: Value) -> Self {
        Self::with_routes(filters, json!([route("/")]))
    }

    pub fn with_routes(filters: Value, routes: Value) -> Self {
        Self::with_host(
            filters,
            json!({"name": "all", "domains": ["*"], "routes": routes}),
        )
    }

    pub fn with_host(filters: Value, host: Value) -> Self {
        Self {
            filters,
            virtual_hosts: json!([host]),
            table: json!({}),
            manager: json!({}),
            clusters: json!([]),
        }
    }

    /// Sends each request to both, and compares what comes of it. `asks`: a request and the status
    /// that it gets.
    pub fn compare(&self, asks: &[(String, u16)]) {
        let upstream = Reflector::start();
        let ours = Side::anyam(self, upstream.address);
        let stock = Side::envoy(self, upstream.address);
        let mut wrong = Vec::new();
        for (request, wanted) in asks {
            let (ours, stock) = (ours.ask(request), stock.ask(request));
            if ours != stock {
                wrong.push(format!("{request}{ours:#?}\nEnvoy: {stock:#?}"));
            } else if ours.status != *wanted {
                wrong.push(format!("{request}{wanted} wanted\n{ours:#?}"));
            }
        }
        assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
        let (ours, stock) = (ours.log(asks.len()), stock.log(asks.len()));
        assert_eq!(ours, stock, "access logs, Anyam | Envoy");
    }
}

/// A cluster with one endpoint.
pub fn cluster(name: &str, endpoint: SocketAddr) -> Value {
    let (ip, port) = (endpoint.ip().to_string(), endpoint.port());
    let address = json!({"socket_address": {"address": ip, "port_value": port}});
    json!({
        "name": name,
        "type": "STATIC",
        "connect_timeout": "5s",
        "load_assignment": {
            "cluster_name": name,
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address}}]}],
        },
    })
}

/// A route by prefix to the cluster `app`.
pub fn route(prefix: &str) -> Value {
    json!({"match": {"prefix": prefix}, "route": {"cluster": "app"}})
}

/// As [`route`], with `typed_per_filter_config`.
pub fn route_with(prefix: &str, of_filters: Value) -> Value {
    let mut route = route(prefix);
    route["typed_per_filter_config"] = of_filters;
    route
}

/// A filter of the type `kind` (`fault.v3.HTTPFault`).
pub fn filter(name: &str, kind: &str, config: Value) -> Value {
    json!({"name": name, "typed_config": typed(kind, config)})
}

/// A filter's configuration of the type `kind`.
pub fn typed(kind: &str, mut config: Value) -> Value {
    config["@type"] = format!("{TYPE}.{kind}").into();
    config
}

/// A request without a body; `headers`: lines that end in CRLF.
pub fn ask(method: &str, path: &str, headers: &str) -> String {
    format!("{method} {path} HTTP/1.1\r\nhost: shop\r\n{headers}\r\n")
}

pub fn get(path: &str, headers: &str) -> String {
    ask("GET", path, headers)
}
