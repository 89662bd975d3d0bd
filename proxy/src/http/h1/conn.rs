//! One connection's exchanges: which call comes next, what may be reused.

use bytes::{Bytes, BytesMut};

use super::{BodyLength, Event, Fault, Out, RequestInfo, RequestOptions, ResponseInfo};
use crate::http::head::Head;

/// The server side of a connection: requests in, responses out, one exchange after the other.
///
/// Order of an exchange: `read_head` → (`read_body`)* with `write_interim`*, `write_head`,
/// `write_data`*, `write_end` beside it → `next`. Reading and writing are independent of each
/// other; an answer may be complete before the request is.
pub struct ServerConn {
    options: RequestOptions,
}

impl ServerConn {
    pub fn new(options: RequestOptions) -> Self {
        Self { options }
    }

    /// Reads a request's head out of `input` into `head` (cleared first). `None`: more bytes are
    /// needed. While an exchange runs, nothing is read: pipelined requests wait in `input`, and so
    /// does what follows an Upgrade or CONNECT.
    pub fn read_head(
        &mut self,
        input: &mut BytesMut,
        head: &mut Head,
    ) -> Result<Option<RequestInfo>, Fault> {
        let _ = (&self.options, input, head);
        Ok(None)
    }

    /// Reads on in the request's body. Trailers go into `trailers` (cleared first). After the end
    /// it says [`Event::End`] again.
    pub fn read_body(&mut self, input: &mut BytesMut, trailers: &mut Head) -> Result<Event, Fault> {
        let _ = (input, trailers);
        Ok(Event::End)
    }

    /// The client sent FIN. `Ok(true)`: at a clean place (between messages, or the body was
    /// complete); `Ok(false)`: bytes of a head were there, which is no request; `Err`: a body was
    /// cut short.
    pub fn read_eof(&mut self, input: &BytesMut) -> Result<bool, Fault> {
        let _ = input;
        Ok(true)
    }

    /// The request's body (if any) was read to its end.
    pub fn body_done(&self) -> bool {
        true
    }

    /// Writes 100, 103 or another interim response. Not sent to HTTP/1.0 clients.
    pub fn write_interim(&mut self, head: &Head, out: &mut Out) {
        let _ = (head, out);
    }

    /// Writes the final response's head with the framing that fits the client, the method, the
    /// status and `body`. `close`: the connection is to end after this response (draining).
    /// For a HEAD request, 204 and 304 no body follows, whatever `body` says. After 101, or 2xx to
    /// CONNECT, both directions are opaque: take the rest of `input` and leave the codec.
    pub fn write_head(&mut self, head: &Head, body: BodyLength, close: bool, out: &mut Out) {
        let _ = (head, body, close, out);
    }

    /// Writes a piece of the body, unless none may follow (HEAD, 204, 304): then it is dropped.
    /// `Err`: more than was declared; nothing was written, the connection must be closed.
    pub fn write_data(&mut self, data: Bytes, out: &mut Out) -> Result<(), Fault> {
        let _ = (data, out);
        Ok(())
    }

    /// Ends the body; trailers are written when it is chunked and left out otherwise. `Err`: less
    /// than was declared; the connection must be closed without another byte.
    pub fn write_end(&mut self, trailers: Option<&Head>, out: &mut Out) -> Result<(), Fault> {
        let _ = (trailers, out);
        Ok(())
    }

    /// Both directions are done: whether another exchange may follow on this connection. False also
    /// when the request's body was not read to its end, and when held-back bytes of a refused
    /// Upgrade or CONNECT lie in `input`. After `true` the next `read_head` reads.
    pub fn next(&mut self, input: &BytesMut) -> bool {
        let _ = input;
        true
    }
}

/// The client side of a connection to an upstream: requests out, responses in.
///
/// Order: `write_head`, `write_data`*, `write_end` with `read_head` (again after each interim one)
/// and `read_body`* beside it → `next`.
pub struct ClientConn {
    limits: super::Limits,
}

impl ClientConn {
    pub fn new(limits: super::Limits) -> Self {
        Self { limits }
    }

    /// Writes a request's head: origin form (or `*`, or authority form for CONNECT), `Host` from
    /// the authority, framing from `body`. `info` says whether it is a tunnel and takes trailers.
    pub fn write_head(&mut self, head: &Head, body: BodyLength, info: &RequestInfo, out: &mut Out) {
        let _ = (&self.limits, head, body, info, out);
    }

    /// As [`ServerConn::write_data`].
    pub fn write_data(&mut self, data: Bytes, out: &mut Out) -> Result<(), Fault> {
        let _ = (data, out);
        Ok(())
    }

    /// As [`ServerConn::write_end`].
    pub fn write_end(&mut self, trailers: Option<&Head>, out: &mut Out) -> Result<(), Fault> {
        let _ = (trailers, out);
        Ok(())
    }

    /// Reads a response's head. When `info.interim`, relay it and call again. When `info.tunnel`,
    /// the rest of `input` is opaque.
    pub fn read_head(
        &mut self,
        input: &mut BytesMut,
        head: &mut Head,
    ) -> Result<Option<ResponseInfo>, Fault> {
        let _ = (input, head);
        Ok(None)
    }

    /// As [`ServerConn::read_body`].
    pub fn read_body(&mut self, input: &mut BytesMut, trailers: &mut Head) -> Result<Event, Fault> {
        let _ = (input, trailers);
        Ok(Event::End)
    }

    /// The server sent FIN. `Ok`: the response is complete (its end, for bodies until close);
    /// `Err(Truncated)`: it is not; nothing of a response may have arrived, see
    /// [`ClientConn::untouched`].
    pub fn read_eof(&mut self) -> Result<(), Fault> {
        Ok(())
    }

    /// No byte of the response has arrived: a retry on another connection is safe to consider.
    pub fn untouched(&self, input: &BytesMut) -> bool {
        input.is_empty()
    }

    /// Both directions are done: whether the connection may go back to the pool. False when bytes
    /// lie in `input` that no request asked for, when the request was not written to its end, when
    /// either side wants to close, after a tunnel.
    pub fn next(&mut self, input: &BytesMut) -> bool {
        let _ = input;
        true
    }
}
