//! Under memory or descriptor pressure idle connections and stalled streams are closed, the longest
//! idle first. Envoy's overload manager shortens time-outs for the same end (`reduce_timeouts`).
//!
//! No ordered list is kept for this. Under pressure all idle tasks are woken and report since when
//! they are idle; then they are woken again, and the eighth that has been idle longest ends.
#![cfg_attr(
    not(test),
    deny(
        clippy::arithmetic_side_effects,
        clippy::expect_used,
        clippy::indexing_slicing,
        clippy::panic,
        clippy::string_slice,
        clippy::unreachable,
        clippy::unwrap_used
    )
)]

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::{Duration, Instant};

use crate::dispatcher::timer::Timers;

/// Time between two rounds.
const PAUSE: Duration = Duration::from_millis(100);
/// A connection that has been idle for less than this is kept.
const IDLE: Duration = Duration::from_secs(1);
const STALLED: Duration = Duration::from_secs(10);
/// Bytes that a peer must take within [`STALLED`] not to count as stalled. A peer that takes a byte
/// now and then holds as much memory as one that takes nothing.
const PROGRESS: u64 = 16 << 10;

/// The reapers of a worker.
pub struct Overload {
    /// HTTP connections without a request.
    pub idle: Reaper,
    /// Streams, relays and uploads whose peer takes hardly anything of what is queued for it, and
    /// buffered bodies whose client sends hardly anything ([`Progress`]).
    pub stalled: Reaper,
    /// Bytes that the process may use; `None`: not watched.
    memory: Cell<Option<u64>>,
}

impl Default for Overload {
    fn default() -> Self {
        Overload {
            idle: Reaper::new(IDLE),
            stalled: Reaper::new(STALLED),
            memory: Cell::new(None),
        }
    }
}

impl Overload {
    /// From now on closes connections and streams when the process uses most of so many bytes.
    pub fn watch(&self, memory: Option<u64>) {
        self.memory.set(memory);
    }

    /// To be called about once a second.
    pub fn check(&self, timers: &Timers) {
        let Some(most) = self.memory.get() else {
            return;
        };
        if resident().is_some_and(|bytes| bytes / 85 > most / 100) {
            self.idle.begin(timers);
            self.stalled.begin(timers);
        }
    }
}

/// How many bytes a peer takes of what is queued for it, or sends of a body that is buffered.
#[derive(Clone, Copy, Debug, Default)]
pub struct Progress {
    bytes: u64,
    /// `None`: nothing was queued or buffered when this was last updated.
    since: Option<Instant>,
}

impl Progress {
    /// Since when something is queued or buffered without [`PROGRESS`] bytes having been
    /// transferred. `bytes`: how many were transferred in all, if something is queued or buffered
    /// now.
    pub fn note(&mut self, bytes: Option<u64>, now: impl FnOnce() -> Instant) -> Option<Instant> {
        let Some(bytes) = bytes else {
            self.since = None;
            return None;
        };
        // Fewer than before: the bytes now wait in the other direction.
        let has_moved = bytes < self.bytes || bytes.saturating_sub(self.bytes) >= PROGRESS;
        if has_moved || self.since.is_none() {
            self.bytes = bytes;
            self.since = Some(now());
        }
        self.since
    }
}

/// Resident memory of this process, bytes.
fn resident() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

/// Ends the longest idle tasks of one kind; clones share it.
#[derive(Clone)]
pub struct Reaper(Rc<State>);

struct State {
    least: Duration,
    step: Cell<ReapPhase>,
    since: RefCell<Vec<Instant>>,
    began: Cell<Option<Instant>>,
}

#[derive(Clone, Copy)]
enum ReapPhase {
    Off,
    /// Idle tasks report since when they have been idle.
    Collecting,
    /// Tasks that are idle since then or earlier end.
    Ending(Instant),
}

impl Reaper {
    fn new(least: Duration) -> Self {
        Reaper(Rc::new(State {
            least,
            step: Cell::new(ReapPhase::Off),
            since: RefCell::default(),
            began: Cell::new(None),
        }))
    }

    /// Begins a round: wakes all idle tasks, unless the last round was less than [`PAUSE`] ago. It
    /// runs as a task of its own.
    pub fn begin(&self, timers: &Timers) {
        let now = timers.now();
        let before = self.0.began.get();
        let soon = before.is_some_and(|began| now.saturating_duration_since(began) < PAUSE);
        if soon || self.is_active() {
            return;
        }
        self.0.began.set(Some(now));
        self.0.step.set(ReapPhase::Collecting);
        timers.wake_all();
        let (round, timers) = (Round(self.0.clone()), timers.clone());
        tokio::task::spawn_local(async move {
            let Round(state) = &round;
            // The tasks that were woken run before this one continues.
            tokio::task::yield_now().await;
            if let Some(last) = state.last_to_end(now) {
                state.step.set(ReapPhase::Ending(last));
                timers.wake_all();
                tokio::task::yield_now().await;
            }
        });
    }

    /// Whether a round is in progress.
    pub fn is_active(&self) -> bool {
        !matches!(self.0.step.get(), ReapPhase::Off)
    }

    /// Called by a task that has been idle since `since`, whenever it is woken; true: it must end.
    pub fn ends(&self, since: Instant) -> bool {
        match self.0.step.get() {
            ReapPhase::Off => false,
            ReapPhase::Collecting => {
                self.0.since.borrow_mut().push(since);
                false
            }
            ReapPhase::Ending(last) => since <= last,
        }
    }
}

/// Ends a round, also when a panic does: without it no other would begin, and the reports of idle
/// tasks would be kept without bound.
struct Round(Rc<State>);

impl Drop for Round {
    fn drop(&mut self) {
        self.0.step.set(ReapPhase::Off);
        self.0.since.take();
    }
}

impl State {
    fn last_to_end(&self, now: Instant) -> Option<Instant> {
        let mut since = self.since.take();
        since.retain(|since| now.saturating_duration_since(*since) >= self.least);
        if since.is_empty() {
            return None;
        }
        let few = since.len() / 8;
        Some(*since.select_nth_unstable(few).1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_eighth_that_has_been_idle_longest_ends() {
        let reaper = Reaper::new(IDLE);
        let now = Instant::now() + Duration::from_secs(100);
        reaper.0.step.set(ReapPhase::Collecting);
        for n in 0..80 {
            assert!(!reaper.ends(now - Duration::from_secs(1) - Duration::from_millis(n)));
        }
        assert!(!reaper.ends(now - IDLE / 2), "it is idle for a moment only");
        let last = reaper.0.last_to_end(now).unwrap();
        let few = now - Duration::from_secs(1) - Duration::from_millis(69);
        assert_eq!(last, few);
        assert_eq!(reaper.0.last_to_end(now), None, "nothing is idle any more");
    }

    #[test]
    fn a_few_bytes_now_and_then_count_as_stalled() {
        let mut progress = Progress::default();
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut note = |bytes, seconds| progress.note(bytes, || at(seconds));
        assert_eq!(note(Some(0), 0), Some(at(0)));
        assert_eq!(note(Some(1), 9), Some(at(0)));
        assert_eq!(note(Some(PROGRESS - 1), 18), Some(at(0)));
        // Slow, but not stalled.
        assert_eq!(note(Some(PROGRESS), 19), Some(at(19)));
        assert_eq!(note(Some(PROGRESS + 1), 20), Some(at(19)));
        // Everything was taken.
        assert_eq!(note(None, 21), None);
        assert_eq!(note(Some(PROGRESS + 2), 22), Some(at(22)));
        assert_eq!(note(Some(PROGRESS * 2), 23), Some(at(22)));
    }

    #[test]
    fn a_round_ends_with_its_task() {
        let reaper = Reaper::new(IDLE);
        reaper.0.step.set(ReapPhase::Collecting);
        let round = Round(reaper.0.clone());
        reaper.ends(Instant::now());
        drop(round);
        assert!(!reaper.is_active());
        assert!(reaper.0.since.borrow().is_empty());
    }

    #[test]
    fn a_process_knows_its_size() {
        assert!(resident().unwrap() > 1 << 20);
    }
}
