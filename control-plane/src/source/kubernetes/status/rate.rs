//! A token bucket, with time passed in.

use std::time::{Duration, Instant};

/// `burst` tokens at once, and `per_second` more each second.
#[derive(Debug)]
pub struct TokenBucket {
    burst: f64,
    per_second: f64,
    /// Below 0: taken in advance.
    tokens: f64,
    filled: Instant,
}

impl TokenBucket {
    /// Full at `now`. `per_second`: more than 0.
    pub fn new(burst: u32, per_second: u32, now: Instant) -> Self {
        let burst = f64::from(burst);
        TokenBucket {
            burst,
            per_second: f64::from(per_second),
            tokens: burst,
            filled: now,
        }
    }

    /// Takes a token, and returns how long to wait for it.
    pub fn take(&mut self, now: Instant) -> Duration {
        let passed = now.saturating_duration_since(self.filled).as_secs_f64();
        self.tokens = (self.tokens + passed * self.per_second).min(self.burst) - 1.0;
        self.filled = now;
        Duration::from_secs_f64((-self.tokens / self.per_second).max(0.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_then_the_rate() {
        let begin = Instant::now();
        let mut bucket = TokenBucket::new(3, 10, begin);
        let mut waits = |after: u64| {
            let now = begin + Duration::from_millis(after);
            (bucket.take(now).as_secs_f64() * 1000.0).round()
        };
        let first = [0, 0, 0, 0, 0].map(&mut waits);
        assert_eq!(first, [0.0, 0.0, 0.0, 100.0, 200.0]);
        assert_eq!(waits(300), 0.0, "the caller has waited");
        // The bucket holds no more than a burst.
        let later = [100_000; 4].map(waits);
        assert_eq!(later, [0.0, 0.0, 0.0, 100.0]);
    }
}
