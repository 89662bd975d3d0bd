//! A token bucket that threads share: one atomic, no lock.
//!
//! The bucket is kept as the moment at which it was, or will be, empty (GCRA, as Envoy's
//! `AtomicTokenBucket`): it fills by the passing of time alone.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// How large a bucket is and how fast it fills.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refill {
    /// Tokens it holds at most, and at first.
    pub max: u32,
    /// Nanoseconds until the next token; above zero.
    nanos: u64,
}

/// See the module.
pub struct TokenBucket {
    refill: Refill,
    /// The clock's zero: as long before the bucket was made as filling it takes.
    origin: Instant,
    /// When it was, or will be, empty, in nanoseconds after the origin.
    empty: AtomicU64,
}

impl Refill {
    /// `tokens` (above zero) every `interval`.
    pub fn new(max: u32, tokens: u32, interval: Duration) -> Self {
        let nanos = interval.as_nanos() / u128::from(tokens.max(1));
        Self {
            max,
            nanos: u64::try_from(nanos).unwrap_or(u64::MAX).max(1),
        }
    }

    /// Nanoseconds in which an empty bucket fills.
    fn whole(self) -> u64 {
        self.nanos.saturating_mul(self.max.into())
    }

    /// Tokens in a second.
    pub fn rate(self) -> f64 {
        1e9 / self.nanos as f64
    }
}

impl TokenBucket {
    /// A full bucket.
    pub fn new(refill: Refill, now: Instant) -> Self {
        Self {
            refill,
            origin: now,
            empty: AtomicU64::new(0),
        }
    }

    pub fn refill(&self) -> Refill {
        self.refill
    }

    /// Takes a token; false: there is none.
    pub fn take(&self, now: Instant) -> bool {
        let now = self.clock(now);
        let taken = self.empty.fetch_update(Relaxed, Relaxed, |empty| {
            let after = self.floor(empty, now).saturating_add(self.refill.nanos);
            (after <= now).then_some(after)
        });
        taken.is_ok()
    }

    /// Whole tokens that are left.
    pub fn left(&self, now: Instant) -> u64 {
        let now = self.clock(now);
        let filled = now.saturating_sub(self.floor(self.empty.load(Relaxed), now));
        filled / self.refill.nanos
    }

    /// Time until there is a token; zero when there is one.
    pub fn wait(&self, now: Instant) -> Duration {
        let now = self.clock(now);
        let next = self
            .floor(self.empty.load(Relaxed), now)
            .saturating_add(self.refill.nanos);
        Duration::from_nanos(next.saturating_sub(now))
    }

    fn clock(&self, now: Instant) -> u64 {
        let since = now.saturating_duration_since(self.origin).as_nanos();
        u64::try_from(since)
            .unwrap_or(u64::MAX)
            .saturating_add(self.refill.whole())
    }

    /// A full bucket gets no fuller.
    fn floor(&self, empty: u64, now: u64) -> u64 {
        empty.max(now.saturating_sub(self.refill.whole()))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn it_empties_and_fills_and_stops_at_its_brim() {
        let start = Instant::now();
        let bucket = TokenBucket::new(Refill::new(3, 2, Duration::from_secs(10)), start);
        let at = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(bucket.left(start), 3);
        assert!((0..3).all(|_| bucket.take(start)));
        assert!(!bucket.take(start));
        assert_eq!(bucket.wait(start), Duration::from_secs(5));
        assert!(!bucket.take(at(4)));
        assert!(bucket.take(at(5)));
        assert!(!bucket.take(at(5)));
        assert_eq!(bucket.left(at(1_000_000)), 3);
        assert_eq!(bucket.wait(at(1_000_000)), Duration::ZERO);
    }

    #[test]
    fn its_bounds_are_safe() {
        let start = Instant::now();
        let none = TokenBucket::new(Refill::new(0, 1, Duration::from_secs(1)), start);
        assert!(!none.take(start) && !none.take(start + Duration::from_secs(10)));
        let most = Refill::new(u32::MAX, u32::MAX, Duration::from_nanos(1));
        assert!(TokenBucket::new(most, start).take(start));
        let slowest = Refill::new(u32::MAX, 1, Duration::from_secs(u64::MAX));
        let slowest = TokenBucket::new(slowest, start);
        slowest.take(start);
        assert_eq!(slowest.left(start), 0);
    }

    proptest! {
        /// In no window does it give more than its size and what the window fills.
        #[test]
        fn it_never_gives_more_than_it_gets(
            max in 0u32..20,
            tokens in 1u32..20,
            steps in prop::collection::vec(0u64..300, 1..200),
        ) {
            let start = Instant::now();
            let refill = Refill::new(max, tokens, Duration::from_secs(1));
            let bucket = TokenBucket::new(refill, start);
            let (mut now, mut given) = (start, 0u64);
            for step in steps {
                now += Duration::from_millis(step);
                given += u64::from(bucket.take(now));
                let filled = (now - start).as_nanos() as u64 / refill.nanos;
                prop_assert!(given <= u64::from(max) + filled);
            }
        }
    }
}
