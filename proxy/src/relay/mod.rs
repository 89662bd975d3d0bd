//! The relay: bytes between two streams, unchanged.
//!
//! - [`relay`]: both directions in one task, to the end
//! - `direction`: one direction; reads and writes, or splices when traffic is bulk
//! - `splice`: bulk through pooled kernel pipes
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

mod direction;
mod splice;

use std::future::poll_fn;
use std::io::{self, ErrorKind};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use direction::{DirectionError, RelayDirection};
pub use splice::{HOLDS, Splice};

use crate::bug;
use crate::dispatcher::buffer::Pool;
use crate::dispatcher::pipe::Pipes;
use crate::dispatcher::timer::{Timer, Timers};
use crate::overload::{Progress, Reaper};
use crate::stream::Stream;

/// How often a relay without an idle time-out checks whether it must end.
const NO_IDLE: Duration = Duration::from_secs(24 * 60 * 60);

/// How often the sockets of a relay that cannot write are checked for a reset.
const CHECK: Duration = Duration::from_secs(2);

/// How long bytes may have flowed before they are reported ([`RelayOptions::flow`]).
const FLOW: Duration = Duration::from_secs(1);

/// The client's side or the server's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    Down,
    Up,
}

impl Side {
    pub fn other(self) -> Side {
        match self {
            Side::Down => Side::Up,
            Side::Up => Side::Down,
        }
    }
}

/// What a relay takes of its worker.
pub struct RelayContext<'a> {
    pub buffers: &'a Pool,
    pub pipes: &'a Pipes,
    pub timers: &'a Timers,
    /// Ends relays whose peer does not take what is held for it, when memory is short.
    pub stalled: &'a Reaper,
    /// Bytes that may be held for either side (Envoy's `per_connection_buffer_limit_bytes`): below
    /// a bulk buffer or a pipe, these are not used. One small buffer may be, always.
    pub most: usize,
}

/// How a relay behaves.
pub struct RelayOptions<C, F> {
    /// Without a byte in either direction for so long, the relay ends; `None`: never.
    pub idle: Option<Duration>,
    /// The relay ends then, even while bytes move; `None`: never.
    pub until: Option<Instant>,
    /// Called with the client's stream whenever the relay is woken, so it must be cheap: `true`
    /// ends the relay. Wake the worker's timers to have it called.
    pub must_end: C,
    /// Called with the bytes that have reached the server and the client, about once a second while
    /// any flow. The outcome has the final counts.
    pub flow: F,
}

/// Bytes that were read from either side before the relay began. Their buffers go back to the
/// pool at once.
#[derive(Debug, Default)]
pub struct Buffered {
    pub from_down: BytesMut,
    pub from_up: BytesMut,
}

/// How a relay ended.
#[derive(Debug)]
pub struct RelayOutcome {
    /// Bytes that reached the server.
    pub from_down: u64,
    /// Bytes that were delivered to the client.
    pub from_up: u64,
    pub ended: RelayEnd,
}

/// Why a relay ended.
#[derive(Debug)]
pub enum RelayEnd {
    /// Both sides closed their write side; `first` did so first.
    Clean { first: Side },
    /// `by` reset its connection, and so the other one was reset too.
    Reset { by: Side },
    /// The connection of `by` failed in another way; the other one was reset.
    Failed { by: Side, error: io::Error },
    /// Nothing happened for the idle time-out.
    Idle,
    /// It lasted as long as it may ([`RelayOptions::until`]).
    Expired,
    /// [`RelayOptions::must_end`] returned true.
    Cut,
    /// The relay panicked. Both connections were reset: an ordinary end would make what was relayed
    /// look complete.
    Panicked,
    /// Memory is short, and a peer has taken hardly anything of what is queued for it for longer
    /// than others.
    Overloaded,
}

/// Moves bytes between `down` and `up` until both directions have ended or one fails.
///
/// The end of one direction is passed on at once, while the other goes on (half-close); a reset
/// is passed on as a reset, so that neither side takes a cut stream for a finished one.
pub fn relay<'a, C: Fn(&Stream) -> bool + 'a, F: Fn(u64, u64) + 'a>(
    context: RelayContext<'a>,
    down: &'a mut Stream,
    up: &'a mut Stream,
    early: Buffered,
    options: RelayOptions<C, F>,
) -> impl Future<Output = RelayOutcome> + 'a {
    // Made outside of the future, which is kept for as long as the connection is open.
    let directions = RelayDirection::new(&early.from_down, context.buffers).and_then(|upward| {
        let downward = RelayDirection::new(&early.from_up, context.buffers)?;
        Ok((upward, downward))
    });
    context.buffers.put(early.from_down);
    context.buffers.put(early.from_up);
    let began = context.timers.now();
    let mut relay = directions.map(|(upward, downward)| Relay {
        timer: context.timers.timer(),
        context,
        options,
        down,
        up,
        upward,
        downward,
        first: None,
        blocked: None,
        moved: began,
        report_at: None,
    });
    async move {
        // By reference: moved, it would be held twice.
        let relay = match &mut relay {
            Ok(relay) => relay,
            Err(error) => {
                let (by, error) = (Side::Down, io::Error::new(error.kind(), error.to_string()));
                return RelayOutcome {
                    from_down: 0,
                    from_up: 0,
                    ended: RelayEnd::Failed { by, error },
                };
            }
        };
        relay.arm();
        let ended = poll_fn(|cx| {
            let polling = AssertUnwindSafe(|| {
                bug::point("relayed");
                relay.poll(cx)
            });
            catch_unwind(polling).unwrap_or(Poll::Ready(RelayEnd::Panicked))
        })
        .await;
        if !matches!(ended, RelayEnd::Clean { .. }) {
            relay.down.reset_on_close();
            relay.up.reset_on_close();
        }
        RelayOutcome {
            from_down: relay.upward.bytes,
            from_up: relay.downward.bytes,
            ended,
        }
    }
}

struct Relay<'a, C, F> {
    context: RelayContext<'a>,
    options: RelayOptions<C, F>,
    down: &'a mut Stream,
    up: &'a mut Stream,
    timer: Timer,
    upward: RelayDirection,
    downward: RelayDirection,
    first: Option<Side>,
    /// Allocated when a direction is first blocked.
    blocked: Option<Box<Blocked>>,
    /// When a byte last moved.
    moved: Instant,
    /// When moved bytes are next reported.
    report_at: Option<Instant>,
}

/// The state of a relay whose sinks do not take what is held for them.
struct Blocked {
    /// When the sockets are next checked; set while a direction is blocked.
    check: Timer,
    upward: Progress,
    downward: Progress,
}

impl<C: Fn(&Stream) -> bool, F: Fn(u64, u64)> Relay<'_, C, F> {
    /// While one side does not read, the other is not read from, so its reset would not be noticed:
    /// its socket is checked at intervals. The relay also ends when memory is short.
    fn poll_blocked(&mut self, cx: &mut Context<'_>) -> Poll<RelayEnd> {
        if !self.upward.is_blocked() && !self.downward.is_blocked() {
            if let Some(blocked) = &mut self.blocked {
                blocked.check.clear();
                (blocked.upward, blocked.downward) = Default::default();
            }
            return Poll::Pending;
        }
        let timers = self.context.timers;
        let blocked = self.blocked.get_or_insert_with(|| {
            Box::new(Blocked {
                check: timers.timer(),
                upward: Progress::default(),
                downward: Progress::default(),
            })
        });
        let held = |direction: &RelayDirection| direction.is_blocked().then_some(direction.bytes);
        let upward = blocked.upward.note(held(&self.upward), || timers.now());
        let downward = blocked.downward.note(held(&self.downward), || timers.now());
        let stalled = self.context.stalled;
        if stalled.is_active()
            && let Some(since) = [upward, downward].into_iter().flatten().min()
            && stalled.ends(since)
        {
            return Poll::Ready(RelayEnd::Overloaded);
        }
        if !blocked.check.is_set() {
            blocked.check.set(CHECK);
        }
        loop {
            ready!(blocked.check.poll_expired(cx));
            blocked.check.set(CHECK);
            for (by, stream) in [(Side::Down, &mut *self.down), (Side::Up, &mut *self.up)] {
                if let Some(error) = stream.take_error(cx) {
                    return Poll::Ready(ended_with(by, error));
                }
            }
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<RelayEnd> {
        // Checked before any byte is forwarded: the first bytes may have arrived before the policy
        // that denies the connection.
        if (self.options.must_end)(self.down) {
            return Poll::Ready(RelayEnd::Cut);
        }
        let before = (self.upward.bytes, self.downward.bytes);
        let (context, down, up) = (&self.context, &mut *self.down, &mut *self.up);
        if !self.upward.is_finished()
            && let Poll::Ready(Err(fault)) = self.upward.poll(cx, down, up, context)
        {
            return Poll::Ready(ended_by(fault, Side::Down));
        }
        if self.first.is_none() && self.upward.has_ended() {
            self.first = Some(Side::Down);
        }
        if !self.downward.is_finished()
            && let Poll::Ready(Err(fault)) = self.downward.poll(cx, up, down, context)
        {
            return Poll::Ready(ended_by(fault, Side::Up));
        }
        let first = match self.first {
            None if self.downward.has_ended() => *self.first.insert(Side::Up),
            first => first.unwrap_or(Side::Down),
        };
        if self.upward.is_finished() && self.downward.is_finished() {
            return Poll::Ready(RelayEnd::Clean { first });
        }
        if let Poll::Ready(ended) = self.poll_blocked(cx) {
            return Poll::Ready(ended);
        }
        if (self.upward.bytes, self.downward.bytes) != before {
            self.moved = self.timer.now();
            self.report_at = self.report_at.or_else(|| self.moved.checked_add(FLOW));
            self.arm();
        }
        while self.timer.poll_expired(cx).is_ready() {
            let now = self.timer.now();
            if self.report_at.is_some_and(|at| now >= at) {
                self.report_at = None;
                (self.options.flow)(self.upward.bytes, self.downward.bytes);
            }
            if self.options.until.is_some_and(|until| now >= until) {
                return Poll::Ready(RelayEnd::Expired);
            }
            if self.idle_at().is_some_and(|at| now >= at) {
                return Poll::Ready(RelayEnd::Idle);
            }
            self.arm();
        }
        Poll::Pending
    }

    /// Sets the timer for whatever comes first: the idle time-out, the end, bytes to report.
    fn arm(&self) {
        let check = || self.timer.now().checked_add(NO_IDLE);
        let idle = self.idle_at().or_else(check);
        let all = [idle, self.options.until, self.report_at];
        match all.into_iter().flatten().min() {
            Some(at) => self.timer.set_at(at),
            None => self.timer.set_or_never(None),
        }
    }

    /// When the relay ends, if nothing moves until then.
    fn idle_at(&self) -> Option<Instant> {
        self.moved.checked_add(self.options.idle?)
    }
}

fn ended_by(fault: DirectionError, source: Side) -> RelayEnd {
    ended_with(fault.at.side(source), fault.error)
}

fn ended_with(by: Side, error: io::Error) -> RelayEnd {
    match error.kind() {
        // EPIPE follows a reset that was reported before.
        ErrorKind::ConnectionReset | ErrorKind::BrokenPipe => RelayEnd::Reset { by },
        _ => RelayEnd::Failed { by, error },
    }
}
