//! Polled while an attempt runs: pumps the request's body, checks deadlines, client disconnect, a
//! policy that now denies, and memory.

use std::future::{Future, poll_fn};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use super::attempt::Attempts;
use super::downstream::{DownstreamIo, Leaving};
use super::pump::ResponsePump;
use super::upstream::UpstreamIo;
use crate::http::connection::conn::Conn;
use crate::http::filter::rbac;
use crate::http::h1::TunnelRequest;
use crate::http::request::deadline::{DeadlineKind, Deadlines};
use crate::http::request::error::{Failure, TimedOut};
use crate::http::request::stream_info::StreamInfo;

/// Idle time-out once a client has sent FIN after its request. Most clients that send FIN have
/// closed the connection, and the upstream's work is wasted; the few that closed only their write
/// side are tools, whose responses come at once. While a response is being sent, a failed write
/// shows the disconnect.
const HALF_CLOSED: Duration = Duration::from_secs(2);
/// The same after a request with `Connection: close` or of HTTP/1.0: its FIN is announced by the
/// request, and so no sign of a disconnect.
const HALF_CLOSED_LAST: Duration = Duration::from_secs(30);

impl Attempts<'_, '_> {
    /// Moves what can be moved of the request's body. Bytes after an upgrade request stay unread
    /// until it is agreed on.
    pub(super) fn move_request(
        &mut self,
        cx: &mut Context<'_>,
        up: &mut UpstreamIo,
    ) -> Result<(), Failure> {
        if self.plan.framing.tunnel != TunnelRequest::None && !self.plan.upgrade_follows_body {
            self.note_received();
            // An error of the connection shows when its response is read.
            let _ = up.poll_flush(cx);
            return Ok(());
        }
        if !self.upload.is_done
            && let Poll::Ready(done) =
                self.upload
                    .pump
                    .poll(cx, self.down, up, &self.conn.worker.pipes)
        {
            done?;
            self.upload.is_done = true;
        }
        if std::mem::take(&mut self.upload.pump.moved) {
            self.clocks.deadlines.moved();
        }
        if self.upload.pump.is_received() {
            self.note_received();
        }
        Ok(())
    }

    /// The request is here in full: the clocks that count from there start.
    fn note_received(&mut self) {
        if !std::mem::replace(&mut self.upload.is_received, true) {
            self.info.times.request_received = Some(self.info.now());
            self.clocks.start_response(self.conn.worker.timers.now());
        }
    }

    /// Ready when the attempt must end: a deadline passed, the client disconnected, the policy now
    /// denies it, or memory is short. `response`: the response that is being relayed.
    pub(super) fn poll_stopped(
        &mut self,
        cx: &mut Context<'_>,
        response: Option<&ResponsePump>,
    ) -> Poll<Failure> {
        let upload = &self.upload.pump;
        let waits = response.is_some_and(ResponsePump::is_stalled) || self.down.is_stalled();
        let client = WaitingClient {
            conn: self.conn,
            keep_alive: self.plan.framing.keep_alive,
            is_received: self.upload.is_received,
            stalled: match waits {
                true => Some(response.map_or(0, |response| response.bytes)),
                false => upload.is_stalled().then_some(upload.bytes),
            },
        };
        client.poll_stopped(cx, self.down, self.info, &mut self.clocks.deadlines)
    }

    pub(super) async fn pause(&mut self, wait: Duration) -> Result<(), Failure> {
        let timers = self.conn.worker.timers.clone();
        let mut sleep = std::pin::pin!(timers.sleep(wait));
        poll_fn(|cx| {
            if sleep.as_mut().poll(cx).is_ready() {
                return Poll::Ready(Ok(()));
            }
            self.poll_stopped(cx, None).map(Err)
        })
        .await
    }
}

/// The client of a request that is waiting.
#[derive(Clone, Copy)]
pub(in crate::http) struct WaitingClient<'a> {
    pub conn: &'a Conn,
    /// The connection serves more requests.
    pub keep_alive: bool,
    /// The request was received in full.
    pub is_received: bool,
    /// How many bytes have been transferred of what a peer keeps in memory, if it keeps some.
    pub stalled: Option<u64>,
}

impl WaitingClient<'_> {
    /// Ready when a deadline has passed, the client has disconnected, the policy now denies it, or
    /// memory is short.
    pub(in crate::http) fn poll_stopped(
        &self,
        cx: &mut Context<'_>,
        down: &mut DownstreamIo<'_>,
        info: &StreamInfo,
        deadlines: &mut Deadlines<'_>,
    ) -> Poll<Failure> {
        if self.is_reaped(deadlines) {
            return Poll::Ready(Failure::Overloaded);
        }
        loop {
            if let Poll::Ready(leaving) = down.poll_leaving(cx)
                && let Some(gone) = self.leaving(leaving, deadlines)
            {
                return Poll::Ready(gone);
            }
            if let Some(revoked) = rbac::revoked(self.conn, info) {
                return Poll::Ready(revoked);
            }
            let which = ready!(deadlines.poll(cx));
            if which != DeadlineKind::ClientCheck {
                return Poll::Ready(late(which, self.is_received));
            }
            if let Some(seen) = down.look(cx)
                && let Some(gone) = self.leaving(seen, deadlines)
            {
                return Poll::Ready(gone);
            }
        }
    }

    /// Whether memory is short, and a peer has been stalled for longer than others.
    fn is_reaped(&self, deadlines: &mut Deadlines<'_>) -> bool {
        let stalled = &self.conn.worker.overload.stalled;
        let since = deadlines.stalled_since(self.stalled);
        stalled.is_active() && since.is_some_and(|since| stalled.ends(since))
    }

    /// The failure when the client has disconnected; when that is uncertain, sets the deadline to
    /// check again.
    fn leaving(&self, leaving: Leaving, deadlines: &mut Deadlines<'_>) -> Option<Failure> {
        match leaving {
            Leaving::Gone(failure) => return Some(failure),
            Leaving::HalfClosed if self.keep_alive => deadlines.set_half_closed(HALF_CLOSED),
            Leaving::HalfClosed => deadlines.set_half_closed(HALF_CLOSED_LAST),
            Leaving::Hidden => deadlines.check_client(),
        }
        None
    }
}

/// What a missed deadline means. `received`: the request was received in full, so the upstream is
/// the side that is late.
fn late(which: DeadlineKind, received: bool) -> Failure {
    match which {
        DeadlineKind::Route => Failure::ResponseTimeout,
        DeadlineKind::Try => Failure::PerTryTimeout,
        DeadlineKind::Request => Failure::RequestTimeout(TimedOut::Request),
        DeadlineKind::Idle => Failure::Idle { received },
        DeadlineKind::Stream => Failure::StreamDuration { received },
        DeadlineKind::HalfClosed | DeadlineKind::ClientCheck => Failure::ClientGone,
    }
}
