//! How long changes are gathered before they are sent. Sans-IO: time comes in.
//!
//! After a quiet time the first change goes out at once, because a person waits for it. While
//! changes keep coming, the pause between two pushes doubles up to a bound, so that a rollout of
//! a thousand replicas is some pushes and not a thousand.

use std::time::{Duration, Instant};

#[derive(Clone, Copy, Debug)]
pub struct Debounce {
    min: Duration,
    max: Duration,
    pause: Duration,
    last: Option<Instant>,
    due: Option<Instant>,
}

impl Debounce {
    pub fn new(min: Duration, max: Duration) -> Self {
        Debounce {
            min,
            max,
            pause: min,
            last: None,
            due: None,
        }
    }

    /// Something changed.
    pub fn changed(&mut self, now: Instant) {
        if self.due.is_some() {
            return;
        }
        let doubled = self.pause.saturating_mul(2);
        let quiet = |last: Instant| now.saturating_duration_since(last) >= doubled;
        self.due = match self.last {
            None => Some(now),
            Some(last) if quiet(last) => {
                self.pause = self.min;
                Some(now)
            }
            Some(last) => {
                let due = last.checked_add(self.pause).unwrap_or(now);
                self.pause = doubled.min(self.max);
                Some(due.max(now))
            }
        };
    }

    /// When the next push is due, if any.
    pub fn due(&self) -> Option<Instant> {
        self.due
    }

    /// Whether to push now; the pause to the next starts here.
    pub fn take(&mut self, now: Instant) -> bool {
        if self.due.is_some_and(|due| due <= now) {
            self.due = None;
            self.last = Some(now);
            return true;
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIN: Duration = Duration::from_millis(10);
    const MAX: Duration = Duration::from_millis(500);

    #[test]
    fn the_first_change_after_quiet_goes_at_once() {
        let start = Instant::now();
        let mut debounce = Debounce::new(MIN, MAX);
        debounce.changed(start);
        assert!(debounce.take(start));
        assert!(!debounce.take(start), "one change, one push");
        let later = start + Duration::from_secs(1);
        debounce.changed(later);
        assert!(debounce.take(later));
    }

    #[test]
    fn a_storm_of_changes_is_few_pushes_and_none_waits_longer_than_the_bound() {
        let start = Instant::now();
        let mut debounce = Debounce::new(MIN, MAX);
        let (mut pushes, mut waiting) = (0, None::<Instant>);
        for tick in 0..10_000 {
            let now = start + Duration::from_millis(tick);
            debounce.changed(now);
            waiting.get_or_insert(now);
            if debounce.take(now) {
                pushes += 1;
                let waited = now - waiting.take().unwrap_or(now);
                assert!(waited <= MAX, "waited {waited:?}");
            }
        }
        assert!((20..40).contains(&pushes), "{pushes} pushes in ten seconds");
        debounce.take(start + Duration::from_secs(30));
        let quiet = start + Duration::from_secs(60);
        debounce.changed(quiet);
        debounce.take(quiet);
        debounce.changed(quiet + Duration::from_millis(1));
        assert_eq!(debounce.due(), Some(quiet + MIN), "calm again");
    }
}
