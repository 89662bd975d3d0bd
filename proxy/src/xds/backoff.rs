//! Jittered exponential back-off of reconnects.

use std::time::Duration;

/// Doubles from `base` to `max`; each wait is drawn evenly from nothing to the current bound
/// ("full jitter"), so that a thousand proxies do not come back in step.
#[derive(Clone, Debug)]
pub struct Backoff {
    base: Duration,
    max: Duration,
    failures: u32,
}

impl Backoff {
    pub fn new(base: Duration, max: Duration) -> Self {
        Backoff {
            base,
            max,
            failures: 0,
        }
    }

    /// The wait before the next attempt, after one more failure. `draw`: evenly from 0 to 1.
    pub fn next(&mut self, draw: f64) -> Duration {
        let doubled = self.base.saturating_mul(1 << self.failures.min(16));
        self.failures = self.failures.saturating_add(1);
        doubled.min(self.max).mul_f64(draw.clamp(0.0, 1.0))
    }

    /// After a success: the next wait is `base`.
    pub fn reset(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubles_up_to_the_bound_and_starts_over() {
        let mut backoff = Backoff::new(Duration::from_millis(500), Duration::from_secs(4));
        let waits: Vec<u128> = (0..5).map(|_| backoff.next(1.0).as_millis()).collect();
        assert_eq!(waits, [500, 1000, 2000, 4000, 4000]);
        assert_eq!(backoff.next(0.5).as_millis(), 2000);
        assert_eq!(backoff.next(0.0), Duration::ZERO);
        backoff.reset();
        assert_eq!(backoff.next(1.0).as_millis(), 500);
    }
}
