//! Holds back the removal of objects that are missing only for a moment: editors empty a file
//! before they write it, volumes are unmounted, a checkout removes all files before it writes them.
//! Withdrawing the mesh meanwhile would cut live traffic.

use std::time::{Duration, Instant};

/// How long a file that had objects must declare none before they are removed.
pub const FILE: Duration = Duration::from_secs(2);
/// How long a folder that had objects must have none before they are removed.
pub const FOLDER: Duration = Duration::from_secs(60);

/// Since when objects are missing, while their removal is held back.
#[derive(Clone, Copy, Debug, Default)]
pub struct Absence {
    since: Option<Instant>,
}

impl Absence {
    /// Notes whether it is gone at `now`. True: it is, for less than `hold`.
    pub fn holds(&mut self, gone: bool, hold: Duration, now: Instant) -> bool {
        if !gone {
            self.since = None;
            return false;
        }
        let since = *self.since.get_or_insert(now);
        let held = now.saturating_duration_since(since) < hold;
        if !held {
            self.since = None;
        }
        held
    }

    /// It counts as gone from `now` on.
    pub fn begin(&mut self, now: Instant) {
        self.since = Some(now);
    }

    /// How long it will still be held back; `None`: it is not.
    pub fn left(&self, hold: Duration, now: Instant) -> Option<Duration> {
        let gone = now.saturating_duration_since(self.since?);
        Some(hold.saturating_sub(gone))
    }
}
