//! `/clusters`, in Envoy's two shapes.

use std::fmt::Write;
use std::net::SocketAddr;
use std::sync::Arc;

use serde_json::{Value, json};

use crate::config::cluster::RetryLimit;
use crate::config::endpoint::HealthStatus;
use crate::snapshot::Snapshot;
use crate::upstream::cluster::Cluster;
use crate::upstream::endpoint::Endpoint;
use crate::upstream::outlier::FailureOrigin;

pub(super) fn address(address: SocketAddr) -> Value {
    json!({
        "socket_address": { "address": address.ip().to_string(), "port_value": address.port() }
    })
}

fn sorted(snapshot: &Snapshot) -> Vec<&Arc<Cluster>> {
    let mut clusters: Vec<_> = snapshot.clusters.values().collect();
    clusters.sort_by(|a, b| a.name.cmp(&b.name));
    clusters
}

/// Envoy's health flags of an endpoint, in its order.
fn health_flags(endpoint: &Endpoint) -> String {
    let active = endpoint.state.health.get();
    let all = [
        (active.is_failed(), "/failed_active_hc"),
        (endpoint.state.is_ejected(), "/failed_outlier_check"),
        (
            endpoint.health == HealthStatus::Unhealthy,
            "/failed_eds_health",
        ),
        (active.is_degraded(), "/degraded_active_hc"),
        (
            endpoint.health == HealthStatus::Degraded,
            "/degraded_eds_health",
        ),
        (endpoint.leaving, "/pending_dynamic_removal"),
        (active.is_pending(), "/pending_active_hc"),
        (active.is_excluded(), "/excluded_via_immediate_hc_fail"),
        (active.is_timed_out(), "/active_hc_timeout"),
        (
            endpoint.health == HealthStatus::Draining,
            "/eds_status_draining",
        ),
    ];
    let flags: String = all
        .into_iter()
        .filter_map(|(set, flag)| set.then_some(flag))
        .collect();
    match flags.is_empty() {
        true => "healthy".to_owned(),
        false => flags,
    }
}

/// The origins that have a success rate, and the prefix of Envoy's names for it.
const ORIGINS: [(FailureOrigin, &str); 2] = [
    (FailureOrigin::External, ""),
    (FailureOrigin::Local, "local_origin_"),
];

/// -1 where there were too few requests, as Envoy writes it.
fn number(share: Option<f64>) -> f64 {
    share.unwrap_or(-1.0)
}

/// `cluster::what::value` lines.
pub(super) fn text(snapshot: &Snapshot) -> Vec<u8> {
    let mut out = String::new();
    for cluster in sorted(snapshot) {
        // Writing to a String does not fail.
        let _ = write_cluster(&mut out, cluster);
    }
    out.into_bytes()
}

fn write_cluster(out: &mut String, cluster: &Cluster) -> std::fmt::Result {
    let name = &cluster.name;
    let limits = cluster.limits.thresholds();
    writeln!(out, "{name}::observability_name::{name}")?;
    let at = format!("{name}::default_priority");
    writeln!(out, "{at}::max_connections::{}", limits.connections)?;
    writeln!(out, "{at}::max_pending_requests::{}", limits.pending)?;
    writeln!(out, "{at}::max_requests::{}", limits.requests)?;
    match limits.retries {
        RetryLimit::Fixed(retries) => writeln!(out, "{at}::max_retries::{retries}")?,
        RetryLimit::Budget { percent, min } => {
            writeln!(out, "{at}::retry_budget::{percent}%::min_{min}")?;
        }
    }
    for (origin, of) in ORIGINS {
        let baseline = cluster.detector.baseline(origin);
        let average = number(baseline.average());
        writeln!(out, "{name}::outlier::{of}success_rate_average::{average}")?;
        let threshold = number(baseline.threshold());
        writeln!(
            out,
            "{name}::outlier::{of}success_rate_ejection_threshold::{threshold}"
        )?;
    }
    let set = cluster.endpoints.load();
    for (priority, group) in set.priorities.iter().enumerate() {
        for endpoint in &group.endpoints {
            let at = format!("{name}::{}", endpoint.address);
            writeln!(out, "{at}::rq_active::{}", endpoint.state.active())?;
            let host = endpoint.host_name.as_deref().unwrap_or_default();
            writeln!(out, "{at}::hostname::{host}")?;
            writeln!(out, "{at}::health_flags::{}", health_flags(endpoint))?;
            writeln!(out, "{at}::weight::{}", endpoint.weight)?;
            let locality = endpoint.locality.as_deref().unwrap_or_default();
            writeln!(out, "{at}::locality::{locality}")?;
            writeln!(out, "{at}::priority::{priority}")?;
            for (origin, of) in ORIGINS {
                let share = number(endpoint.state.rates.last(origin));
                writeln!(out, "{at}::{of}success_rate::{share}")?;
            }
        }
    }
    Ok(())
}

/// envoy.admin.v3.Clusters.
pub(super) fn json(snapshot: &Snapshot) -> Value {
    let statuses: Vec<Value> = sorted(snapshot).into_iter().map(|c| status(c)).collect();
    json!({ "cluster_statuses": statuses })
}

fn status(cluster: &Cluster) -> Value {
    let limits = cluster.limits.thresholds();
    let set = cluster.endpoints.load();
    let groups = set.priorities.iter().enumerate();
    let hosts: Vec<Value> = groups
        .flat_map(|(priority, group)| group.endpoints.iter().map(move |e| host(e, priority)))
        .collect();
    json!({
        "name": &*cluster.name,
        "observability_name": &*cluster.name,
        "ready": set.ready,
        "host_statuses": hosts,
        "circuit_breakers": { "thresholds": [{
            "max_connections": limits.connections,
            "max_pending_requests": limits.pending,
            "max_requests": limits.requests,
        }]},
    })
}

fn host(endpoint: &Endpoint, priority: usize) -> Value {
    let active = endpoint.state.health.get();
    let eds = match endpoint.health {
        HealthStatus::Healthy => "HEALTHY",
        HealthStatus::Degraded => "DEGRADED",
        HealthStatus::Draining => "DRAINING",
        HealthStatus::Unhealthy => "UNHEALTHY",
    };
    json!({
        "address": address(endpoint.address),
        "stats": [
            { "name": "rq_active", "type": "GAUGE", "value": endpoint.state.active().to_string() }
        ],
        "health_status": {
            "eds_health_status": eds,
            "failed_active_health_check": active.is_failed(),
            "failed_outlier_check": endpoint.state.is_ejected(),
            "failed_active_degraded_check": active.is_degraded(),
            "pending_dynamic_removal": endpoint.leaving,
            "pending_active_hc": active.is_pending(),
            "excluded_via_immediate_hc_fail": active.is_excluded(),
            "active_hc_timeout": active.is_timed_out(),
        },
        "weight": endpoint.weight,
        "hostname": endpoint.host_name.as_deref().unwrap_or_default(),
        "priority": priority,
    })
}
