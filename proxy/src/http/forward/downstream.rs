//! The downstream end of one exchange: where the request's body comes from and the response goes.
//!
//! HTTP/1 and HTTP/2 behind one enum, so that the rest of the engine is written once. Nothing here
//! is async: everything is polled, and writes go through a bounded queue.

use std::task::{Context, Poll, ready};

use bytes::Bytes;

use crate::http::connection::io::Io;
use crate::http::h1::{BodyEvent, BodyLength, ServerConn};
use crate::http::h2::ServerStream;
use crate::http::request::error::Failure;
use crate::message::head::Head;
use crate::socket::{self, PeerEnd};

/// See the module.
pub enum DownstreamIo<'a> {
    H1(&'a mut H1Server),
    H2(&'a mut ServerStream),
}

impl DownstreamIo<'_> {
    /// The next piece of the request's body.
    pub fn poll_body(
        &mut self,
        cx: &mut Context<'_>,
        trailers: &mut Head,
    ) -> Poll<Result<BodyEvent, Failure>> {
        match self {
            Self::H1(server) => server.poll_body(cx, trailers),
            Self::H2(stream) => stream.poll_body(cx, trailers),
        }
    }

    /// Ready when the client has disconnected, or may have; polled while an attempt runs.
    pub fn poll_leaving(&mut self, cx: &mut Context<'_>) -> Poll<Leaving> {
        match self {
            Self::H1(server) => server.poll_leaving(cx),
            Self::H2(stream) => stream.poll_gone(cx).map(Leaving::Gone),
        }
    }

    /// After [`Leaving::Hidden`]: looks past unread bytes for the client's FIN or reset.
    pub fn look(&mut self, cx: &mut Context<'_>) -> Option<Leaving> {
        match self {
            Self::H1(server) => server.look(cx),
            Self::H2(_) => None,
        }
    }

    /// Sends 100 (Continue) to a client that waits for it before it sends its body.
    pub fn send_continue(&mut self) {
        match self {
            Self::H1(server) => server.send_continue(),
            Self::H2(stream) => stream.send_continue(),
        }
    }

    pub fn interim(&mut self, head: &Head) {
        match self {
            Self::H1(server) => server.interim(head),
            Self::H2(stream) => stream.interim(head),
        }
    }

    /// The final response's head. `close`: the connection is to end after it.
    pub fn head(&mut self, head: &Head, body: BodyLength, close: bool) -> Result<(), Failure> {
        match self {
            Self::H1(server) => {
                server.head(head, body, close);
                Ok(())
            }
            Self::H2(stream) => stream.head(head, body, close),
        }
    }

    /// From here on the body is opaque bytes, both ways (after 101, or 2xx to CONNECT).
    pub fn open_tunnel(&mut self) {
        if let Self::H1(server) = self {
            server.io.open_tunnel();
        }
    }

    pub fn data(&mut self, data: Bytes) -> Result<(), Failure> {
        match self {
            Self::H1(server) => server.data(data),
            Self::H2(stream) => {
                stream.data(data);
                Ok(())
            }
        }
    }

    pub fn end(&mut self, trailers: Option<&Head>) -> Result<(), Failure> {
        match self {
            Self::H1(server) => server.end(trailers),
            Self::H2(stream) => {
                stream.end(trailers);
                Ok(())
            }
        }
    }

    /// Something waits for the client to take it.
    pub fn is_stalled(&self) -> bool {
        match self {
            Self::H1(server) => server.io.is_stalled(),
            Self::H2(stream) => stream.is_stalled(),
        }
    }

    /// Ready while little enough waits that more may be queued.
    pub fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        match self {
            Self::H1(server) => server.io.poll_room(cx).map_err(|_| Failure::ClientGone),
            Self::H2(stream) => stream.poll_room(cx),
        }
    }

    pub fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        match self {
            Self::H1(server) => server.poll_flush(cx),
            Self::H2(stream) => stream.poll_flush(cx),
        }
    }
}

/// Signs that a client may have disconnected.
pub enum Leaving {
    /// It cannot receive a response any more.
    Gone(Failure),
    /// FIN was received. The client may have closed the connection, or only its write side after
    /// the request, as `nc` and BusyBox's `wget` do; TCP does not distinguish the two.
    HalfClosed,
    /// Bytes that must not be read yet precede the end; [`DownstreamIo::look`] looks past them.
    Hidden,
}

/// The server side of an HTTP/1 connection.
pub struct H1Server {
    pub io: Io,
    pub codec: ServerConn,
    /// 100 has not been sent yet.
    pub expects_continue: bool,
}

impl H1Server {
    pub fn new(io: Io, codec: ServerConn) -> Self {
        Self {
            io,
            codec,
            expects_continue: false,
        }
    }

    /// A new exchange begins.
    pub fn begin(&mut self, expects_continue: bool) {
        self.expects_continue = expects_continue;
    }

    fn poll_body(
        &mut self,
        cx: &mut Context<'_>,
        trailers: &mut Head,
    ) -> Poll<Result<BodyEvent, Failure>> {
        if self.io.is_tunnel() {
            return self.io.poll_tunnel(cx).map_err(|_| Failure::ClientGone);
        }
        loop {
            match self.codec.read_body(&mut self.io.input, trailers) {
                Ok(BodyEvent::More) => {}
                Ok(event) => return Poll::Ready(Ok(event)),
                Err(fault) => return Poll::Ready(Err(Failure::BadRequest(fault))),
            }
            match ready!(self.io.poll_fill(cx)) {
                Ok(1..) => {}
                Ok(0) => {
                    let cut = self.codec.read_eof(&self.io.input).err();
                    return Poll::Ready(Err(cut.map_or(Failure::ClientGone, Failure::BadRequest)));
                }
                Err(_) => return Poll::Ready(Err(Failure::ClientGone)),
            }
        }
    }

    fn poll_leaving(&mut self, cx: &mut Context<'_>) -> Poll<Leaving> {
        if self.io.is_tunnel() {
            return Poll::Pending;
        }
        // The rest of the body, or the next request: reading on would be without bound.
        if !self.codec.body_done() || !self.io.input.is_empty() {
            return Poll::Ready(Leaving::Hidden);
        }
        Poll::Ready(match ready!(self.io.poll_fill(cx)) {
            Ok(1..) => Leaving::Hidden,
            Ok(0) if self.io.may_half_close() => Leaving::HalfClosed,
            Ok(0) | Err(_) => Leaving::Gone(Failure::ClientGone),
        })
    }

    fn look(&mut self, cx: &mut Context<'_>) -> Option<Leaving> {
        let Some(socket) = self.io.stream.socket() else {
            let reset = self.io.stream.take_error(cx);
            return reset.map(|_| Leaving::Gone(Failure::ClientGone));
        };
        match socket::peer_end(socket) {
            PeerEnd::Open => None,
            PeerEnd::HalfClosed => Some(Leaving::HalfClosed),
            PeerEnd::Gone => Some(Leaving::Gone(Failure::ClientGone)),
        }
    }

    fn send_continue(&mut self) {
        if std::mem::take(&mut self.expects_continue) {
            let mut head = Head::new();
            head.set_status(100);
            self.codec.write_interim(&head, &mut self.io.out);
        }
    }

    fn interim(&mut self, head: &Head) {
        if head.status() == 100 && !std::mem::take(&mut self.expects_continue) {
            // The client does not expect 100, or has received it.
            return;
        }
        self.codec.write_interim(head, &mut self.io.out);
    }

    fn head(&mut self, head: &Head, body: BodyLength, close: bool) {
        self.codec.write_head(head, body, close, &mut self.io.out);
    }

    fn data(&mut self, data: Bytes) -> Result<(), Failure> {
        let Some(data) = self.io.pass(data) else {
            return Ok(());
        };
        let written = self.codec.write_data(data, &mut self.io.out);
        written.map_err(Failure::BadResponse)
    }

    fn end(&mut self, trailers: Option<&Head>) -> Result<(), Failure> {
        if self.io.end_tunnel() {
            return Ok(());
        }
        let written = self.codec.write_end(trailers, &mut self.io.out);
        written.map_err(Failure::BadResponse)
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        self.io.poll_flush(cx).map_err(|_| Failure::ClientGone)
    }
}
