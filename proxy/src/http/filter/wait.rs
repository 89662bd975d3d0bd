//! What a filter may wait for: time to pass, the request's body, keys that are fetched. Meanwhile
//! deadlines pass, the client may disconnect, and a new policy may deny it.

use std::future::poll_fn;
use std::task::Poll;
use std::time::Duration;

use bytes::{Bytes, BytesMut};

use crate::config::route::Action;
use crate::http::forward::progress::WaitingClient;
use crate::http::forward::pump::Received;
use crate::http::h1::{BodyEvent, BodyLength, Framing, TunnelRequest};
use crate::http::request::deadline::Deadlines;
use crate::http::request::error::Failure;
use crate::http::request::handle::Exchange;
use crate::message::head::{Head, HeaderId};

/// Pieces of a body that are smaller are gathered: many of them would hold more than they carry.
const SMALL: usize = 4 * 1024;
/// So much of them is a piece: a filter that changes the body takes one at a time.
const GATHERED: usize = 16 * 1024;

impl<'a> Exchange<'a, '_> {
    /// Whether the request has a body that has not been read yet.
    pub(super) fn has_body(&self, framing: &Framing) -> bool {
        framing.tunnel == TunnelRequest::None
            && self.body.is_none()
            && !matches!(framing.body, BodyLength::None | BodyLength::Known(0))
    }

    /// Waits.
    ///
    /// # Errors
    /// When the request must end before that.
    pub(super) async fn delay(&mut self, time: Duration, framing: &Framing) -> Result<(), Failure> {
        let timers = self.conn.worker.timers.clone();
        self.await_for(timers.sleep(time), framing).await
    }

    /// Waits for what is not of the request.
    ///
    /// # Errors
    /// When the request must end before that.
    pub(super) async fn await_for<F: Future>(
        &mut self,
        waited: F,
        framing: &Framing,
    ) -> Result<F::Output, Failure> {
        let mut deadlines = self.clocks();
        let client = self.client(framing);
        let mut waited = std::pin::pin!(waited);
        poll_fn(|cx| match waited.as_mut().poll(cx) {
            Poll::Ready(output) => Poll::Ready(Ok(output)),
            Poll::Pending => client
                .poll_stopped(cx, self.down, &self.info, &mut deadlines)
                .map(Err),
        })
        .await
    }

    /// Reads the request's whole body, up to `most` bytes, before it goes on.
    ///
    /// # Errors
    /// When it is longer, or does not come.
    pub(super) async fn receive(
        &mut self,
        most: usize,
        framing: &mut Framing,
    ) -> Result<(), Failure> {
        if matches!(framing.body, BodyLength::Known(length) if length > most as u64) {
            return Err(Failure::TooLarge);
        }
        if framing.expect_continue {
            self.info.request.remove(HeaderId::Expect);
            self.down.send_continue();
        }
        let mut deadlines = self.clocks();
        let client = self.client(framing);
        let mut gathered = Gathered::default();
        let mut trailers = Head::new();
        let has_trailers = poll_fn(|cx| {
            loop {
                match self.down.poll_body(cx, &mut trailers) {
                    Poll::Ready(Ok(BodyEvent::Data(data))) => {
                        gathered.take(data);
                        deadlines.moved();
                        if gathered.bytes > most {
                            return Poll::Ready(Err(Failure::TooLarge));
                        }
                    }
                    Poll::Ready(Ok(event)) => {
                        return Poll::Ready(Ok(matches!(event, BodyEvent::Trailers)));
                    }
                    Poll::Ready(Err(failure)) => return Poll::Ready(Err(failure)),
                    Poll::Pending => break,
                }
            }
            if let Poll::Ready(Err(failure)) = self.down.poll_flush(cx) {
                return Poll::Ready(Err(failure));
            }
            let client = WaitingClient {
                stalled: (gathered.bytes > 0).then_some(gathered.bytes as u64),
                ..client
            };
            client
                .poll_stopped(cx, self.down, &self.info, &mut deadlines)
                .map(Err)
        })
        .await?;
        self.body = Some(Box::new(Received {
            pieces: gathered.finish(),
            trailers: has_trailers.then_some(trailers),
        }));
        self.declare_received(framing);
        Ok(())
    }

    /// Declares the length of a body that was waited for; where trailers follow, or a filter changes it,
    /// it goes in chunks.
    fn declare_received(&mut self, framing: &mut Framing) {
        if self.info.filters.request_body.is_some() {
            return;
        }
        let Some(body) = self.body.as_ref().filter(|body| body.trailers.is_none()) else {
            return;
        };
        let length: u64 = body.pieces.iter().map(|piece| piece.len() as u64).sum();
        framing.body = BodyLength::Known(length);
        let mut buffer = itoa::Buffer::new();
        let digits = buffer.format(length);
        let head = &mut self.info.request;
        head.set(HeaderId::ContentLength, digits.as_bytes());
    }

    /// The deadlines of a request that is not forwarded yet.
    fn clocks(&self) -> Deadlines<'a> {
        let of_route = match self.info.route.as_ref().map(|route| &route.action) {
            Some(Action::Forward(forward)) => forward.idle_timeout,
            _ => None,
        };
        let idle = of_route.unwrap_or(self.info.manager.stream_idle_timeout);
        Deadlines::of_stream(self.timer, &self.info, idle)
    }

    /// The client, while a filter waits.
    fn client(&self, framing: &Framing) -> WaitingClient<'a> {
        WaitingClient {
            conn: self.conn,
            keep_alive: framing.keep_alive && !self.close,
            is_received: !self.has_body(framing),
            stalled: None,
        }
    }
}

/// A body, with small pieces joined.
#[derive(Default)]
struct Gathered {
    pieces: Vec<Bytes>,
    small: BytesMut,
    bytes: usize,
}

impl Gathered {
    fn take(&mut self, data: Bytes) {
        self.bytes = self.bytes.saturating_add(data.len());
        if data.len() < SMALL {
            self.small.extend_from_slice(&data);
            if self.small.len() >= GATHERED {
                self.seal();
            }
            return;
        }
        self.seal();
        self.pieces.push(data);
    }

    fn seal(&mut self) {
        if !self.small.is_empty() {
            self.pieces.push(self.small.split().freeze());
        }
    }

    fn finish(mut self) -> Vec<Bytes> {
        self.seal();
        self.pieces
    }
}
