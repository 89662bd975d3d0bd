//! The event log: envoy.data.core.v3.HealthCheckEvent as JSON, a line each, as Envoy writes it.

use std::time::SystemTime;

use serde_json::{Map, Value, json};

use super::session::HealthEvent;
use crate::config::health::HealthCheck;
use crate::telemetry::escape::{Civil, strftime};
use crate::upstream::endpoint::Endpoint;

/// Writes events of a host to the log's sinks.
pub fn log(config: &HealthCheck, cluster: &str, endpoint: &Endpoint, events: &[HealthEvent]) {
    if config.events.sinks.is_empty() {
        return;
    }
    for event in events {
        let line = line(config, cluster, endpoint, *event, SystemTime::now());
        for sink in &config.events.sinks {
            sink.write(line.clone());
        }
    }
}

fn line(
    config: &HealthCheck,
    cluster: &str,
    endpoint: &Endpoint,
    event: HealthEvent,
    now: SystemTime,
) -> Vec<u8> {
    let address = endpoint.check_address();
    let mut parts = endpoint
        .locality
        .as_deref()
        .unwrap_or_default()
        .splitn(3, '/');
    let mut part = || parts.next().unwrap_or_default();
    let (region, zone, sub_zone) = (part(), part(), part());
    let (name, details) = described(event);
    let mut all = Map::new();
    let mut add = |name: &str, value: Value| drop(all.insert(name.to_owned(), value));
    add("health_checker_type", config.protocol.name().into());
    add(
        "host",
        json!({"socket_address": {
            "protocol": "TCP",
            "address": address.ip().to_string(),
            "port_value": address.port(),
            "resolver_name": "",
            "ipv4_compat": false,
            "network_namespace_filepath": "",
        }}),
    );
    add("cluster_name", cluster.into());
    add(name, details);
    add("timestamp", timestamp(now).into());
    add(
        "locality",
        json!({"region": region, "zone": zone, "sub_zone": sub_zone}),
    );
    let mut line = Value::Object(all).to_string().into_bytes();
    line.push(b'\n');
    line
}

/// The event's field, and its content.
fn described(event: HealthEvent) -> (&'static str, Value) {
    match event {
        HealthEvent::EjectUnhealthy { kind, status } => (
            "eject_unhealthy_event",
            json!({"failure_type": kind.name(), "http_status_code": status.unwrap_or(0)}),
        ),
        HealthEvent::AddHealthy { first } => ("add_healthy_event", json!({"first_check": first})),
        HealthEvent::Success => ("successful_health_check_event", json!({})),
        HealthEvent::Failure {
            kind,
            first,
            status,
        } => (
            "health_check_failure_event",
            json!({
                "failure_type": kind.name(),
                "first_check": first,
                "http_status_code": status.unwrap_or(0),
            }),
        ),
        HealthEvent::Degraded => ("degraded_healthy_host", json!({})),
        HealthEvent::NoLongerDegraded => ("no_longer_degraded_host", json!({})),
    }
}

/// RFC 3339, milliseconds.
fn timestamp(now: SystemTime) -> String {
    let since = now
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    let mut out = Vec::with_capacity(24);
    let civil = Civil::from_unix(since.as_secs());
    // Writing to a Vec does not fail.
    let _ = strftime(&mut out, "%FT%T.%3fZ", &civil, since);
    String::from_utf8(out).unwrap_or_default()
}
