//! The upstream end of one exchange: where the request goes and the response comes from.

use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use bytes::Bytes;

use crate::http::connection::io::Io;
use crate::http::h1::{BodyEvent, BodyLength, ClientConn, Framing, ResponseInfo};
use crate::http::h2::ClientStream;
use crate::http::pool::ConnectionSlot;
use crate::http::request::error::Failure;
use crate::http::request::stream_info::Upstream;
use crate::message::head::Head;
use crate::socket;

/// See the module.
pub enum UpstreamIo {
    H1(Box<H1Client>),
    H2(Box<ClientStream>),
}

impl UpstreamIo {
    /// The connection's description for telemetry.
    pub fn about(&self) -> &Rc<Upstream> {
        match self {
            Self::H1(client) => &client.about,
            Self::H2(stream) => stream.about(),
        }
    }

    /// Sends the request's head.
    pub fn head(&mut self, head: &Head, body: BodyLength, info: &Framing) -> Result<(), Failure> {
        match self {
            Self::H1(client) => {
                let out = &mut client.io.out;
                client.codec.write_head(head, body, info, out);
                Ok(())
            }
            Self::H2(stream) => stream.head(head, body, info),
        }
    }

    pub fn data(&mut self, data: Bytes) -> Result<(), Failure> {
        match self {
            Self::H1(client) => client.data(data),
            Self::H2(stream) => {
                stream.data(data);
                Ok(())
            }
        }
    }

    pub fn end(&mut self, trailers: Option<&Head>) -> Result<(), Failure> {
        match self {
            Self::H1(client) => client.end(trailers),
            Self::H2(stream) => {
                stream.end(trailers);
                Ok(())
            }
        }
    }

    /// Ready while little enough waits that more may be queued.
    pub fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        match self {
            Self::H1(client) => client.io.poll_room(cx).map_err(|_| Failure::Terminated),
            Self::H2(stream) => stream.poll_room(cx),
        }
    }

    pub fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        match self {
            Self::H1(client) => client.poll_flush(cx),
            Self::H2(stream) => stream.poll_flush(cx),
        }
    }

    /// The next head of the response: interim ones first.
    pub fn poll_head(
        &mut self,
        cx: &mut Context<'_>,
        head: &mut Head,
    ) -> Poll<Result<ResponseInfo, Failure>> {
        match self {
            Self::H1(client) => client.poll_head(cx, head),
            Self::H2(stream) => stream.poll_head(cx, head),
        }
    }

    /// Counts interim responses that arrive while none can be forwarded. An HTTP/1 upstream has to
    /// wait: nothing is read of it.
    ///
    /// # Errors
    /// When there are too many, or the stream has failed.
    pub fn receive_interim(&mut self, cx: &mut Context<'_>) -> Result<(), Failure> {
        match self {
            Self::H1(_) => Ok(()),
            Self::H2(stream) => stream.receive_interim(cx),
        }
    }

    /// The next piece of the response's body.
    pub fn poll_body(
        &mut self,
        cx: &mut Context<'_>,
        trailers: &mut Head,
    ) -> Poll<Result<BodyEvent, Failure>> {
        match self {
            Self::H1(client) => client.poll_body(cx, trailers),
            Self::H2(stream) => stream.poll_body(cx, trailers),
        }
    }

    /// From here on the body is opaque bytes, both ways.
    pub fn open_tunnel(&mut self) {
        if let Self::H1(client) = self {
            client.io.open_tunnel();
        }
    }

    pub fn is_h1(&self) -> bool {
        matches!(self, Self::H1(_))
    }

    /// It served a request before.
    pub fn is_reused(&self) -> bool {
        match self {
            Self::H1(client) => client.reused,
            Self::H2(_) => false,
        }
    }

    /// Whether a failed connection was closed by the upstream while it was idle.
    pub fn staleness(&self, failure: &Failure) -> Staleness {
        match self {
            Self::H1(client)
                if client.reused
                    && *failure == Failure::Terminated
                    && client.codec.is_untouched(&client.io.input) =>
            {
                match client.was_refused() {
                    true => Staleness::Proven,
                    false => Staleness::Possible,
                }
            }
            _ => Staleness::None,
        }
    }
}

/// How a connection failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Staleness {
    /// Not because it was stale.
    None,
    /// Perhaps stale: it had served before, and no byte of a response arrived.
    Possible,
    /// Stale: besides, nothing of the request reached the upstream.
    Proven,
}

/// The client side of an HTTP/1 connection.
pub struct H1Client {
    pub io: Io,
    pub codec: ClientConn,
    pub about: Rc<Upstream>,
    /// Answered a request before.
    pub reused: bool,
    /// Requests begun.
    pub requests: u32,
    /// When it was made.
    pub since: Instant,
    /// A read or write failed; else the connection's end was read.
    reset: bool,
    /// Bytes written on the connection before this request.
    written_before: u64,
    /// The connection's place under the limits of its cluster and listener.
    pub(in crate::http) place: ConnectionSlot,
}

impl H1Client {
    pub fn new(io: Io, codec: ClientConn, about: Rc<Upstream>, place: ConnectionSlot) -> Self {
        Self {
            io,
            codec,
            about,
            reused: false,
            requests: 0,
            since: Instant::now(),
            reset: false,
            written_before: 0,
            place,
        }
    }

    /// Another request begins.
    pub fn begin(&mut self) {
        self.requests = self.requests.saturating_add(1);
        self.written_before = self.io.written();
    }

    /// Nothing of the request was written, or the upstream's kernel sent FIN before it had any byte
    /// of it, and then refused these bytes. A reset alone proves nothing: an app that fails while
    /// it reads the request sends one too.
    fn was_refused(&self) -> bool {
        if self.io.written() == self.written_before {
            return true;
        }
        let Some(tcp) = self.io.plain() else {
            return false;
        };
        // FIN carries an acknowledgement, so that the count is right once it was read. A reset
        // after it shows only in the socket's error: the read itself returns end of stream.
        !self.reset
            && socket::take_error(tcp).is_some()
            && socket::acknowledged(tcp).is_some_and(|bytes| bytes <= self.written_before)
    }

    fn data(&mut self, data: Bytes) -> Result<(), Failure> {
        let Some(data) = self.io.pass(data) else {
            return Ok(());
        };
        let written = self.codec.write_data(data, &mut self.io.out);
        written.map_err(Failure::BadRequest)
    }

    fn end(&mut self, trailers: Option<&Head>) -> Result<(), Failure> {
        if self.io.end_tunnel() {
            return Ok(());
        }
        let written = self.codec.write_end(trailers, &mut self.io.out);
        written.map_err(Failure::BadRequest)
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        self.io.poll_flush(cx).map_err(|_| {
            self.reset = true;
            Failure::Terminated
        })
    }

    fn poll_head(
        &mut self,
        cx: &mut Context<'_>,
        head: &mut Head,
    ) -> Poll<Result<ResponseInfo, Failure>> {
        loop {
            match self.codec.read_head(&mut self.io.input, head) {
                Ok(Some(info)) => return Poll::Ready(Ok(info)),
                Ok(None) => {}
                Err(fault) => return Poll::Ready(Err(Failure::BadResponse(fault))),
            }
            match ready!(self.io.poll_fill(cx)) {
                Ok(1..) => {}
                Ok(0) => return Poll::Ready(Err(Failure::Terminated)),
                Err(_) => {
                    self.reset = true;
                    return Poll::Ready(Err(Failure::Terminated));
                }
            }
        }
    }

    fn poll_body(
        &mut self,
        cx: &mut Context<'_>,
        trailers: &mut Head,
    ) -> Poll<Result<BodyEvent, Failure>> {
        if self.io.is_tunnel() {
            return self.io.poll_tunnel(cx).map_err(|_| Failure::Terminated);
        }
        loop {
            match self.codec.read_body(&mut self.io.input, trailers) {
                Ok(BodyEvent::More) => {}
                Ok(event) => return Poll::Ready(Ok(event)),
                Err(fault) => return Poll::Ready(Err(Failure::BadResponse(fault))),
            }
            match ready!(self.io.poll_fill(cx)) {
                Ok(1..) => {}
                Ok(0) => {
                    let complete = self.codec.read_eof();
                    let end = complete.map(|()| BodyEvent::End);
                    return Poll::Ready(end.map_err(Failure::BadResponse));
                }
                Err(_) => return Poll::Ready(Err(Failure::Terminated)),
            }
        }
    }
}
