//! Statistics of checks and members, and the page of clusters as JSON, beside Envoy.

use std::collections::BTreeMap;
use std::io::{BufReader, Write};
use std::net::{SocketAddr, TcpStream};

use serde_json::{Value, json};

use super::host::{ScriptedHost, Speaks, Step};
use super::{BOTH, admin_of, bootstrap, check, endpoint, http_check, merge};
use crate::filters::side::{End, Side, answer};

/// Envoy's names below `cluster.up.`, and ours below `anyam_cluster_`.
const NAMES: [(&str, &str); 11] = [
    ("health_check.attempt", "health_check_attempts_total"),
    ("health_check.success", "health_check_successes_total"),
    ("health_check.failure", "health_check_failures_total"),
    (
        "health_check.passive_failure",
        "health_check_passive_failures_total",
    ),
    (
        "health_check.network_failure",
        "health_check_network_failures_total",
    ),
    (
        "health_check.verify_cluster",
        "health_check_verify_cluster_total",
    ),
    ("health_check.healthy", "health_check_healthy"),
    ("health_check.degraded", "health_check_degraded"),
    ("membership_total", "endpoints"),
    ("membership_healthy", "endpoints_healthy"),
    ("membership_degraded", "endpoints_degraded"),
];

fn page(side: &Side, path: &str) -> Option<String> {
    let mut tcp = TcpStream::connect(admin_of(side.front())).ok()?;
    let request = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n");
    tcp.write_all(request.as_bytes()).ok()?;
    Some(answer(&mut BufReader::new(tcp), End::Framed).body)
}

/// The statistics, by Envoy's names.
fn statistics(side: &Side) -> Option<BTreeMap<&'static str, u64>> {
    let page = page(side, "/stats")?;
    let value = |(stock, ours): (&'static str, &str)| {
        let names = [
            format!("cluster.up.{stock}: "),
            format!("anyam_cluster_{ours}{{cluster=\"up\"}}: "),
        ];
        let of_line = |line: &str| {
            let rest = names
                .iter()
                .find_map(|name| line.strip_prefix(name.as_str()))?;
            rest.trim().parse().ok()
        };
        Some((stock, page.lines().find_map(of_line)?))
    };
    NAMES.into_iter().map(value).collect()
}

fn health(side: &Side, of: SocketAddr) -> Option<Value> {
    let page = page(side, "/clusters?format=json")?;
    let all: Value = serde_json::from_str(&page).ok()?;
    let hosts = all["cluster_statuses"][0]["host_statuses"]
        .as_array()?
        .clone();
    let port = |host: &Value| host["address"]["socket_address"]["port_value"].clone();
    let host = hosts
        .into_iter()
        .find(|host| port(host) == json!(of.port()))?;
    let mut health = host["health_status"].clone();
    // Envoy leaves out what is false.
    let fields = health.as_object_mut()?;
    fields.retain(|_, value| *value != json!(false));
    Some(health)
}

#[test]
fn statistics_and_pages_are_envoys() {
    let http = json!({"service_name_matcher": {"prefix": "a"}});
    let mut check = check(http_check(http));
    merge(
        &mut check,
        &json!({"unhealthy_threshold": 2, "timeout": "20s"}),
    );
    let good = Step::With(200, "x-envoy-upstream-healthchecked-cluster: a");
    let degraded = Step::With(
        200,
        "x-envoy-degraded: a\r\nx-envoy-upstream-healthchecked-cluster: a",
    );
    for script in [
        vec![good, Step::Status(200), Step::Close, degraded, Step::Silent],
        vec![
            good,
            Step::Close,
            Step::Reset,
            Step::Status(404),
            Step::Silent,
        ],
        vec![Step::Status(503), good, Step::Silent],
    ] {
        let seen = BOTH.map(|start| {
            let host = ScriptedHost::start(Speaks::Http, &script);
            let idle = SocketAddr::from(([127, 0, 0, 1], 1));
            let mut unchecked = endpoint(idle);
            unchecked["endpoint"]["health_check_config"] =
                json!({"disable_active_health_check": true});
            let endpoints = [endpoint(host.address), unchecked];
            let more = json!({"health_checks": [check]});
            let side = start(&|front, _| bootstrap(front, &endpoints, &more));
            host.take(script.len());
            (side, host)
        });
        let [(ours, our_host), (stock, stock_host)] = &seen;
        let of_stock = stock.until("statistics", statistics);
        ours.until(&format!("{script:?}: {of_stock:?}"), |ours| {
            (statistics(ours)? == of_stock).then_some(())
        });
        let of_stock = stock.until("a page", |side| health(side, stock_host.address));
        ours.until(&format!("{script:?}: {of_stock}"), |ours| {
            (health(ours, our_host.address)? == of_stock).then_some(())
        });
    }
}
