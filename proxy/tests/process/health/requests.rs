//! What is asked of a host, and what is logged of it, beside Envoy.

use std::net::SocketAddr;

use serde_json::{Value, json};

use super::host::{ScriptedHost, Speaks, Step};
use super::{BOTH, SHORT, admin_of, arrivals, bootstrap, check, endpoint, http_check, merge};

/// The requests that both send with this check.
fn same_requests(check: &Value) -> Vec<String> {
    let requests = arrivals(Speaks::Http, check, &[Step::Status(200)]);
    let [ours, stock] = requests.map(|mut arrived| arrived.pop().unwrap().request);
    assert_eq!(ours, stock, "Anyam | Envoy, of {check}");
    ours
}

#[test]
fn a_request_is_envoys() {
    let plain = same_requests(&check(http_check(json!({}))));
    assert!(
        plain.contains(&"GET /healthz HTTP/1.1".to_owned()),
        "{plain:?}"
    );
    assert!(plain.contains(&"host: up".to_owned()), "{plain:?}");
    assert!(
        plain.contains(&"user-agent: Envoy/HC".to_owned()),
        "{plain:?}"
    );
}

#[test]
fn a_request_is_what_is_configured() {
    let add = |key: &str, value: &str| json!({"header": {"key": key, "value": value}});
    let request = same_requests(&check(http_check(json!({
        "path": "/a?b=c", "host": "shop.example", "method": "HEAD",
        "request_headers_to_add": [
            add("x-one", "1"), add("x-none", "%UPSTREAM_CLUSTER%"),
        ],
        "request_headers_to_remove": ["user-agent"],
    }))));
    for line in ["HEAD /a?b=c HTTP/1.1", "host: shop.example", "x-one: 1"] {
        assert!(request.contains(&line.to_owned()), "{line}: {request:?}");
    }
    assert!(!request.iter().any(|line| line.starts_with("user-agent")));
}

#[test]
fn an_endpoint_is_checked_elsewhere_and_by_another_name() {
    for start in BOTH {
        let host = ScriptedHost::start(Speaks::Http, &[Step::Status(200)]);
        let nowhere: SocketAddr = "127.0.0.1:1".parse().unwrap();
        let mut elsewhere = endpoint(nowhere);
        elsewhere["endpoint"]["health_check_config"] =
            json!({"port_value": host.address.port(), "hostname": "own.example"});
        let more = json!({"health_checks": [check(http_check(json!({"host": "a"})))]});
        let side = start(&|front, _| bootstrap(front, &[elsewhere.clone()], &more));
        let request = host.next().request;
        assert!(
            request.contains(&"host: own.example".to_owned()),
            "{request:?}"
        );
        let admin = admin_of(side.front());
        let healthy = |flags: String| (flags == "healthy").then_some(());
        side.until("healthy", |_| {
            super::host::flags(admin, nowhere).and_then(healthy)
        });
    }
}

#[test]
fn an_endpoint_is_not_checked_at_all() {
    for start in BOTH {
        let checked = ScriptedHost::start(Speaks::Http, &[Step::Status(200)]);
        let nowhere: SocketAddr = "127.0.0.1:1".parse().unwrap();
        let mut unchecked = endpoint(nowhere);
        unchecked["endpoint"]["health_check_config"] = json!({"disable_active_health_check": true});
        let endpoints = [unchecked, endpoint(checked.address)];
        let more = json!({"health_checks": [check(http_check(json!({})))]});
        let side = start(&|front, _| bootstrap(front, &endpoints, &more));
        checked.take(3);
        let flags = super::host::flags(admin_of(side.front()), nowhere);
        assert_eq!(flags.as_deref(), Some("healthy"));
    }
}

const SINK: &str = "type.googleapis.com/envoy.extensions.health_check.event_sinks.file.v3.HealthCheckEventFileSink";

/// How the log is configured.
#[derive(Clone, Copy)]
enum LogField {
    Path,
    Sink,
}

/// Lines of the event log, without what differs between two runs.
fn events(check: &Value, script: &[Step], lines: usize, by: LogField) -> [Vec<Value>; 2] {
    BOTH.map(|start| {
        let host = ScriptedHost::start(Speaks::Http, script);
        let side = start(&|front, log| {
            let mut check = check.clone();
            match by {
                LogField::Path => check["event_log_path"] = log.into(),
                LogField::Sink => {
                    let sink = json!({"@type": SINK, "event_log_path": log});
                    check["event_logger"] = json!([{"name": "file", "typed_config": sink}]);
                }
            }
            let mut one = endpoint(host.address);
            one["load_balancing_weight"] = 3.into();
            let more = json!({
                "health_checks": [check],
                "load_assignment": {"cluster_name": "up", "endpoints": [{
                    "locality": {"region": "r", "zone": "z"}, "lb_endpoints": [one],
                }]},
            });
            bootstrap(front, &[], &more)
        });
        host.take(script.len() + 1);
        let plain = |line: String| {
            let mut event: Value = serde_json::from_str(&line).unwrap();
            let stamp = event["timestamp"].take();
            assert!(stamp.as_str().unwrap().ends_with('Z'), "{stamp}");
            let port = event["host"]["socket_address"]["port_value"].take();
            assert_eq!(port, json!(host.address.port()));
            event
        };
        let mut logged = side.log(lines);
        logged.truncate(lines);
        logged.into_iter().map(plain).collect()
    })
}

#[test]
fn events_are_envoys() {
    let mut check = check(http_check(json!({})));
    merge(&mut check, &json!({"timeout": SHORT}));
    let script = [
        Step::Status(503),
        Step::Status(200),
        Step::With(200, "x-envoy-degraded: a"),
        Step::Status(200),
        Step::Silent,
        Step::Close,
        Step::Status(200),
        Step::Status(404),
        Step::Status(200),
    ];
    let [ours, stock] = events(&check, &script, 8, LogField::Path);
    assert_eq!(ours, stock);
    assert_eq!(ours[0]["health_check_failure_event"]["first_check"], true);
    merge(
        &mut check,
        &json!({"always_log_health_check_failures": true, "always_log_health_check_success": true}),
    );
    let [ours, stock] = events(&check, &script, 14, LogField::Sink);
    assert_eq!(ours, stock);
}
