//! The server side of a connection: which call comes next, what may be reused.

use bytes::{Bytes, BytesMut};

use super::body::BodyDecoder;
use super::encode::{self, BodyFraming, Persistence};
use super::request::RequestDecoder;
use super::write::BodyEncoder;
use super::{BodyEvent, BodyLength, Framing, Out, RequestOptions, TunnelRequest};
use crate::message::fault::Fault;
use crate::message::head::{Head, Method, Version};

/// Requests in, responses out, one exchange after the other.
///
/// Order of an exchange: `read_head` → (`read_body`)* with `write_interim`*, `write_head`,
/// `write_data`*, `write_end` beside it → `next`. Reading and writing are independent of each
/// other; an answer may be complete before the request is.
#[derive(Debug)]
pub struct ServerConn {
    options: RequestOptions,
    decoder: RequestDecoder,
    exchange: Option<ServerExchange>,
    body: BodyDecoder,
    write: BodyEncoder,
    closing: bool,
}

#[derive(Debug)]
struct ServerExchange {
    info: Framing,
    version: Version,
    method: Method,
    continued: bool,
    tunnel: bool,
}

impl ServerConn {
    pub fn new(options: RequestOptions) -> Self {
        Self {
            options,
            decoder: RequestDecoder::new(options),
            exchange: None,
            body: BodyDecoder::Done,
            write: BodyEncoder::Idle,
            closing: false,
        }
    }

    /// Reads a request's head out of `input` into `head` (cleared first). `None`: more bytes are
    /// needed. While an exchange runs, nothing is read: pipelined requests wait in `input`, and so
    /// does what follows an Upgrade or CONNECT.
    pub fn read_head(
        &mut self,
        input: &mut BytesMut,
        head: &mut Head,
    ) -> Result<Option<Framing>, Fault> {
        if self.exchange.is_some() || self.closing {
            return Ok(None);
        }
        let read = self.decoder.read(input, head);
        // Where the next message would begin is not known after a fault.
        self.closing |= read.is_err();
        let Some(info) = read? else {
            return Ok(None);
        };
        self.body = BodyDecoder::new(info.body);
        self.write = BodyEncoder::Idle;
        self.exchange = Some(ServerExchange {
            info,
            version: head.version(),
            method: head.method(),
            continued: false,
            tunnel: false,
        });
        Ok(Some(info))
    }

    /// Reads on in the request's body. Trailers go into `trailers` (cleared first). After the end
    /// it returns [`BodyEvent::End`] again; in a tunnel that was agreed on, the opaque bytes.
    pub fn read_body(
        &mut self,
        input: &mut BytesMut,
        trailers: &mut Head,
    ) -> Result<BodyEvent, Fault> {
        let read = self.body.read(&self.options.limits, input, trailers);
        self.closing |= read.is_err();
        read
    }

    /// The client sent FIN. `Ok(true)`: at a clean place (between messages, or the request was
    /// complete); `Ok(false)`: bytes of a head were there, which is no request; `Err`: a body was
    /// cut short.
    pub fn read_eof(&mut self, input: &BytesMut) -> Result<bool, Fault> {
        self.closing = true;
        if self.exchange.is_none() {
            return Ok(self.decoder.is_idle(input));
        }
        self.body.eof().map(|()| true)
    }

    /// How much of the request's body is still to be read, for callers that read it past this
    /// codec.
    pub(in crate::http) fn reading(&mut self) -> &mut BodyDecoder {
        &mut self.body
    }

    /// How much of the response's body is still to be written, for callers that write it past this
    /// codec.
    pub(in crate::http) fn writing(&mut self) -> &mut BodyEncoder {
        &mut self.write
    }

    /// The request's body (if any) was read to its end.
    pub fn body_done(&self) -> bool {
        self.body.is_done()
    }

    /// Writes 100, 103 or another interim response. Not sent to HTTP/1.0 clients, nor after the
    /// final head.
    pub fn write_interim(&mut self, head: &Head, out: &mut Out) {
        let Some(exchange) = &mut self.exchange else {
            return;
        };
        let fits = matches!(head.status(), 100 | 102..=199);
        if exchange.version == Version::Http10 || self.write != BodyEncoder::Idle || !fits {
            return;
        }
        if head.status() == 100 {
            exchange.continued = true;
        }
        let persistence = Persistence::default();
        let spelling = self.options.spelling;
        encode::response(
            head,
            Version::Http11,
            BodyFraming::None,
            persistence,
            spelling,
            out,
        );
    }

    /// Writes the final response's head with the framing that fits the client, the method, the
    /// status and `body`. `close`: the connection is to end after this response (draining).
    /// For a HEAD request, 204 and 304 no body follows, whatever `body` is. After 101 to an
    /// Upgrade, or 2xx to CONNECT, both directions are opaque: take the rest of `input` and leave
    /// the codec, or go on with `read_body` and `write_data`.
    ///
    /// Also writes the response to bytes that were no request; the connection ends after it.
    pub fn write_head(&mut self, head: &Head, body: BodyLength, close: bool, out: &mut Out) {
        let status = head.status();
        let spelling = self.options.spelling;
        let Some(exchange) = &mut self.exchange else {
            self.closing = true;
            let framing = encode::response_framing(Version::Http11, Method::Get, status, body);
            self.write = BodyEncoder::new(framing);
            let persistence = Persistence {
                close: true,
                ..Persistence::default()
            };
            encode::response(head, Version::Http11, framing, persistence, spelling, out);
            return;
        };
        exchange.tunnel = match exchange.info.tunnel {
            TunnelRequest::None => false,
            TunnelRequest::Upgrade => status == 101,
            TunnelRequest::Connect => matches!(status, 200..=299),
        };
        if exchange.tunnel {
            self.closing = true;
            self.body = BodyDecoder::UntilClose;
            self.write = BodyEncoder::Raw;
            let persistence = Persistence::default();
            encode::response(
                head,
                exchange.version,
                BodyFraming::Tunnel,
                persistence,
                spelling,
                out,
            );
            return;
        }
        let framing = encode::response_framing(exchange.version, exchange.method, status, body);
        self.closing |= close
            || !exchange.info.keep_alive
            || framing == BodyFraming::UntilClose
            // The bytes after it may be meant for the tunnel that was refused.
            || exchange.info.tunnel == TunnelRequest::Connect
            // The client may or may not send the body now (RFC 9110 10.1.1).
            || exchange.info.expect_continue && !exchange.continued && !self.body.is_done();
        let persistence = Persistence {
            close: self.closing,
            keep_alive: exchange.version == Version::Http10,
            te_trailers: false,
        };
        self.write = BodyEncoder::new(framing);
        encode::response(head, exchange.version, framing, persistence, spelling, out);
    }

    /// Writes a piece of the body, unless none may follow (HEAD, 204, 304): then it is dropped.
    /// `Err`: more than was declared; nothing was written, the connection must be closed.
    pub fn write_data(&mut self, data: Bytes, out: &mut Out) -> Result<(), Fault> {
        self.write.data(data, out)
    }

    /// Ends the body; trailers are written when it is chunked and left out otherwise. `Err`: less
    /// than was declared; the connection must be closed without another byte.
    pub fn write_end(&mut self, trailers: Option<&Head>, out: &mut Out) -> Result<(), Fault> {
        self.write.end(trailers, self.options.spelling, out)
    }

    /// Both directions are done: whether another exchange may follow on this connection. False also
    /// when the request's body was not read to its end, and when held-back bytes of a refused
    /// Upgrade lie in `input`. After `true` the next `read_head` reads.
    pub fn next(&mut self, input: &BytesMut) -> bool {
        let Some(exchange) = &self.exchange else {
            return !self.closing;
        };
        let held = exchange.info.tunnel != TunnelRequest::None && !input.is_empty();
        self.closing |= held || !self.body.is_done() || !self.write.is_done();
        if !self.closing {
            self.exchange = None;
            self.write = BodyEncoder::Idle;
        }
        !self.closing
    }
}
