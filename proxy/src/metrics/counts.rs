//! Counts of an edge for the Inspect report, kept apart from its Prometheus metrics.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

use xds_proto::inspect::LATENCY_BOUNDS_MS;

use super::flags::ResponseFlags;

/// Totals since start, from which the Inspect report takes its deltas.
#[derive(Default)]
pub struct EdgeCounts {
    pub requests: AtomicU64,
    pub failures: AtomicU64,
    pub denied: AtomicU64,
    pub opened: AtomicU64,
    pub closed: AtomicU64,
    pub bytes_sent: AtomicU64,
    pub bytes_received: AtomicU64,
    /// One more than the bounds: the last is unbounded.
    pub latency: [AtomicU64; LATENCY_BOUNDS_MS.len() + 1],
    /// How often each response flag was raised, by its place.
    pub flags: [AtomicU64; ResponseFlags::COUNT],
}

impl EdgeCounts {
    /// Grows with every request, connection and byte on the edge.
    pub(crate) fn activity(&self) -> u64 {
        let counts = [
            &self.requests,
            &self.denied,
            &self.opened,
            &self.closed,
            &self.bytes_sent,
            &self.bytes_received,
        ];
        counts
            .into_iter()
            .fold(0, |sum, count| sum.wrapping_add(count.load(Relaxed)))
    }

    /// Counts each of `flags`.
    pub(super) fn raised(&self, flags: ResponseFlags) {
        if !flags.is_empty() {
            for count in flags.places().filter_map(|place| self.flags.get(place)) {
                count.fetch_add(1, Relaxed);
            }
        }
    }
}
