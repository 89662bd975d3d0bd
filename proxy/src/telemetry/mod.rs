//! Metrics and access logs. Handles are resolved when a snapshot compiles or a connection opens,
//! never per request.
//!
//! - `registry`: the metric registry, Istio's standard families, text exposition
//! - `edge`: who calls whom, label sets resolved once and bounded
//! - `flags`: Envoy's response flags
//! - `access_log`: sinks; `format`: format strings rendered

pub mod access_log;
pub mod edge;
pub mod flags;
pub mod registry;

pub use edge::{Edge, Edges};
pub use flags::ResponseFlags;
pub use registry::Registry;

/// Counters of one listener.
#[derive(Debug, Default)]
pub struct ListenerMetrics {}
/// Counters of one cluster.
#[derive(Debug, Default)]
pub struct ClusterMetrics {}
