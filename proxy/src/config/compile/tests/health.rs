//! Active health checks.

use super::*;
use crate::config::health::{HealthProtocol, StatusRange};

const TIMES: &str = "timeout: 1s, interval: 5s, unhealthy_threshold: 2, healthy_threshold: 3";

/// A cluster with this check; `more`: further fields, in lines.
fn with(check: &str, more: &str) -> String {
    format!(
        "name: up\ntype: STATIC\nload_assignment: {{cluster_name: up}}\n\
         health_checks: [{{{check}}}]\n{more}\n"
    )
}

fn of(check: &str) -> Arc<crate::config::health::HealthCheck> {
    let compiled = cluster(&with(check, "http2_protocol_options: {}"));
    compiled.unwrap().def.health.clone().unwrap()
}

#[test]
fn what_is_not_given_is_envoys_default() {
    let seconds = Duration::from_secs;
    let check = of(&format!("{TIMES}, http_health_check: {{path: /}}"));
    let intervals = check.intervals;
    let all = [
        intervals.healthy,
        intervals.healthy_edge,
        intervals.unhealthy,
        intervals.unhealthy_edge,
    ];
    assert_eq!(all, [seconds(5); 4]);
    let without = [intervals.no_traffic, intervals.no_traffic_healthy];
    assert_eq!(without, [seconds(60); 2]);
    assert!(check.reuse_connection && check.alpn.is_none());
    let HealthProtocol::Http(http) = &check.protocol else {
        panic!("another protocol");
    };
    let ok = StatusRange {
        start: 200,
        end: 201,
    };
    assert_eq!(
        (http.method, http.http2, http.response_buffer),
        ("GET", false, 1024)
    );
    assert_eq!(http.expected, [ok]);
    assert!(http.host.is_none() && http.retriable.is_empty());
}

#[test]
fn intervals_follow_those_they_are_made_of() {
    let seconds = Duration::from_secs;
    let check = of(&format!(
        "{TIMES}, unhealthy_interval: 7s, no_traffic_interval: 9s, tcp_health_check: {{}}"
    ));
    let intervals = check.intervals;
    assert_eq!(intervals.unhealthy_edge, seconds(7));
    assert_eq!(intervals.no_traffic_healthy, seconds(9));
    assert_eq!(intervals.healthy_edge, seconds(5));
}

#[test]
fn payloads_are_hexadecimal_or_binary() {
    let check = of(&format!(
        "{TIMES}, tcp_health_check: {{send: {{text: 0a0B}}, receive: [{{binary: AQID}}]}}"
    ));
    let HealthProtocol::Tcp(tcp) = &check.protocol else {
        panic!("another protocol");
    };
    assert_eq!(tcp.send.as_deref(), Some(&[10, 11][..]));
    assert_eq!(*tcp.receive.0[0], [1, 2, 3]);
}

#[test]
fn checks_that_cannot_be_made_are_refused_by_path() {
    let http = |more: &str| format!("{TIMES}, http_health_check: {{path: /, {more}}}");
    let tcp = |more: &str| format!("{TIMES}, tcp_health_check: {{{more}}}");
    for (check, path) in [
        (
            format!("{TIMES}, custom_health_check: {{name: a}}"),
            "custom_health_check",
        ),
        (
            format!("{TIMES}, grpc_health_check: {{}}"),
            "grpc_health_check",
        ),
        (TIMES.to_owned(), "health_checker"),
        ("interval: 1s, tcp_health_check: {}".to_owned(), "timeout"),
        ("timeout: 1s, tcp_health_check: {}".to_owned(), "interval"),
        (
            "timeout: 1s, interval: 1s, healthy_threshold: 1, tcp_health_check: {}".to_owned(),
            "unhealthy_threshold",
        ),
        (
            format!("{TIMES}, unhealthy_interval: 0s, tcp_health_check: {{}}"),
            "unhealthy_interval",
        ),
        (
            format!("{TIMES}, http_health_check: {{}}"),
            "http_health_check.path",
        ),
        (http("host: \"a b\""), "http_health_check.host"),
        (http("send: {text: aa}"), "http_health_check.send"),
        (http("method: CONNECT"), "http_health_check.method"),
        (
            http("codec_client_type: HTTP3"),
            "http_health_check.codec_client_type",
        ),
        (
            http("expected_statuses: [{start: 99, end: 200}]"),
            "http_health_check.expected_statuses[0]",
        ),
        (
            http("retriable_statuses: [{start: 200, end: 200}]"),
            "http_health_check.retriable_statuses[0]",
        ),
        (
            http("receive: [{text: aabb}], response_buffer_size: 1"),
            "http_health_check.receive",
        ),
        (tcp("send: {text: a}"), "tcp_health_check.send.text"),
        (tcp("send: {text: zz}"), "tcp_health_check.send.text"),
        (
            tcp("receive: [{text: \"\"}]"),
            "tcp_health_check.receive[0]",
        ),
        (tcp("receive: [{}]"), "tcp_health_check.receive[0].payload"),
    ] {
        let error = cluster(&with(&check, "")).err().unwrap();
        assert_eq!(error.path, format!("health_checks[0].{path}"), "{check}");
    }
}

#[test]
fn clusters_that_cannot_be_checked_are_refused_by_path() {
    let check = format!("{TIMES}, tcp_health_check: {{}}");
    let twice = with(&format!("{check}}}, {{{check}"), "");
    assert_eq!(cluster(&twice).err().unwrap().path, "health_checks[1]");
    let closing = with(&check, "close_connections_on_host_health_failure: true");
    let path = "close_connections_on_host_health_failure";
    assert_eq!(cluster(&closing).err().unwrap().path, path);
    let original = format!(
        "name: up\ntype: ORIGINAL_DST\nlb_policy: CLUSTER_PROVIDED\nhealth_checks: [{{{check}}}]\n"
    );
    assert_eq!(cluster(&original).err().unwrap().path, "health_checks[0]");
}
