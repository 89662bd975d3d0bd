//! The client side of a connection to an upstream.

use bytes::{Bytes, BytesMut};

use super::body::BodyDecoder;
use super::encode::{self, Spelling};
use super::response::ResponseDecoder;
use super::write::BodyEncoder;
use super::{BodyEvent, BodyLength, Framing, HeadLimits, Out, RequestSummary, ResponseInfo};
use crate::message::fault::Fault;
use crate::message::head::{Head, Span};

/// Interim responses allowed for one request; more fail it.
pub const MAX_INTERIM: u8 = 32;

/// The client side of HTTP/1: writes requests, reads responses.
///
/// Order: `write_head`, `write_data`*, `write_end` with `read_head` (again after each interim one)
/// and `read_body`* beside it → `next`.
#[derive(Debug)]
pub struct ClientConn {
    limits: HeadLimits,
    spelling: Spelling,
    decoder: ResponseDecoder,
    state: State,
    interim: u8,
    body: BodyDecoder,
    write: BodyEncoder,
}

#[derive(Debug)]
enum State {
    Idle,
    /// A request was sent, perhaps in part; the head of its response is awaited.
    Asked(RequestSummary),
    Answered(ResponseInfo),
}

impl ClientConn {
    pub fn new(limits: HeadLimits, spelling: Spelling) -> Self {
        Self {
            limits,
            spelling,
            decoder: ResponseDecoder::new(limits),
            state: State::Idle,
            interim: 0,
            body: BodyDecoder::Done,
            write: BodyEncoder::Idle,
        }
    }

    /// Writes a request's head: origin form (or `*`, or authority form for CONNECT), `Host` from
    /// the authority, framing from `body`. Of `info`, only `tunnel` and `te_trailers` are used.
    pub fn write_head(&mut self, head: &Head, body: BodyLength, info: &Framing, out: &mut Out) {
        let framing = encode::request_framing(head.method(), body, info.tunnel);
        self.state = State::Asked(RequestSummary {
            method: head.method(),
            tunnel: info.tunnel,
        });
        self.interim = 0;
        self.body = BodyDecoder::Done;
        self.write = BodyEncoder::new(framing);
        encode::request(head, framing, info, self.spelling, out);
    }

    /// Writes a piece of the body. `Err`: more than was declared (or opaque bytes before a tunnel
    /// was agreed on); nothing was written, the connection must be closed.
    pub fn write_data(&mut self, data: Bytes, out: &mut Out) -> Result<(), Fault> {
        self.write.data(data, out)
    }

    /// Ends the body; trailers are written when it is chunked and left out otherwise. `Err`: less
    /// than was declared; the connection must be closed without another byte.
    pub fn write_end(&mut self, trailers: Option<&Head>, out: &mut Out) -> Result<(), Fault> {
        self.write.end(trailers, self.spelling, out)
    }

    /// Reads a response's head. When `info.interim`, relay it and call again. When `info.tunnel`,
    /// the rest of `input` is opaque: leave the codec, or go on with `read_body` and `write_data`.
    pub fn read_head(
        &mut self,
        input: &mut BytesMut,
        head: &mut Head,
    ) -> Result<Option<ResponseInfo>, Fault> {
        let asked = match &self.state {
            State::Asked(asked) => asked,
            State::Answered(_) => return Ok(None),
            State::Idle if input.is_empty() => return Ok(None),
            State::Idle => return Err(Fault::UnsolicitedResponse),
        };
        let Some(info) = self.decoder.read(asked, input, head)? else {
            return Ok(None);
        };
        if !self.spelling.forward_reason {
            head.reason = Span::EMPTY;
        }
        if info.interim {
            self.interim = self.interim.saturating_add(1);
            if self.interim > MAX_INTERIM {
                return Err(Fault::TooManyInterim);
            }
            return Ok(Some(info));
        }
        if info.tunnel {
            self.body = BodyDecoder::UntilClose;
            self.write = BodyEncoder::Raw;
        } else {
            self.body = BodyDecoder::of_response(info.body);
        }
        self.state = State::Answered(info);
        Ok(Some(info))
    }

    /// Reads on in the response's body. Trailers go into `trailers` (cleared first). After the end
    /// it returns [`BodyEvent::End`] again; in a tunnel it returns the opaque bytes.
    pub fn read_body(
        &mut self,
        input: &mut BytesMut,
        trailers: &mut Head,
    ) -> Result<BodyEvent, Fault> {
        self.body.read(&self.limits, input, trailers)
    }

    /// How much of the response's body is still to be read, for callers that read it past this
    /// codec.
    pub(in crate::http) fn reading(&mut self) -> &mut BodyDecoder {
        &mut self.body
    }

    /// How much of the request's body is still to be written, for callers that write it past this
    /// codec.
    pub(in crate::http) fn writing(&mut self) -> &mut BodyEncoder {
        &mut self.write
    }

    /// The response's body (if any) was read to its end.
    pub fn body_done(&self) -> bool {
        matches!(self.state, State::Answered(_)) && self.body.is_done()
    }

    /// The server sent FIN. `Ok`: nothing is missing (it ended a body until close, or no request
    /// was out); `Err(Truncated)`: the response is not complete, perhaps not even begun, see
    /// [`ClientConn::is_untouched`].
    pub fn read_eof(&mut self) -> Result<(), Fault> {
        match &mut self.state {
            State::Idle => Ok(()),
            State::Asked(_) => Err(Fault::Truncated),
            State::Answered(info) => {
                info.keep_alive = false;
                self.body.eof()
            }
        }
    }

    /// No byte of a response has come: whether to retry elsewhere is open.
    pub fn is_untouched(&self, input: &BytesMut) -> bool {
        input.is_empty() && self.interim == 0 && !matches!(self.state, State::Answered(_))
    }

    /// Both directions are done: whether the connection may be returned to the pool. False when
    /// `input` has bytes beyond the response, when the request was not written to its end, when the
    /// server closes the connection, and after a tunnel.
    pub fn next(&mut self, input: &BytesMut) -> bool {
        let reusable = match &self.state {
            State::Idle => input.is_empty(),
            State::Asked(_) => false,
            State::Answered(info) => {
                info.keep_alive && input.is_empty() && self.body.is_done() && self.write.is_done()
            }
        };
        if reusable {
            self.state = State::Idle;
            self.write = BodyEncoder::Idle;
        }
        reusable
    }
}
