//! Active health checks of scripted hosts: beside a stock Envoy, and of ours alone where Envoy has
//! nothing to compare with.
//!
//! - `host`: a host whose answers follow a script, over HTTP/1 or TCP; `http2`: the same over HTTP/2,
//!   with gRPC
//! - `states`: what results do to a host's health; `statistics`: what is counted; `requests`: what is
//!   asked, what is logged
//! - `traffic`: what health does to requests; `filter`: health checks of the proxy itself; `bounds`: TLS, many hosts, hostile ones

mod bounds;
mod filter;
mod host;
mod http2;
mod requests;
mod states;
mod statistics;
mod traffic;

use std::net::SocketAddr;

use serde_json::{Value, json};

use self::host::{Arrived, ScriptedHost, Speaks, Step};
use crate::filters::side::Side;

const NETWORK: &str = "type.googleapis.com/envoy.extensions.filters.network";
const ROUTER: &str = "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router";

/// How a proxy is started by a bootstrap.
type Start = fn(&dyn Fn(SocketAddr, &str) -> Value) -> Side;

const BOTH: [Start; 2] = [Side::anyam_by, Side::envoy_by];

/// Where a proxy with this front has its pages.
fn admin_of(front: SocketAddr) -> SocketAddr {
    SocketAddr::new(front.ip(), front.port() + 1)
}

fn socket_address(at: SocketAddr) -> Value {
    json!({"socket_address": {"address": at.ip().to_string(), "port_value": at.port()}})
}

/// A bootstrap with one cluster, `up`, of these endpoints; `more`: its further fields.
fn bootstrap(front: SocketAddr, endpoints: &[Value], more: &Value) -> Value {
    let manager = json!({
        "@type": format!("{NETWORK}.http_connection_manager.v3.HttpConnectionManager"),
        "stat_prefix": "front",
        "route_config": {"name": "routes", "virtual_hosts": [{
            "name": "all", "domains": ["*"],
            "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "up"}}],
        }]},
        "http_filters": [{"name": "router", "typed_config": {"@type": ROUTER}}],
    });
    let mut cluster = json!({
        "name": "up", "type": "STATIC", "connect_timeout": "5s",
        "load_assignment": {"cluster_name": "up", "endpoints": [{"lb_endpoints": endpoints}]},
    });
    merge(&mut cluster, more);
    json!({
        "admin": {"address": socket_address(admin_of(front))},
        "static_resources": {
            "listeners": [{
                "name": "front", "address": socket_address(front),
                "filter_chains": [{"filters": [{"name": "http", "typed_config": manager}]}],
            }],
            "clusters": [cluster],
        },
    })
}

fn merge(into: &mut Value, more: &Value) {
    for (key, value) in more.as_object().unwrap() {
        into[key] = value.clone();
    }
}

fn endpoint(at: SocketAddr) -> Value {
    json!({"endpoint": {"address": socket_address(at)}})
}

/// A check's time-out where the host does not answer.
const SHORT: &str = "2s";

/// A health check with short intervals; `more`: its further fields.
fn check(more: Value) -> Value {
    let mut check = json!({
        "timeout": "20s", "interval": "0.03s", "no_traffic_interval": "0.03s",
        "unhealthy_threshold": 1, "healthy_threshold": 1,
    });
    merge(&mut check, &more);
    check
}

/// By GET of a path.
fn http_check(more: Value) -> Value {
    let mut http = json!({"path": "/healthz"});
    merge(&mut http, &more);
    json!({"http_health_check": http})
}

/// What each of the two does with a host: the checks that arrive, one more than the script has steps.
fn arrivals(speaks: Speaks, check: &Value, script: &[Step]) -> [Vec<Arrived>; 2] {
    BOTH.map(|start| {
        let host = ScriptedHost::start(speaks, script);
        let more = json!({"health_checks": [check]});
        let _side = start(&|front, _| {
            host.is_checked_by(admin_of(front));
            bootstrap(front, &[endpoint(host.address)], &more)
        });
        host.take(script.len() + 1)
    })
}

/// The flags after each step, which are the same beside Envoy.
fn same_states(speaks: Speaks, check: &Value, script: &[Step]) -> Vec<String> {
    let [ours, stock] = arrivals(speaks, check, script).map(|arrived| {
        // Before the first one the pages may not be there yet.
        let flags = arrived.into_iter().skip(1).map(|arrived| arrived.flags);
        flags.collect::<Vec<_>>()
    });
    assert_eq!(ours, stock, "Anyam | Envoy, of {check}\n{script:?}");
    ours
}
