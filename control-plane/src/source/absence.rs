//! What is gone for a moment is not gone: editors empty a file before they write it, volumes are
//! unmounted, a checkout removes all files before it writes them. A mesh that is withdrawn meanwhile
//! cuts live traffic.

use std::time::{Duration, Instant};

/// A file that had objects declares none for this long before they go.
pub const FILE: Duration = Duration::from_secs(2);
/// A folder that had objects has none for this long before they go.
pub const FOLDER: Duration = Duration::from_secs(60);

/// Since when something is gone, while that is held back.
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
