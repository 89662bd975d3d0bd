//! Metrics and access logs. Handles are resolved when a snapshot compiles, not per request.

pub mod access_log;

/// Counters of one listener.
#[derive(Debug, Default)]
pub struct ListenerMetrics {}
/// Counters of one cluster.
#[derive(Debug, Default)]
pub struct ClusterMetrics {}
