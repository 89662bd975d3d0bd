//! While an attempt runs: the request's body moves on, clocks run, and the client may leave.

use std::future::{Future, poll_fn};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use super::attempt::Attempts;
use super::downstream::{DownstreamIo, Leaving};
use super::upstream::UpstreamIo;
use crate::http::connection::conn::Conn;
use crate::http::h1::Tunnel;
use crate::http::request::deadline::{Deadlines, Which};
use crate::http::request::error::{Failure, Late};

/// How long nothing may move once a client has sent FIN after its request. Most that send FIN have
/// closed their connection, and the upstream works in vain; the few that closed only their half are
/// tools, which ask for what is answered at once. While an answer moves, writing it tells.
const HALF_CLOSED: Duration = Duration::from_secs(2);
/// The same after a request with `Connection: close` or of HTTP/1.0: its FIN says what the request
/// has said already.
const HALF_CLOSED_LAST: Duration = Duration::from_secs(30);

impl Attempts<'_, '_> {
    /// Moves what can be moved of the request's body. What waits for an upgrade stays where it is.
    pub(super) fn move_request(
        &mut self,
        cx: &mut Context<'_>,
        up: &mut UpstreamIo,
    ) -> Result<(), Failure> {
        if self.framing.tunnel != Tunnel::None && !self.upgrade_follows_body {
            self.note_received();
            // A broken connection shows when its answer is read.
            let _ = up.poll_flush(cx);
            return Ok(());
        }
        if !self.pumped
            && let Poll::Ready(done) = self.pump.poll(cx, self.down, up, &self.conn.worker.pipes)
        {
            done?;
            self.pumped = true;
        }
        if std::mem::take(&mut self.pump.moved) {
            self.deadlines.moved();
        }
        if self.pump.is_received() {
            self.note_received();
        }
        Ok(())
    }

    /// The request is here in full: the clocks that count from there start.
    fn note_received(&mut self) {
        if !std::mem::replace(&mut self.received, true) {
            self.info.times.request_received = Some(self.info.now());
            self.deadlines.set_request(None);
            if let Some(timeout) = self.timeout {
                self.deadlines
                    .set_route(Some(self.conn.worker.timers.now() + timeout));
            }
            self.start_try();
        }
    }

    pub(super) fn start_try(&mut self) {
        self.deadlines.moved();
        if let Some(timeout) = self.try_timeout {
            self.deadlines
                .set_try(Some(self.conn.worker.timers.now() + timeout));
        }
    }

    /// Ready when there is a reason to stop waiting: a deadline, a client that has gone, a policy that
    /// denies it by now, or memory that has run short.
    pub(super) fn poll_patience(&mut self, cx: &mut Context<'_>) -> Poll<Failure> {
        if self.is_reaped() {
            return Poll::Ready(Failure::Overloaded);
        }
        let client = Client {
            conn: self.conn,
            keep_alive: self.framing.keep_alive,
            received: self.received,
        };
        client.poll_stopped(cx, self.down, &mut self.deadlines)
    }

    /// Memory is short, and the client has not taken what waits for it for longer than others.
    fn is_reaped(&self) -> bool {
        let stalled = &self.conn.worker.overload.stalled;
        stalled.is_active()
            && self.down.is_stalled()
            && self
                .deadlines
                .quiet_since()
                .is_some_and(|since| stalled.ends(since))
    }

    pub(super) async fn pause(&mut self, wait: Duration) -> Result<(), Failure> {
        let timers = self.conn.worker.timers.clone();
        let mut sleep = std::pin::pin!(timers.sleep(wait));
        poll_fn(|cx| {
            if sleep.as_mut().poll(cx).is_ready() {
                return Poll::Ready(Ok(()));
            }
            self.poll_patience(cx).map(Err)
        })
        .await
    }
}

/// The client of a request that waits for something.
pub(in crate::http) struct Client<'a> {
    pub conn: &'a Conn,
    /// The connection serves more requests.
    pub keep_alive: bool,
    /// The request is here in full.
    pub received: bool,
}

impl Client<'_> {
    /// Ready when a deadline has passed, the client has gone, or a policy denies it by now.
    pub(in crate::http) fn poll_stopped(
        &self,
        cx: &mut Context<'_>,
        down: &mut DownstreamIo<'_>,
        deadlines: &mut Deadlines<'_>,
    ) -> Poll<Failure> {
        loop {
            if let Poll::Ready(leaving) = down.poll_leaving(cx)
                && let Some(gone) = self.leaving(leaving, deadlines)
            {
                return Poll::Ready(gone);
            }
            if self.conn.resolve().is_denied {
                return Poll::Ready(Failure::Denied("connection".into()));
            }
            let which = ready!(deadlines.poll(cx));
            if which != Which::Look {
                return Poll::Ready(late(which, self.received));
            }
            if let Some(seen) = down.look()
                && let Some(gone) = self.leaving(seen, deadlines)
            {
                return Poll::Ready(gone);
            }
        }
    }

    /// Whether it is gone; if it only may be, when that is to be seen.
    fn leaving(&self, leaving: Leaving, deadlines: &mut Deadlines<'_>) -> Option<Failure> {
        match leaving {
            Leaving::Gone(failure) => return Some(failure),
            Leaving::HalfClosed if self.keep_alive => deadlines.set_half_closed(HALF_CLOSED),
            Leaving::HalfClosed => deadlines.set_half_closed(HALF_CLOSED_LAST),
            Leaving::Hidden => deadlines.look_again(),
        }
        None
    }
}

/// What a missed deadline means. `received`: the request was here in full, so that the upstream is
/// the one that keeps everybody waiting.
fn late(which: Which, received: bool) -> Failure {
    match which {
        Which::Route => Failure::ResponseTimeout,
        Which::Try => Failure::PerTryTimeout,
        Which::Request => Failure::RequestTimeout(Late::Request),
        Which::Idle => Failure::Idle { received },
        Which::Stream => Failure::StreamDuration { received },
        Which::HalfClosed | Which::Look => Failure::ClientGone,
    }
}
