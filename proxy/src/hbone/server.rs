//! The server side: CONNECT requests for tunnels.

use std::net::SocketAddr;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use h2::server::SendResponse;
use h2::{Reason, RecvStream};
use http::{HeaderMap, Method, Request, Response, StatusCode};

use crate::config::listener::TunnelOptions;
use crate::dispatcher::buffer::Pool;
use crate::http::h2::prefixed::Prefixed;
use crate::http::h2::reset_limiter::ResetLimiter;
use crate::lifecycle::OpenStreams;
use crate::stream::chunk::Chunk;
use crate::stream::tunnel::{FRAME, StreamCount, StreamGuard, TunnelInfo, TunnelStream};

/// Decoded bytes of a CONNECT's head.
const MAX_HEAD: u32 = 16 * 1024;
/// Streams that are refused, or reset by the peer before they were accepted, within the budget's
/// window.
const MAX_REFUSED: usize = 200;
/// Blocks of one stream that may wait for the peer's window.
const SEND_BUFFER: usize = 256 * 1024;
/// Protocols a client may name.
const MAX_ALPN: usize = 8;

/// An HTTP/2 connection on which a peer opens tunnels.
pub struct TunnelServer {
    connection: h2::server::Connection<Prefixed, Chunk>,
    load: Rc<StreamCount>,
    budget: ResetLimiter,
    max_streams: usize,
}

impl TunnelServer {
    /// `None`: the peer does not use HTTP/2.
    pub async fn handshake(io: Prefixed, options: &TunnelOptions) -> Option<Self> {
        let streams = options.max_concurrent_streams;
        let mut builder = h2::server::Builder::new();
        builder
            .max_concurrent_streams(streams)
            .initial_window_size(options.stream_window)
            // The connection window covers all stream windows, so streams that are not read cannot
            // block others.
            .initial_connection_window_size(options.connection_window())
            .max_frame_size(FRAME)
            .max_header_list_size(MAX_HEAD)
            .max_pending_accept_reset_streams(MAX_REFUSED)
            .max_concurrent_reset_streams(MAX_REFUSED)
            .max_local_error_reset_streams(Some(MAX_REFUSED))
            .max_send_buffer_size(SEND_BUFFER);
        let connection = builder.handshake(io).await.ok()?;
        Some(TunnelServer {
            connection,
            load: Rc::default(),
            budget: ResetLimiter::new(MAX_REFUSED),
            max_streams: usize::try_from(streams).unwrap_or(usize::MAX),
        })
    }

    /// The next stream; drives the connection meanwhile. `None`: it has ended.
    pub fn poll_accept_tunnel(&mut self, cx: &mut Context<'_>) -> Poll<Option<ConnectRequest>> {
        loop {
            if self.budget.is_exceeded() {
                self.connection.abrupt_shutdown(Reason::ENHANCE_YOUR_CALM);
            }
            let accepted = ready!(self.connection.poll_accept(cx));
            let Some(Ok((request, mut respond))) = accepted else {
                return Poll::Ready(None);
            };
            self.budget.begun();
            // Streams that the peer is done with may take a moment to end on our side.
            if self.load.streams.open() >= self.max_streams.saturating_mul(2) {
                respond.send_reset(Reason::REFUSED_STREAM);
                self.budget.rapid();
                continue;
            }
            return Poll::Ready(Some(ConnectRequest {
                request,
                respond,
                share: StreamGuard::of(&self.load),
            }));
        }
    }

    /// A stream was refused.
    pub fn count_refused(&mut self) {
        self.budget.rapid();
    }

    pub fn streams(&self) -> &OpenStreams {
        &self.load.streams
    }

    /// No new streams; those that are open go on.
    pub fn wind_down(&mut self) {
        self.connection.graceful_shutdown();
    }

    /// Closes the connection with a last GOAWAY, as far as that can be written at once.
    pub fn close(&mut self, cx: &mut Context<'_>) {
        self.connection.abrupt_shutdown(Reason::NO_ERROR);
        let _ = self.connection.poll_accept(cx);
    }
}

/// A stream that the peer opened, not yet answered.
pub struct ConnectRequest {
    request: Request<RecvStream>,
    respond: SendResponse<Chunk>,
    share: StreamGuard,
}

/// The target of a CONNECT.
#[derive(Debug, PartialEq, Eq)]
pub struct ConnectTarget {
    pub destination: SocketAddr,
    /// What the tunnel will carry (RFC 7639), in the client's order; empty: not declared.
    pub alpn: Vec<Box<[u8]>>,
}

/// Why a request is no tunnel to an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadTarget {
    /// It is no CONNECT.
    Method,
    Authority,
    Alpn,
}

impl ConnectRequest {
    /// # Errors
    /// See [`BadTarget`].
    pub fn target(&self) -> Result<ConnectTarget, BadTarget> {
        let extended = self.request.extensions().get::<h2::ext::Protocol>();
        if self.request.method() != Method::CONNECT || extended.is_some() {
            return Err(BadTarget::Method);
        }
        let authority = self.request.uri().authority().ok_or(BadTarget::Authority)?;
        let destination = authority.as_str().parse();
        Ok(ConnectTarget {
            destination: destination.map_err(|_| BadTarget::Authority)?,
            alpn: alpn(self.request.headers()).ok_or(BadTarget::Alpn)?,
        })
    }

    /// Resets the stream with REFUSED_STREAM: the peer may retry it elsewhere (RFC 9113 8.7).
    pub fn reset_unprocessed(mut self) {
        self.respond.send_reset(Reason::REFUSED_STREAM);
    }

    pub fn refuse(mut self, status: u16) {
        let mut response = Response::new(());
        *response.status_mut() =
            StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        // Fails only when the client is gone.
        let _ = self.respond.send_response(response, true);
    }

    /// `None`: the client is gone.
    pub fn accept(mut self, pool: &Pool, about: TunnelInfo) -> Option<TunnelStream> {
        let send = self.respond.send_response(Response::new(()), false).ok()?;
        let recv = self.request.into_body();
        Some(TunnelStream::new(send, recv, self.share, pool, about))
    }
}

/// RFC 7639 2.1: a list of percent-encoded protocol names.
fn alpn(headers: &HeaderMap) -> Option<Vec<Box<[u8]>>> {
    let mut found = Vec::new();
    for value in headers.get_all("alpn") {
        let names = value.to_str().ok()?.split(',').map(str::trim);
        for name in names.filter(|name| !name.is_empty()) {
            if found.len() == MAX_ALPN {
                return None;
            }
            found.push(percent_decoded(name)?);
        }
    }
    Some(found)
}

fn percent_decoded(text: &str) -> Option<Box<[u8]>> {
    let mut bytes = text.bytes();
    let mut decoded = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        decoded.push(match byte {
            b'%' => {
                let digit = |byte: u8| char::from(byte).to_digit(16);
                let value = (digit(bytes.next()?)? << 4) | digit(bytes.next()?)?;
                u8::try_from(value).ok()?
            }
            byte => byte,
        });
    }
    Some(decoded.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn protocol_names_are_read_as_rfc_7639_writes_them() {
        let mut headers = HeaderMap::new();
        assert_eq!(alpn(&headers), Some(Vec::new()));
        headers.append("alpn", "h2, http%2F1.1".parse().unwrap());
        headers.append("alpn", "anyam-tcp".parse().unwrap());
        let names: Vec<Box<[u8]>> = vec![
            b"h2".as_slice().into(),
            b"http/1.1".as_slice().into(),
            b"anyam-tcp".as_slice().into(),
        ];
        assert_eq!(alpn(&headers), Some(names));
        for bad in ["%", "%2", "%zz", "1,2,3,4,5,6,7,8,9"] {
            headers.insert("alpn", bad.parse().unwrap());
            assert_eq!(alpn(&headers), None, "{bad}");
        }
    }
}
