//! The deadlines of one request, on one timer.

use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use super::stream_info::StreamInfo;
use super::timeout;
use crate::dispatcher::timer::Timer;
use crate::overload::Progress;

/// The deadline that passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeadlineKind {
    /// The response must be complete.
    Route,
    /// This attempt's response must have begun.
    Try,
    /// No bytes within the idle time-out.
    Idle,
    /// The request must have arrived.
    Request,
    /// The stream must have ended.
    Stream,
    /// No bytes within the idle time-out, after the client has sent FIN.
    HalfClosed,
    /// It is time to check for the client's disconnect again. Passes repeatedly.
    ClientCheck,
}

/// How often a client is checked whose FIN lies behind unread bytes.
const CLIENT_CHECK: Duration = Duration::from_secs(1);

/// See the module. The timer is set for the earliest, once there is something to wait for: a
/// request that is answered without waiting reads no clock here.
pub struct Deadlines<'a> {
    timer: &'a Timer,
    /// Whether bytes were transferred since the clock was last read.
    moved: bool,
    /// Progress of the bytes that are kept in memory for a peer.
    progress: Progress,
    /// Whether the timer is not set for the current deadlines.
    stale: bool,
    route: Option<Instant>,
    attempt: Option<Instant>,
    request: Option<Instant>,
    stream: Option<Instant>,
    idle: Option<Instant>,
    idle_after: Option<Duration>,
    try_idle: Option<Instant>,
    try_idle_after: Option<Duration>,
    half_closed: Option<Instant>,
    half_closed_after: Option<Duration>,
    look: Option<Instant>,
    is_trying: bool,
}

impl<'a> Deadlines<'a> {
    fn new(timer: &'a Timer, idle_after: Option<Duration>) -> Self {
        Self {
            timer,
            moved: true,
            progress: Progress::default(),
            stale: true,
            route: None,
            attempt: None,
            request: None,
            stream: None,
            idle: None,
            idle_after,
            try_idle: None,
            try_idle_after: None,
            half_closed: None,
            half_closed_after: None,
            look: None,
            is_trying: true,
        }
    }

    /// The deadlines of a stream; `idle_after`: its idle time-out.
    pub fn of_stream(timer: &'a Timer, info: &StreamInfo, idle_after: Option<Duration>) -> Self {
        let mut deadlines = Self::new(timer, idle_after);
        let whole = info.manager.request_timeout;
        deadlines.set_request(whole.and_then(|after| info.start.checked_add(after)));
        deadlines.set_stream(timeout::end_of_stream(info));
        deadlines
    }

    /// Something moved; idle time counts from the next [`Deadlines::poll`].
    pub fn moved(&mut self) {
        self.moved = true;
    }

    /// Since when a peer keeps bytes in memory and takes hardly any; `moved`: how many were
    /// transferred in all, if it keeps some now.
    pub fn stalled_since(&mut self, moved: Option<u64>) -> Option<Instant> {
        let timer = self.timer;
        self.progress.note(moved, || timer.now())
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

    /// The client's FIN was seen: `after` is the idle time-out from here on. Only the first call
    /// counts.
    pub fn set_half_closed(&mut self, after: Duration) {
        if self.half_closed_after.is_none() {
            self.half_closed_after = Some(after);
            self.moved();
        }
    }

    /// The client's end can't be seen; [`DeadlineKind::ClientCheck`] passes from time to time.
    pub fn check_client(&mut self) {
        if self.look.is_none() {
            self.look = self.timer.now().checked_add(CLIENT_CHECK);
            self.stale = true;
        }
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

    /// An attempt failed: until the next one, only the request's own deadlines run.
    pub fn end_try(&mut self) {
        self.is_trying = false;
        self.attempt = None;
        self.try_idle = None;
        self.stale = true;
    }

    /// Another attempt begins.
    pub fn begin_try(&mut self) {
        self.is_trying = true;
        self.attempt = None;
        self.moved();
    }

    /// Ready with the deadline that passed first.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<DeadlineKind> {
        if std::mem::take(&mut self.moved) {
            let now = self.timer.now();
            let at = |after: Option<Duration>| now.checked_add(after?);
            self.idle = at(self.idle_after);
            self.try_idle = at(self.try_idle_after).filter(|_| self.is_trying);
            self.half_closed = at(self.half_closed_after);
            self.stale = true;
        }
        if std::mem::take(&mut self.stale) {
            self.arm();
        }
        while self.timer.poll_expired(cx).is_ready() {
            let now = self.timer.now();
            let passed = |at: Option<Instant>| at.is_some_and(|at| at <= now);
            for (at, which) in [
                (self.stream, DeadlineKind::Stream),
                (self.route, DeadlineKind::Route),
                (self.attempt, DeadlineKind::Try),
                (self.try_idle, DeadlineKind::Try),
                (self.request, DeadlineKind::Request),
                (self.idle, DeadlineKind::Idle),
                (self.half_closed, DeadlineKind::HalfClosed),
            ] {
                if passed(at) {
                    return Poll::Ready(which);
                }
            }
            if passed(self.look) {
                self.look = None;
                self.stale = true;
                return Poll::Ready(DeadlineKind::ClientCheck);
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
            self.half_closed,
            self.look,
        ];
        match all.into_iter().flatten().min() {
            Some(at) => self.timer.set_at(at),
            // Timers wake tasks after a new policy, so it is set even without any time-out.
            None => self.timer.set_or_never(None),
        }
    }
}
