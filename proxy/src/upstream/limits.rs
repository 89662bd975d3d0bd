//! Circuit breakers.

/// Limits of one cluster, shared by all workers.
#[derive(Debug, Default)]
pub struct Limits {}
