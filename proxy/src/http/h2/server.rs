//! A downstream HTTP/2 stream. The connection's loop is in [`crate::http::h2::serve`].

use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::server::SendResponse;
use h2::{Reason, RecvStream};

use super::super::h1::{BodyEvent, BodyLength};
use super::super::request::error::Failure;
use super::convert;
use super::prefixed::WireState;
use super::stream::{Receiving, Sending};
use crate::dispatcher::buffer::Pool;
use crate::message::fault::Fault;
use crate::message::head::Head;
use crate::stream::chunk::Chunk;
use crate::stream::tunnel::TunnelStream;

/// One request's stream.
pub struct ServerStream {
    receiving: Receiving,
    sending: Half,
    expects_continue: bool,
    /// Whether the case of header names is transferred, as agreed by ALPN.
    spell: bool,
    /// An interim head was queued, and the connection's task has not run since.
    unwritten: bool,
    wire: Rc<WireState>,
}

enum Half {
    /// Before the response's head.
    Respond(SendResponse<Chunk>),
    Send(Sending),
}

impl ServerStream {
    pub fn new(
        body: RecvStream,
        respond: SendResponse<Chunk>,
        expects_continue: bool,
        spell: bool,
        wire: Rc<WireState>,
    ) -> Self {
        Self {
            receiving: Receiving::new(body),
            sending: Half::Respond(respond),
            expects_continue,
            spell,
            unwritten: false,
            wire,
        }
    }

    pub fn poll_body(
        &mut self,
        cx: &mut Context<'_>,
        trailers: &mut Head,
    ) -> Poll<Result<BodyEvent, Failure>> {
        self.receiving.poll(cx, trailers).map_err(blame_client)
    }

    pub fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<Failure> {
        let reset = match &mut self.sending {
            Half::Respond(respond) => ready!(respond.poll_reset(cx)),
            Half::Send(sending) => ready!(sending.poll_reset(cx)),
        };
        Poll::Ready(reset.map_or_else(blame_client, |_| Failure::ClientReset))
    }

    pub fn send_continue(&mut self) {
        if std::mem::take(&mut self.expects_continue) {
            let mut head = Head::new();
            head.set_status(100);
            self.send_interim(&head);
        }
    }

    pub fn interim(&mut self, head: &Head) {
        match head.status() {
            // HTTP/2 has no 101 (RFC 9113 8.6).
            101 => {}
            // The client does not expect 100, or has received it.
            100 if !std::mem::take(&mut self.expects_continue) => {}
            _ => self.send_interim(head),
        }
    }

    fn send_interim(&mut self, head: &Head) {
        if let (Half::Respond(respond), Some(response)) =
            (&mut self.sending, convert::response_out(head, self.spell))
        {
            // An error shows when the final response is sent, too.
            let _ = respond.send_informational(response);
            self.unwritten = true;
        }
    }

    pub fn head(&mut self, head: &Head, body: BodyLength, _close: bool) -> Result<(), Failure> {
        let Half::Respond(respond) = &mut self.sending else {
            return Ok(());
        };
        let response = convert::response_out(head, self.spell)
            .ok_or(Failure::BadResponse(Fault::InvalidName))?;
        let none = body.is_certainly_empty(head.version());
        let sent = respond.send_response(response, none);
        let stream = sent.map_err(blame_client)?;
        self.sending = Half::Send(if none {
            Sending::ended(stream)
        } else {
            Sending::new(stream).through(self.wire.clone())
        });
        Ok(())
    }

    pub fn data(&mut self, data: Bytes) {
        if let Half::Send(sending) = &mut self.sending {
            sending.data(data);
        }
    }

    pub fn end(&mut self, trailers: Option<&Head>) {
        if let Half::Send(sending) = &mut self.sending {
            sending.end(trailers);
        }
    }

    /// Data is blocked on the client's flow-control window.
    pub fn is_stalled(&self) -> bool {
        match &self.sending {
            Half::Send(sending) => sending.is_stalled(),
            Half::Respond(_) => false,
        }
    }

    pub fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        match &mut self.sending {
            Half::Send(sending) => sending.poll_room(cx).map_err(blame_client),
            // The connection's task writes first; only then is it known whether the client reads.
            Half::Respond(_) if std::mem::take(&mut self.unwritten) => {
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            // Only heads are sent in this state, which flow control does not cover.
            Half::Respond(_) => self.wire.poll_writable(cx).map(Ok),
        }
    }

    pub fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        match &mut self.sending {
            Half::Send(sending) => sending.poll_flush(cx).map_err(blame_client),
            Half::Respond(_) => Poll::Ready(Ok(())),
        }
    }

    /// What is left after an agreed CONNECT or upgrade: bytes. `None`: the exchange did not become
    /// a tunnel.
    pub fn into_tunnel(self, pool: &Pool) -> Option<TunnelStream> {
        let Half::Send(sending) = self.sending else {
            return None;
        };
        Some(TunnelStream::after(
            sending.into_stream(),
            self.receiving.into_stream(),
            pool,
        ))
    }

    /// Ends the stream without (the rest of) a response.
    pub fn reset(&mut self, reason: Reason) {
        match &mut self.sending {
            Half::Respond(respond) => respond.send_reset(reason),
            Half::Send(sending) => sending.reset(reason),
        }
    }
}

fn blame_client(error: h2::Error) -> Failure {
    if error.is_reset() && error.is_remote() {
        Failure::ClientReset
    } else if error.is_library() {
        Failure::BadRequest(Fault::Truncated)
    } else {
        Failure::ClientGone
    }
}
