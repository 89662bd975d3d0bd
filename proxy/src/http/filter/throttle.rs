//! A response's body at a rate: pieces of a sixteenth of a second's worth, as Envoy's fault filter
//! lets them pass.

use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::dispatcher::timer::{Timer, Timers};

/// Pieces a second.
const PIECES: u64 = 16;
const STEP: Duration = Duration::from_nanos(1_000_000_000 / PIECES);

/// See the module.
pub struct Throttle {
    /// Bytes a piece.
    piece: u64,
    /// Bytes that may pass now.
    allowed: u64,
    /// When more were last allowed.
    since: Instant,
    timer: Timer,
    /// What was read and may not pass yet.
    held: Bytes,
}

impl Throttle {
    /// `rate`: KiB a second.
    pub fn new(rate: u64, timers: &Timers) -> Self {
        let piece = (rate.saturating_mul(1024) / PIECES).max(1);
        Self {
            piece,
            allowed: piece,
            since: timers.now(),
            timer: timers.timer(),
            held: Bytes::new(),
        }
    }

    /// Something was read that waits to pass.
    pub fn is_holding(&self) -> bool {
        !self.held.is_empty()
    }

    /// Takes what was read; only when nothing is held.
    pub fn hold(&mut self, data: Bytes) {
        self.held = data;
    }

    /// What may pass of what is held, once something may.
    pub fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Bytes> {
        let now = self.timer.now();
        let passed = now.saturating_duration_since(self.since).as_nanos();
        let steps = passed.checked_div(STEP.as_nanos()).unwrap_or(0);
        if let Ok(steps @ 1..) = u32::try_from(steps) {
            // What is not taken is lost, beyond a second's worth.
            let more = self.piece.saturating_mul(steps.into());
            let most = self.piece.saturating_mul(PIECES);
            self.allowed = self.allowed.saturating_add(more).min(most);
            let until = self.since.checked_add(STEP.saturating_mul(steps));
            self.since = until.unwrap_or(now);
        }
        if self.allowed == 0 {
            let next = self.since.checked_add(STEP);
            self.timer.set_at(next.unwrap_or(now));
            // Registers for waking; the clock was read above.
            if self.timer.poll_expired(cx).is_ready() {
                cx.waker().wake_by_ref();
            }
            return Poll::Pending;
        }
        let length = usize::try_from(self.allowed).unwrap_or(usize::MAX);
        let piece = self.held.split_to(length.min(self.held.len()));
        self.allowed = self.allowed.saturating_sub(piece.len() as u64);
        Poll::Ready(piece)
    }
}
