//! The limit on streams that a client resets early (rapid reset, CVE-2023-44487).

use std::cell::Cell;
use std::rc::Rc;
use std::time::{Duration, Instant};

/// How soon after its beginning a stream must be reset to count as a rapid reset.
pub const RAPID: Duration = Duration::from_secs(1);
/// Resets are counted over this long.
const WINDOW: Duration = Duration::from_secs(30);

/// Counts streams that are reset at once: a flood when there are many, and more than half of all.
/// Clients that hedge or run into their own time-outs stay below.
pub struct ResetLimiter {
    rapid: Rc<Cell<usize>>,
    begun: usize,
    since: Instant,
    max: usize,
}

impl ResetLimiter {
    pub fn new(max: usize) -> Self {
        ResetLimiter {
            rapid: Rc::default(),
            begun: 0,
            since: Instant::now(),
            max,
        }
    }

    pub fn begun(&mut self) {
        self.begun = self.begun.saturating_add(1);
    }

    pub fn rapid(&self) {
        self.rapid.set(self.rapid.get().saturating_add(1));
    }

    /// For tasks of streams to count in.
    pub fn counter(&self) -> Rc<Cell<usize>> {
        self.rapid.clone()
    }

    pub fn is_exceeded(&mut self) -> bool {
        let rapid = self.rapid.get();
        if rapid <= self.max {
            return false;
        }
        if self.since.elapsed() > WINDOW {
            self.since = Instant::now();
            self.rapid.set(0);
            self.begun = 0;
            return false;
        }
        rapid.saturating_mul(2) > self.begun
    }
}
