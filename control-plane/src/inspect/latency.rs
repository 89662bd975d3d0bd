//! Percentiles from bucket counts.

use xds_proto::inspect::LATENCY_BOUNDS_MS;

/// One more bucket than bounds: the last is open.
pub const BUCKETS: usize = LATENCY_BOUNDS_MS.len() + 1;

pub type Counts = [u64; BUCKETS];

/// The value, in milliseconds, below which `share` of what was counted lies: linear within its
/// bucket, and the last bound for what lies beyond it. `None` when nothing was counted.
pub fn percentile(counts: &Counts, share: f64) -> Option<f64> {
    let total = counts
        .iter()
        .fold(0u64, |sum, count| sum.saturating_add(*count));
    if total == 0 {
        return None;
    }
    #[allow(clippy::cast_precision_loss)] // counts of some seconds
    let wanted = share * total as f64;
    let (mut below, mut lower) = (0.0, 0.0);
    // Of the open bucket, the last bound is both.
    let bounds = LATENCY_BOUNDS_MS.iter().chain(LATENCY_BOUNDS_MS.last());
    for (count, upper) in counts.iter().zip(bounds) {
        #[allow(clippy::cast_precision_loss)]
        let count = *count as f64;
        if below + count >= wanted && count > 0.0 {
            return Some(lower + (upper - lower) * ((wanted - below) / count));
        }
        below += count;
        lower = *upper;
    }
    LATENCY_BOUNDS_MS.last().copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_lie_in_their_bucket() {
        let mut counts = [0; BUCKETS];
        assert_eq!(percentile(&counts, 0.5), None);
        counts[1] = 98; // 0.5 to 1 ms
        counts[9] = 2; // 35 to 60 ms
        let p50 = percentile(&counts, 0.5).unwrap();
        assert!((0.5..1.0).contains(&p50), "{p50}");
        let p99 = percentile(&counts, 0.99).unwrap();
        assert!((35.0..=60.0).contains(&p99), "{p99}");
        counts = [0; BUCKETS];
        counts[BUCKETS - 1] = 1;
        assert_eq!(percentile(&counts, 0.5), Some(10_000.0));
    }
}
