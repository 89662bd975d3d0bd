//! The one stream type of the data path: a TCP socket, in the clear or under TLS, or a stream of
//! an HTTP/2 connection that carries many.
//!
//! An enum and not `dyn Io`: the L4 relay must see the raw sockets to splice them, and a match
//! costs less than a virtual call per read.
//!
//! - [`tunnel`]: a stream of an HTTP/2 connection; `chunk`: what h2 sends
#![cfg_attr(
    not(test),
    deny(
        clippy::arithmetic_side_effects,
        clippy::expect_used,
        clippy::indexing_slicing,
        clippy::panic,
        clippy::string_slice,
        clippy::unreachable,
        clippy::unwrap_used
    )
)]

pub(crate) mod chunk;
pub mod tunnel;

use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use crate::socket;
use crate::stream::tunnel::TunnelStream;
use crate::tls::{ConnectionInfo, TlsStream};

/// A connection to a peer.
///
/// Writes follow the rule of every buffering writer: bytes that were accepted may still wait in
/// the TLS layer, so `poll_flush` before waiting for an answer.
pub enum Stream {
    Tcp(TcpStream),
    Tls(Box<TlsStream>),
    Tunnel(Box<TunnelStream>),
}

impl Stream {
    /// Ready once a read would find bytes, the end of the stream or an error. Holds no buffer
    /// while it waits: idle connections wait here, not in a read.
    ///
    /// With TLS a ready answer may be spurious (a record may carry no application data).
    pub fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Stream::Tcp(tcp) => tcp.poll_read_ready(cx),
            Stream::Tls(tls) => tls.poll_read_ready(cx),
            Stream::Tunnel(tunnel) => tunnel.poll_read_ready(cx),
        }
    }

    /// [`Self::poll_read_ready`] as a future.
    pub async fn read_ready(&self) -> io::Result<()> {
        std::future::poll_fn(|cx| self.poll_read_ready(cx)).await
    }

    /// What the TLS handshake established, of a tunnel that of the connection around it; `None`
    /// for a plain connection.
    pub fn tls_info(&self) -> Option<&ConnectionInfo> {
        match self {
            Stream::Tcp(_) => None,
            Stream::Tls(tls) => Some(tls.info()),
            Stream::Tunnel(tunnel) => tunnel.tls_info(),
        }
    }

    /// The socket, for its options; bytes read or written there bypass TLS. A tunnel has none of
    /// its own.
    pub fn socket(&self) -> Option<&TcpStream> {
        match self {
            Stream::Tcp(tcp) => Some(tcp),
            Stream::Tls(tls) => Some(tls.socket()),
            Stream::Tunnel(_) => None,
        }
    }

    /// Makes the coming close a reset, so that the peer learns that its stream was cut, not ended.
    pub fn reset_on_close(&self) {
        match self {
            Stream::Tcp(tcp) => socket::reset_on_close(tcp),
            Stream::Tls(tls) => socket::reset_on_close(tls.socket()),
            Stream::Tunnel(tunnel) => tunnel.reset_on_close(),
        }
    }

    /// The pending error of a stream that is not read from, if any; this may clear it. Of a tunnel,
    /// the task of `cx` is woken when there is one.
    pub fn take_error(&mut self, cx: &mut Context<'_>) -> Option<io::Error> {
        match self {
            Stream::Tcp(tcp) => socket::take_error(tcp),
            Stream::Tls(tls) => socket::take_error(tls.socket()),
            Stream::Tunnel(tunnel) => tunnel.take_error(cx),
        }
    }

    /// Our end, where it is known.
    pub fn local_addr(&self) -> Option<SocketAddr> {
        match self {
            Stream::Tcp(tcp) => tcp.local_addr().ok(),
            Stream::Tls(tls) => tls.socket().local_addr().ok(),
            Stream::Tunnel(tunnel) => tunnel.local_addr(),
        }
    }
}

impl From<TcpStream> for Stream {
    fn from(tcp: TcpStream) -> Self {
        Stream::Tcp(tcp)
    }
}

impl From<TlsStream> for Stream {
    fn from(tls: TlsStream) -> Self {
        Stream::Tls(Box::new(tls))
    }
}

impl From<TunnelStream> for Stream {
    fn from(tunnel: TunnelStream) -> Self {
        Stream::Tunnel(Box::new(tunnel))
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Tcp(tcp) => Pin::new(tcp).poll_read(cx, buf),
            Stream::Tls(tls) => Pin::new(&mut **tls).poll_read(cx, buf),
            Stream::Tunnel(tunnel) => Pin::new(&mut **tunnel).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Stream::Tcp(tcp) => socket::poll_write(tcp, cx, buf),
            Stream::Tls(tls) => Pin::new(&mut **tls).poll_write(cx, buf),
            Stream::Tunnel(tunnel) => Pin::new(&mut **tunnel).poll_write(cx, buf),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Stream::Tcp(tcp) => socket::poll_write_vectored(tcp, cx, bufs),
            Stream::Tls(tls) => Pin::new(&mut **tls).poll_write_vectored(cx, bufs),
            Stream::Tunnel(tunnel) => Pin::new(&mut **tunnel).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Tcp(tcp) => Pin::new(tcp).poll_flush(cx),
            Stream::Tls(tls) => Pin::new(&mut **tls).poll_flush(cx),
            Stream::Tunnel(tunnel) => Pin::new(&mut **tunnel).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Tcp(tcp) => Pin::new(tcp).poll_shutdown(cx),
            Stream::Tls(tls) => Pin::new(&mut **tls).poll_shutdown(cx),
            Stream::Tunnel(tunnel) => Pin::new(&mut **tunnel).poll_shutdown(cx),
        }
    }
}
