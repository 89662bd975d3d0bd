//! The deadlines of one request, on one timer.

use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use crate::dispatcher::timer::Timer;

/// Which deadline passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    /// The response must be complete.
    Route,
    /// This attempt's response must have begun.
    Try,
    /// Something must move.
    Idle,
    /// The request must have arrived.
    Request,
    /// The stream must have ended.
    Stream,
}

/// See the module. The timer is set for the earliest, once there is something to wait for: a
/// request that is answered without waiting reads no clock here.
pub struct Deadlines<'a> {
    timer: &'a Timer,
    /// Something moved since the clock was last read.
    moved: bool,
    /// When something last moved.
    since: Option<Instant>,
    /// The timer is not set for what holds now.
    stale: bool,
    route: Option<Instant>,
    attempt: Option<Instant>,
    request: Option<Instant>,
    stream: Option<Instant>,
    idle: Option<Instant>,
    idle_after: Option<Duration>,
    try_idle: Option<Instant>,
    try_idle_after: Option<Duration>,
}

impl<'a> Deadlines<'a> {
    pub fn new(timer: &'a Timer, idle_after: Option<Duration>) -> Self {
        Self {
            timer,
            moved: true,
            since: None,
            stale: true,
            route: None,
            attempt: None,
            request: None,
            stream: None,
            idle: None,
            idle_after,
            try_idle: None,
            try_idle_after: None,
        }
    }

    /// Something moved; idle time counts from the next [`Deadlines::poll`].
    pub fn moved(&mut self) {
        self.moved = true;
    }

    /// Since when nothing has moved.
    pub fn quiet_since(&self) -> Option<Instant> {
        self.since.filter(|_| !self.moved)
    }

    pub fn set_request(&mut self, at: Option<Instant>) {
        self.request = at;
        self.stale = true;
    }

    pub fn set_stream(&mut self, at: Option<Instant>) {
        self.stream = at;
        self.stale = true;
    }

    pub fn set_route(&mut self, at: Option<Instant>) {
        self.route = at;
        self.stale = true;
    }

    /// Each attempt must keep moving.
    pub fn set_try_idle(&mut self, after: Option<Duration>) {
        self.try_idle_after = after;
        self.moved();
    }

    pub fn set_try(&mut self, at: Option<Instant>) {
        self.attempt = at;
        self.stale = true;
    }

    /// Ready with the deadline that passed first.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Which> {
        if std::mem::take(&mut self.moved) {
            let now = self.timer.now();
            self.since = Some(now);
            self.idle = self.idle_after.map(|after| now + after);
            self.try_idle = self.try_idle_after.map(|after| now + after);
            self.stale = true;
        }
        if std::mem::take(&mut self.stale) {
            self.arm();
        }
        while self.timer.poll_expired(cx).is_ready() {
            let now = self.timer.now();
            let passed = |at: Option<Instant>| at.is_some_and(|at| at <= now);
            for (at, which) in [
                (self.stream, Which::Stream),
                (self.route, Which::Route),
                (self.attempt, Which::Try),
                (self.try_idle, Which::Try),
                (self.request, Which::Request),
                (self.idle, Which::Idle),
            ] {
                if passed(at) {
                    return Poll::Ready(which);
                }
            }
            self.arm();
        }
        Poll::Pending
    }

    fn arm(&self) {
        let all = [
            self.route,
            self.attempt,
            self.try_idle,
            self.request,
            self.stream,
            self.idle,
        ];
        match all.into_iter().flatten().min() {
            Some(at) => self.timer.set_at(at),
            None => self.timer.clear(),
        }
    }
}
