//! What the HTTP API answers, as types: the server serialises them, the CLI reads them back.
//!
//! Durations carry their unit in the name, points in time are RFC 3339 in UTC, rates are per
//! second over `window_seconds`, shares run from 0 to 1 and are absent where nothing was counted.
//!
//! | path | type |
//! |---|---|
//! | `GET /api/v1/proxies` | [`Proxies`] |
//! | `GET /api/v1/edges` | [`Edges`] |
//! | `GET /api/v1/stat` | [`Stats`] |
//! | `GET /api/v1/routes[?service=]` | [`Routes`] |
//! | `GET /api/v1/objects` | [`Objects`] |
//! | `GET /api/v1/check` | [`Check`] |
//! | `GET /api/v1/tap?workload=ns/name&…` | one [`Tap`] per line ([`TapQuery`] is the query) |
//! | `POST /api/v1/explain` | [`ExplainRequest`] → [`ExplainResponse`] |
//! | `GET /api/v1/dump/{ns}/{workload}/{what}` | the proxy's own admin page, as it is |
//! | any error | [`ApiError`] |
//!
//! The first six take `?namespace=` and then show that namespace only.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Every answer that is not 2xx: what happened, where, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApiError {
    pub what: String,
    #[serde(rename = "where")]
    pub location: String,
    pub todo: String,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Proxies {
    pub proxies: Vec<Proxy>,
    /// Replicas of the control plane that gave no answer in time, and why: proxies that are connected
    /// to them are missing here.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unreachable_replicas: Vec<String>,
}

/// One proxy with an open ADS or Inspect stream.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Proxy {
    /// The xDS node id.
    pub node: String,
    pub namespace: String,
    pub workload: String,
    /// Services that select it, as `namespace/name`.
    #[serde(default)]
    pub services: Vec<String>,
    pub address: String,
    /// SPIFFE id of its certificate; absent over the plaintext test port.
    pub identity: Option<String>,
    /// `anyam-proxy 0.1.0`, `envoy 1.40.0`.
    pub software: String,
    /// `delta` or `sotw`; absent without an ADS stream.
    pub protocol: Option<String>,
    pub connected_since: String,
    pub connected_seconds: u64,
    /// Whether an Inspect stream is open: tap, dump and explain need it.
    pub inspectable: bool,
    /// Everything sent was accepted, and nothing newer waits.
    pub synced: bool,
    /// Since when the accepted configuration is what it is.
    pub config_age_seconds: Option<u64>,
    pub resources: Vec<ProxyResources>,
    /// The last rejected update, until an accepted one replaces it.
    pub rejected: Option<Rejection>,
    pub certificate_not_after: Option<String>,
    pub certificate_expires_in_seconds: Option<i64>,
    pub certificate_serial: Option<String>,
    pub draining: bool,
}

/// What a proxy holds of one resource type.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProxyResources {
    /// `listeners`, `routes`, `clusters`, `endpoints`, `secrets`, `workloads`, `names`, else the type URL.
    pub kind: String,
    pub sent_version: String,
    pub accepted_version: String,
    /// Resources sent and not removed since.
    pub count: u64,
    pub subscribed_to_all: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rejection {
    pub kind: String,
    pub version: String,
    /// The proxy's own words, with the field's path.
    pub message: String,
    pub at: String,
    pub seconds_ago: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Edges {
    pub window_seconds: f64,
    pub edges: Vec<Edge>,
    /// Edges not kept because the table is full; more than 0 means the list is not whole.
    pub dropped: u64,
    /// As in [`Proxies`]: what their proxies report is missing.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unreachable_replicas: Vec<String>,
}

/// Traffic from one workload to one version of one service, as both ends reported it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Edge {
    pub source_namespace: String,
    pub source_workload: String,
    /// As the destination verified it in the handshake.
    pub source_identity: String,
    pub destination_namespace: String,
    pub destination_service: String,
    pub destination_workload: String,
    pub destination_version: String,
    /// As the source verified it in the handshake.
    pub destination_identity: String,
    /// `http`, `grpc` or `tcp`.
    pub protocol: String,
    /// Every connection of the window was mutual TLS, as every reporter saw it.
    pub mtls: bool,
    pub signals: Signals,
    pub last_seen_seconds: f64,
    /// Any of `source` and `destination`.
    pub reporters: Vec<String>,
}

/// Rate, success, latency and what was refused.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Signals {
    /// Requests (connections for `tcp`) in the window.
    pub requests: u64,
    /// Per second.
    pub rate: f64,
    pub failures: u64,
    /// Share of requests that neither failed nor were denied.
    pub success: Option<f64>,
    /// Refused by authorisation in the window.
    pub denied: u64,
    pub p50_ms: Option<f64>,
    pub p95_ms: Option<f64>,
    pub p99_ms: Option<f64>,
    pub connections_opened: u64,
    /// Open now, according to the reports.
    pub connections_open: u64,
    pub bytes_sent_per_second: f64,
    pub bytes_received_per_second: f64,
    /// Envoy's response flags with their counts in the window.
    pub flags: BTreeMap<String, u64>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Stats {
    pub window_seconds: f64,
    pub stats: Vec<Stat>,
    /// As in [`Edges`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unreachable_replicas: Vec<String>,
}

/// Golden signals of what arrives at a workload or a service.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Stat {
    /// `workload` or `service`.
    pub kind: String,
    pub namespace: String,
    pub name: String,
    pub signals: Signals,
    /// Share of the requests that came by mutual TLS.
    pub mtls: Option<f64>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Routes {
    pub services: Vec<ServiceRoutes>,
}

/// The routes of one service port, as proxies are given them.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ServiceRoutes {
    /// The xDS name, `outbound|80||web.shop.svc.cluster.local`.
    pub name: String,
    /// Fully qualified host.
    pub service: String,
    pub port: u32,
    pub hosts: Vec<String>,
    /// In the order in which they are tried.
    pub rules: Vec<RouteRule>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RouteRule {
    pub name: String,
    /// `path = /a`, `path ~ /a/*`, `method = GET`, `header x-y = z`.
    pub matches: Vec<String>,
    pub backends: Vec<RouteBackend>,
    /// Redirects, rewrites, header changes in words.
    pub actions: Vec<String>,
    pub timeout_ms: Option<u64>,
    /// In words: `2 on 5xx,reset`.
    pub retries: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouteBackend {
    /// The cluster's xDS name.
    pub cluster: String,
    pub service: String,
    pub port: u32,
    pub weight: u32,
    /// Endpoints, those in good health first in the count.
    pub endpoints: u32,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Objects {
    pub objects: Vec<Object>,
    /// Files that could not be read; their last good content stays in force.
    pub file_errors: Vec<FileError>,
    /// Generation of the model that these objects are.
    pub generation: u64,
    /// As in [`Edges`]: conditions that only traffic shows may be missing.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unreachable_replicas: Vec<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Object {
    pub kind: String,
    pub namespace: String,
    pub name: String,
    pub file: String,
    pub conditions: Vec<Condition>,
}

/// A status condition as Kubernetes spells them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Condition {
    #[serde(rename = "type")]
    pub kind: String,
    pub status: bool,
    pub reason: String,
    pub message: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileError {
    pub file: String,
    /// 1-based; 0 when the error has no line.
    pub line: u32,
    /// `spec.ports[0].port`; empty when the file is no YAML.
    pub field: String,
    pub message: String,
    /// Of the object that it is about; empty where that is not known.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub namespace: String,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Check {
    /// Worst first.
    pub findings: Vec<Finding>,
    /// What was looked at, so that an empty list means something.
    pub checked: Vec<String>,
    /// As in [`Proxies`]; also a finding each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unreachable_replicas: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    pub severity: Severity,
    pub what: String,
    #[serde(rename = "where")]
    pub location: String,
    pub todo: String,
    /// Of the object that it is about; empty where it is about none, or about several.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub namespace: String,
}

/// Worst first, which is also their order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    Error,
    Warning,
    Info,
}

/// Query of `/api/v1/tap`. Empty and 0 mean any.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct TapQuery {
    /// `namespace/name`; only the name means namespace `default`.
    pub workload: String,
    pub method: String,
    /// Prefix.
    pub path: String,
    pub authority: String,
    pub status: u32,
    pub peer_identity: String,
    /// `inbound`, `outbound`, or empty for both.
    pub direction: String,
    /// Events per second beyond which events are dropped and counted; 0: 100.
    pub max_per_second: u32,
    /// Seconds; 0: until the client leaves, an hour at most.
    pub seconds: u32,
    /// Whether to include request and response headers.
    pub headers: bool,
}

/// One line of a tap.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Tap {
    pub at: String,
    pub workload: String,
    pub namespace: String,
    pub direction: String,
    pub protocol: String,
    pub method: String,
    pub authority: String,
    pub path: String,
    pub status: u32,
    pub grpc_status: String,
    pub duration_ms: f64,
    pub response_flags: String,
    pub details: String,
    pub peer_address: String,
    pub peer_identity: String,
    pub local_identity: String,
    pub route: String,
    pub cluster: String,
    pub upstream: String,
    pub attempts: u32,
    pub bytes_received: u64,
    pub bytes_sent: u64,
    pub request_id: String,
    pub request_headers: Vec<(String, String)>,
    pub response_headers: Vec<(String, String)>,
    /// Events lost to the rate limit since the line before.
    pub dropped: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ExplainRequest {
    /// `namespace/name` of the workload that calls.
    pub source: String,
    /// `host[:port]` or `ip:port`, as the app would dial it. Without a port: 80.
    pub destination: String,
    /// Empty: an opaque TCP connection.
    pub method: String,
    /// Empty: `/` when there is a method.
    pub path: String,
    /// Host header; empty: the destination's host.
    pub authority: String,
    pub headers: Vec<(String, String)>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ExplainResponse {
    /// `allowed`, `denied`, `failed`, or `unknown` when a proxy could not be reached.
    pub verdict: String,
    /// One sentence.
    pub summary: String,
    /// In the order in which they would be taken, the source's proxy first.
    pub steps: Vec<ExplainStep>,
    /// What could not be evaluated, and why.
    pub gaps: Vec<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExplainStep {
    /// `namespace/name` of the workload whose proxy decided.
    pub proxy: String,
    /// `outbound` or `inbound`.
    pub direction: String,
    /// listener, detection, chain, route, policy, cluster, endpoint, transport, retry.
    pub stage: String,
    /// chosen, lost, allowed, denied, info, failed.
    pub outcome: String,
    pub subject: String,
    pub reason: String,
}
