//! The HTTP/1 codec, both sides, without I/O.
//!
//! [`ServerConn`] reads requests and writes responses, [`ClientConn`] the other way round. The
//! driver owns socket, read buffer (`BytesMut`) and [`Out`]; it reads into the buffer, calls
//! `read_head` and `read_body` until they report that more bytes are needed, writes what is in
//! [`Out`].
//! Anything a peer does wrong is one [`Fault`](crate::message::fault::Fault), after which the connection is of no further use.
//!
//! `server`, `client` (what an exchange may do next) → `request`, `response` (heads in) → `fields`,
//! `classify` (syntax), `framing`, `target` (meaning) → `body` (bodies in: `chunked`, `trailers`)
//! → `encode`, `write` (heads, bodies out) → `out` (the write queue).
//!
//! A decoded head has end-to-end fields only: Connection and the fields that it names, Keep-Alive,
//! TE, Transfer-Encoding and the like are interpreted into [`Framing`] or [`ResponseInfo`] and
//! removed. `Upgrade` stays where it is honoured. Content-Length stays, and equals the framing.

mod body;
mod chunked;
mod classify;
mod client;
mod encode;
mod fields;
mod framing;
mod out;
mod request;
mod response;
pub(super) mod serve;
mod server;
mod target;
mod trailers;
mod write;

pub(super) use self::body::BodyDecoder;
pub use self::client::{ClientConn, MAX_INTERIM};
pub use self::encode::Spelling;
pub use self::out::Out;
pub(crate) use self::serve::options as request_options;
pub use self::server::ServerConn;
pub use self::trailers::is_allowed as is_allowed_trailer;
pub(super) use self::write::BodyEncoder;

use crate::message::head::{Method, Version};

/// Bounds on what a peer may send.
#[derive(Clone, Copy, Debug)]
pub struct HeadLimits {
    /// Bytes of a head, start line and line ends included; trailers have the same bound.
    pub head_bytes: usize,
    /// Fields of a head; trailers have the same bound. At most [`MAX_FIELDS`].
    pub fields: usize,
}

/// The largest number of fields that can be asked for.
pub const MAX_FIELDS: usize = 1024;

impl Default for HeadLimits {
    /// Envoy's: 60 KiB, 100 fields.
    fn default() -> Self {
        Self {
            head_bytes: 60 * 1024,
            fields: 100,
        }
    }
}

/// How requests are interpreted, besides [`HeadLimits`].
#[derive(Clone, Copy, Debug)]
pub struct RequestOptions {
    pub limits: HeadLimits,
    /// Else 426.
    pub accept_http_10: bool,
    /// Else 404 as Envoy.
    pub allow_absolute_url: bool,
    /// Of the responses we write.
    pub spelling: Spelling,
}

impl Default for RequestOptions {
    fn default() -> Self {
        Self {
            limits: HeadLimits::default(),
            accept_http_10: true,
            allow_absolute_url: true,
            spelling: Spelling::default(),
        }
    }
}

/// How long a body is, as read or to be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyLength {
    /// There is none.
    None,
    /// This many bytes (may be 0).
    Known(u64),
    /// Read: chunked. Write: as the peer understands it (chunked, or until close for HTTP/1.0).
    Unknown,
    /// Read only, responses: until the connection ends.
    UntilClose,
}

impl BodyLength {
    /// Neither body nor trailers follow a head that came by `version`. A length of 0 is proof of it
    /// over HTTP/1; over HTTP/2 trailers may still come.
    pub fn is_certainly_empty(self, version: Version) -> bool {
        match self {
            Self::None => true,
            Self::Known(0) => version != Version::Http2,
            Self::Known(_) | Self::Unknown | Self::UntilClose => false,
        }
    }
}

/// What a request turns its connection into, if the response agrees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TunnelRequest {
    None,
    /// `Upgrade` with `Connection: upgrade`: on 101, after the request's body (RFC 9110 7.8).
    /// `h2c` is not honoured.
    Upgrade,
    /// CONNECT: on 2xx.
    Connect,
}

/// A request's framing and its effect on the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Framing {
    pub body: BodyLength,
    /// The client would send another request on this connection.
    pub keep_alive: bool,
    /// The client waits for 100 before the body.
    pub expect_continue: bool,
    pub tunnel: TunnelRequest,
    /// The client takes trailers (`TE: trailers`).
    pub te_trailers: bool,
}

/// A response's effect on the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResponseInfo {
    pub body: BodyLength,
    /// The server takes another request after this one.
    pub keep_alive: bool,
    /// 1xx other than 101: another head follows.
    pub interim: bool,
    /// 101, or 2xx to CONNECT: what follows in both directions is opaque.
    pub tunnel: bool,
}

/// The properties of a request that its response's framing depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RequestSummary {
    pub method: Method,
    pub tunnel: TunnelRequest,
}

/// The result of reading a body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BodyEvent {
    /// A slice of the read buffer, never empty.
    Data(bytes::Bytes),
    /// The body ended with trailers, now in the head that was passed. Nothing follows.
    Trailers,
    /// The body ended without trailers (or without any that may be passed on). Nothing follows.
    End,
    /// More bytes are needed.
    More,
}

#[cfg(test)]
mod tests;
