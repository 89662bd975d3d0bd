//! Counters of bytes that pass through kernel pipes: how often, how much, and how often not.

use prometheus::IntCounter;

use super::registry::{Registry, RegistryError};

/// Shared by all workers.
#[derive(Clone)]
pub struct SpliceMetrics {
    pub(crate) pipes: IntCounter,
    pub(crate) bytes: IntCounter,
    pub(crate) refused: IntCounter,
}

impl SpliceMetrics {
    /// # Errors
    /// When they were registered before.
    pub fn new(registry: &Registry) -> Result<Self, RegistryError> {
        Ok(Self {
            pipes: registry.counter(
                "anyam_splice_pipes_taken_total",
                "Times that one direction of a connection took a kernel pipe for bulk.",
            )?,
            bytes: registry.counter(
                "anyam_splice_bytes_total",
                "Bytes that passed through kernel pipes, never through this process.",
            )?,
            refused: registry.counter(
                "anyam_splice_refused_total",
                "Times that no pipe was to be had and bulk went through buffers.",
            )?,
        })
    }
}
