//! The end of a downstream connection, HTTP/2 and the tunnels' alike: serving, going away, over.
//!
//! - [`Limits`]: the bounds of a connection; HTTP/1 connections use them directly
//! - [`Lifecycle`]: the states, sans-IO: [`Lifecycle::step`] takes the time and returns the next step;
//!   [`Lifecycle::poll`] waits for it by a [`Timer`]
//! - [`OpenStreams`]: how many streams a connection has; wakes its task when the last has ended
//!
//! A connection that is to end sends GOAWAY with the highest stream id, so that no request is lost
//! that crosses it, and the last id once the peer has seen that (RFC 9113 6.8). It ends with its
//! last stream. A peer that does not react keeps it open for `drain_timeout`: no stream is begun
//! after that, and the connection is closed as soon as none is open.
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

use std::cell::Cell;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};
use std::time::{Duration, Instant};

use crate::dispatcher::timer::Timer;

/// A wait without a limit of its own. It keeps the timer among those that are woken by a drain and
/// by a new snapshot.
const LONG: Duration = Duration::from_secs(3600);

/// The bounds of a connection; `None`: no bound.
#[derive(Clone, Copy, Debug, Default)]
pub struct Limits {
    /// Time without an open stream.
    pub idle: Option<Duration>,
    /// Time since it was accepted.
    pub lifetime: Option<Duration>,
    /// Requests.
    pub requests: Option<u32>,
}

impl Limits {
    /// When a connection has to begin to end, as far as that is known; a time that has passed: now.
    /// `idle_since`: `None` while a stream is open.
    pub fn due(
        &self,
        accepted: Instant,
        idle_since: Option<Instant>,
        served: u32,
    ) -> Option<Instant> {
        if self.requests.is_some_and(|most| served >= most) {
            return Some(accepted);
        }
        let idle = idle_since.zip(self.idle);
        let idle = idle.and_then(|(since, limit)| since.checked_add(limit));
        let old = self.lifetime.and_then(|limit| accepted.checked_add(limit));
        [idle, old].into_iter().flatten().min()
    }
}

/// The state of a connection at one moment.
#[derive(Clone, Copy, Debug)]
pub struct ConnectionStatus {
    /// Streams that are open.
    pub open: usize,
    /// Streams that were opened so far, including those that have ended.
    pub served: u32,
    /// The process drains, or the connection's listener is gone or would not accept it any more.
    pub is_draining: bool,
}

/// What to do next about a connection's end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LifecycleStep {
    /// Nothing until the instant, or until something else changes. The instant is always in the
    /// future.
    Wait(Option<Instant>),
    End(EndStep),
}

/// An action that ends a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndStep {
    /// Send GOAWAY. Returned once.
    GoAway,
    /// Close: no stream is open, and the peer has had time to react to GOAWAY.
    Close,
}

/// Where a connection is between its first stream and its end.
#[derive(Debug)]
pub struct Lifecycle {
    accepted: Instant,
    idle_since: Instant,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Serving,
    /// GOAWAY was sent. `None`: the deadline is beyond the clock's range.
    GoingAway {
        deadline: Option<Instant>,
    },
    Over,
}

impl Lifecycle {
    pub fn new(accepted: Instant, now: Instant) -> Self {
        Self {
            accepted,
            idle_since: now,
            state: State::Serving,
        }
    }

    /// Since when no stream is open, as of the last step.
    pub fn idle_since(&self) -> Instant {
        self.idle_since
    }

    /// Whether the peer has had `drain_timeout` to stop beginning streams: a new one is reset with
    /// REFUSED_STREAM.
    pub fn refuses_streams(&self, now: Instant) -> bool {
        match self.state {
            State::Serving => false,
            State::GoingAway { deadline } => deadline.is_some_and(|at| at <= now),
            State::Over => true,
        }
    }

    pub fn step(
        &mut self,
        now: Instant,
        limits: &Limits,
        drain_timeout: Duration,
        seen: ConnectionStatus,
    ) -> LifecycleStep {
        if seen.open > 0 {
            self.idle_since = now;
        }
        match self.state {
            State::Serving => {
                let idle_since = (seen.open == 0).then_some(self.idle_since);
                let due = limits.due(self.accepted, idle_since, seen.served);
                if !seen.is_draining && due.is_none_or(|at| at > now) {
                    return LifecycleStep::Wait(due);
                }
                let deadline = now.checked_add(drain_timeout);
                self.state = State::GoingAway { deadline };
                LifecycleStep::End(EndStep::GoAway)
            }
            State::GoingAway { deadline } => match deadline.filter(|at| *at <= now) {
                None => LifecycleStep::Wait(deadline),
                // The end of the last stream wakes the connection's task.
                Some(_) if seen.open > 0 => LifecycleStep::Wait(None),
                Some(_) => {
                    self.state = State::Over;
                    LifecycleStep::End(EndStep::Close)
                }
            },
            State::Over => LifecycleStep::End(EndStep::Close),
        }
    }

    /// Ready once there is something to do.
    pub fn poll(
        &mut self,
        cx: &mut Context<'_>,
        timer: &Timer,
        limits: &Limits,
        drain_timeout: Duration,
        seen: ConnectionStatus,
    ) -> Poll<EndStep> {
        loop {
            match self.step(timer.now(), limits, drain_timeout, seen) {
                LifecycleStep::Wait(Some(until)) => timer.set_at(until),
                LifecycleStep::Wait(None) => timer.set(LONG),
                LifecycleStep::End(end) => return Poll::Ready(end),
            }
            ready!(timer.poll_expired(cx));
        }
    }
}

/// Streams that are open on a connection.
#[derive(Default)]
pub struct OpenStreams {
    open: Cell<usize>,
    waiting: Cell<Option<Waker>>,
}

impl OpenStreams {
    pub fn open(&self) -> usize {
        self.open.get()
    }

    /// The connection's task is woken when none is open any more.
    pub fn register(&self, cx: &Context<'_>) {
        if self.open.get() > 0 {
            let known = self.waiting.take();
            let known = known.filter(|known| known.will_wake(cx.waker()));
            let waker = known.unwrap_or_else(|| cx.waker().clone());
            self.waiting.set(Some(waker));
        }
    }

    pub fn begin(&self) {
        self.open.set(self.open.get().saturating_add(1));
    }

    pub fn end(&self) {
        let left = self.open.get().saturating_sub(1);
        self.open.set(left);
        if left == 0
            && let Some(waker) = self.waiting.take()
        {
            waker.wake();
        }
    }
}

/// One open stream; dropped when the stream ends.
pub struct OpenStream(Rc<OpenStreams>);

impl OpenStream {
    pub fn of(streams: &Rc<OpenStreams>) -> Self {
        streams.begin();
        Self(streams.clone())
    }
}

impl Drop for OpenStream {
    fn drop(&mut self) {
        self.0.end();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MS: Duration = Duration::from_millis(1);

    fn limits() -> impl Strategy<Value = Limits> {
        let time = || prop::option::of((1u32..50).prop_map(|n| MS * n));
        (time(), time(), prop::option::of(1u32..20)).prop_map(|(idle, lifetime, requests)| Limits {
            idle,
            lifetime,
            requests,
        })
    }

    #[derive(Clone, Copy, Debug)]
    enum Happens {
        Begins,
        Ends,
        Drains,
        Passes(u32),
    }

    fn happens() -> impl Strategy<Value = Happens> {
        prop_oneof![
            3 => Just(Happens::Begins),
            3 => Just(Happens::Ends),
            1 => Just(Happens::Drains),
            6 => (0u32..20).prop_map(Happens::Passes),
        ]
    }

    proptest! {
        /// Whatever happens: no wait ends now or earlier (so nothing spins), GOAWAY comes once and
        /// before the end, and no open stream is cut.
        #[test]
        fn a_connection_never_spins_and_ends_in_order(
            limits in limits(), drain in 0u32..30, events in prop::collection::vec(happens(), 0..200),
        ) {
            let start = Instant::now();
            let mut now = start;
            let mut life = Lifecycle::new(start, start);
            let mut seen = ConnectionStatus { open: 0, served: 0, is_draining: false };
            let (mut away, mut over) = (None, false);
            for event in events {
                match event {
                    Happens::Begins if !over && !life.refuses_streams(now) => {
                        seen.open += 1;
                        seen.served += 1;
                    }
                    Happens::Ends => seen.open = seen.open.saturating_sub(1),
                    Happens::Drains => seen.is_draining = true,
                    Happens::Passes(ms) => now += MS * ms,
                    Happens::Begins => {}
                }
                match life.step(now, &limits, MS * drain, seen) {
                    LifecycleStep::Wait(until) => {
                        prop_assert!(!over);
                        prop_assert!(until.is_none_or(|at| at > now));
                        prop_assert!(away.is_some() || !seen.is_draining);
                    }
                    LifecycleStep::End(EndStep::GoAway) => {
                        prop_assert!(away.is_none() && !over);
                        away = Some(now);
                    }
                    LifecycleStep::End(EndStep::Close) => {
                        prop_assert!(over || seen.open == 0);
                        prop_assert!(away.is_some_and(|at| at + MS * drain <= now));
                        over = true;
                    }
                }
            }
        }

        /// With a limit of time and nothing open, following its steps leads to the end, in as few
        /// steps as there are states.
        #[test]
        fn an_idle_connection_reaches_its_end(limits in limits(), drain in 0u32..30) {
            prop_assume!(limits.idle.or(limits.lifetime).is_some());
            let mut now = Instant::now();
            let mut life = Lifecycle::new(now, now);
            let seen = ConnectionStatus { open: 0, served: 0, is_draining: false };
            let mut steps = Vec::new();
            while steps.last() != Some(&LifecycleStep::End(EndStep::Close)) {
                let step = life.step(now, &limits, MS * drain, seen);
                if let LifecycleStep::Wait(until) = step {
                    now = until.unwrap();
                }
                steps.push(step);
                prop_assert!(steps.len() <= 4, "{steps:?}");
            }
        }
    }

    #[test]
    fn a_stream_that_never_ends_costs_no_wake_up_after_the_deadline() {
        let start = Instant::now();
        let mut life = Lifecycle::new(start, start);
        let limits = Limits {
            lifetime: Some(MS),
            ..Limits::default()
        };
        let seen = ConnectionStatus {
            open: 1,
            served: 1,
            is_draining: false,
        };
        let mut at = |after: Duration, seen| life.step(start + after, &limits, MS, seen);
        assert_eq!(at(MS, seen), LifecycleStep::End(EndStep::GoAway));
        assert_eq!(at(MS, seen), LifecycleStep::Wait(Some(start + MS * 2)));
        assert_eq!(at(MS * 2, seen), LifecycleStep::Wait(None));
        assert_eq!(at(MS * 1000, seen), LifecycleStep::Wait(None));
        assert_eq!(
            at(MS * 1000, ConnectionStatus { open: 0, ..seen }),
            LifecycleStep::End(EndStep::Close)
        );
        assert!(life.refuses_streams(start));
    }

    #[test]
    fn limits_beyond_the_clock_are_none() {
        let start = Instant::now();
        let limits = Limits {
            idle: Some(Duration::MAX),
            lifetime: Some(Duration::MAX),
            requests: Some(u32::MAX),
        };
        let mut life = Lifecycle::new(start, start);
        let mut seen = ConnectionStatus {
            open: 0,
            served: 0,
            is_draining: false,
        };
        let mut step = |seen| life.step(start, &limits, Duration::MAX, seen);
        assert_eq!(step(seen), LifecycleStep::Wait(None));
        seen.is_draining = true;
        assert_eq!(step(seen), LifecycleStep::End(EndStep::GoAway));
        assert_eq!(step(seen), LifecycleStep::Wait(None));
    }
}
