//! What is known of one endpoint, carried over while its address stays.

/// Active requests, ejection, counters.
#[derive(Debug, Default)]
pub struct HostState {}
