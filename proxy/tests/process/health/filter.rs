//! The health check filter, and what the access log leaves out, beside Envoy.

use std::net::SocketAddr;

use serde_json::{Value, json};

use super::{BOTH, NETWORK, ROUTER, admin_of, bootstrap, endpoint};
use crate::filters::side::{Seen, Side};
use crate::proxy::{ask, mirror, upstream};

const FILTER: &str =
    "type.googleapis.com/envoy.extensions.filters.http.health_check.v3.HealthCheck";
const LOG: &str = "type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog";
const FORMAT: &str = "%REQ(:PATH)% %RESPONSE_CODE% %RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS%\n";

/// Both with the filter in front of these endpoints; `log_filter`: of the access log.
fn both(filter: &Value, endpoints: &[Value], log_filter: Option<&Value>) -> [Side; 2] {
    BOTH.map(|start| {
        start(&|front, log| {
            let mut all = bootstrap(front, endpoints, &json!({}));
            all["node"] = json!({"id": "n", "cluster": "shop"});
            let listener = &mut all["static_resources"]["listeners"][0];
            let manager = &mut listener["filter_chains"][0]["filters"][0]["typed_config"];
            assert!(manager["@type"].as_str().unwrap().starts_with(NETWORK));
            let mut own = filter.clone();
            own["@type"] = FILTER.into();
            own["headers"] = json!([{"name": ":path", "string_match": {"exact": "/healthz"}}]);
            manager["http_filters"] = json!([
                {"name": "health", "typed_config": own},
                {"name": "router", "typed_config": {"@type": ROUTER}},
            ]);
            let mut access_log = json!({"name": "file", "typed_config": {
                "@type": LOG, "path": log,
                "log_format": {"text_format_source": {"inline_string": FORMAT}},
            }});
            if let Some(log_filter) = log_filter {
                access_log["filter"] = log_filter.clone();
            }
            manager["access_log"] = json!([access_log]);
            all
        })
    })
}

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nhost: a\r\n\r\n")
}

/// What both answer, the same.
fn same(sides: &[Side; 2], path: &str) -> Seen {
    let [ours, stock] = sides.each_ref().map(|side| {
        let mut seen = side.ask(&get(path));
        // It mirrors what each proxy sent.
        seen.body.clear();
        seen
    });
    assert_eq!(ours, stock, "Anyam | Envoy, for {path}");
    ours
}

fn post(side: &Side, path: &str) {
    let request = format!(
        "POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
    );
    let answer = ask(admin_of(side.front()), &request).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
}

fn same_log(sides: &[Side; 2], lines: usize) -> Vec<String> {
    let [ours, stock] = sides.each_ref().map(|side| side.log(lines));
    assert_eq!(ours, stock, "Anyam | Envoy");
    ours
}

fn header<'a>(seen: &'a Seen, name: &str) -> Option<&'a str> {
    let found = seen.headers.iter().find(|(known, _)| known == name);
    found.map(|(_, value)| value.as_str())
}

#[test]
fn health_checks_are_answered_here() {
    let up = endpoint(upstream(mirror));
    let sides = both(&json!({"pass_through_mode": false}), &[up], None);
    let healthy = same(&sides, "/healthz");
    assert_eq!(healthy.status, 200);
    let cluster = header(&healthy, "x-envoy-upstream-healthchecked-cluster");
    assert_eq!(cluster, Some("shop"));
    assert_eq!(same(&sides, "/other").status, 200);
    for side in &sides {
        post(side, "/healthcheck/fail");
    }
    assert_eq!(same(&sides, "/healthz").status, 503);
    let other = same(&sides, "/other");
    assert_eq!(other.status, 200);
    let mark = "x-envoy-immediate-health-check-fail";
    assert_eq!(header(&other, mark), Some("true"));
    for side in &sides {
        post(side, "/healthcheck/ok");
    }
    assert_eq!(same(&sides, "/healthz").status, 200);
    assert_eq!(header(&same(&sides, "/other"), mark), None);
    same_log(&sides, 6);
}

#[test]
fn clusters_decide_by_their_healthy_endpoints() {
    let address = upstream(mirror);
    let bad = SocketAddr::from(([127, 0, 0, 1], 1));
    let with = |at: SocketAddr, status: &str| {
        let mut one = endpoint(at);
        one["health_status"] = status.into();
        one
    };
    let endpoints = [
        with(address, "HEALTHY"),
        with(
            SocketAddr::from(([127, 0, 0, 2], address.port())),
            "DEGRADED",
        ),
        with(bad, "UNHEALTHY"),
        with(SocketAddr::from(([127, 0, 0, 2], 1)), "UNHEALTHY"),
    ];
    for (clusters, status) in [
        (json!({"up": {"value": 50}}), 200),
        (json!({"up": {"value": 50.9}}), 200),
        (json!({"up": {"value": 51}}), 503),
        (json!({"up": {"value": 0}}), 200),
        (json!({"none": {"value": 0}}), 503),
    ] {
        let filter =
            json!({"pass_through_mode": false, "cluster_min_healthy_percentages": clusters});
        let sides = both(&filter, &endpoints, None);
        assert_eq!(same(&sides, "/healthz").status, status, "{clusters}");
        same_log(&sides, 1);
    }
}

#[test]
fn answers_of_the_upstream_pass_and_are_kept() {
    let up = endpoint(upstream(mirror));
    let filter = json!({"pass_through_mode": true, "cache_time": "60s"});
    let sides = both(&filter, &[up], None);
    for _ in 0..3 {
        assert_eq!(same(&sides, "/healthz").status, 200);
    }
    let log = same_log(&sides, 3);
    assert_eq!(log[0], "/healthz 200 - via_upstream");
    assert_eq!(log[1], "/healthz 200 - health_check_cached");
    for side in &sides {
        post(side, "/healthcheck/fail");
    }
    assert_eq!(same(&sides, "/healthz").status, 503);
    assert_eq!(
        same_log(&sides, 4)[3],
        "/healthz 503 LH health_check_failed"
    );
}

#[test]
fn the_access_log_leaves_health_checks_out() {
    let up = endpoint(upstream(mirror));
    let filter = json!({"pass_through_mode": true});
    let sides = both(
        &filter,
        &[up],
        Some(&json!({"not_health_check_filter": {}})),
    );
    for path in ["/a", "/healthz", "/b", "/healthz", "/c"] {
        same(&sides, path);
    }
    let log = same_log(&sides, 3);
    assert!(log.iter().all(|line| !line.contains("healthz")), "{log:?}");
}
