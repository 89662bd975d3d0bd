//! The HTTP API.
//!
//! - [`metrics`]: our own, for Prometheus.
//! - [`types`]: what it answers, shared with the CLI.

pub mod metrics;
pub mod types;
