//! The gRPC port: accepts connections, performs the TLS handshake, and passes them to tonic.
//!
//! Our own loop, so that a slow, silent or hostile peer holds one permit of those for peers without
//! a certificate ([`super::admission`]) for a short time, and does not hold up the port.
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

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::time::Sleep;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tonic::transport::server::Connected;

use super::admission::{Admission, ConnectionLimits, ConnectionPermit, Displaced, Holder};
use crate::identity::{Peer, VerifiedPeer};
use crate::metrics::Metrics;

const HANDSHAKE: Duration = Duration::from_secs(10);
/// From the handshake to the first request: the preface, SETTINGS, and a stream.
const FIRST_STREAM: Duration = Duration::from_secs(10);
/// Enough for a peer without a certificate to get one.
pub(crate) const UNVERIFIED_LIFE: Duration = Duration::from_secs(30);
/// After an error such as "too many open files": trying at once would spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

enum Io {
    Tls(Box<TlsStream<TcpStream>>),
    Plain(TcpStream),
}

/// A connection with its peer's identity.
pub struct Connection {
    io: Io,
    peer: Peer,
    first: Option<FirstStream>,
    /// When it ends, whatever it carries.
    end: Pin<Box<Sleep>>,
    displaced: Displaced,
    ended: bool,
    metrics: Arc<Metrics>,
    /// Its permit among the connections that may be open.
    _permit: ConnectionPermit,
}

/// Waits for a first HEADERS frame (RFC 9113 6.2).
struct FirstStream {
    deadline: Pin<Box<Sleep>>,
    /// Bytes to pass before the next frame's head: the preface, then payloads.
    skip: usize,
    head: [u8; 9],
    filled: usize,
}

impl FirstStream {
    fn new() -> Self {
        FirstStream {
            deadline: Box::pin(tokio::time::sleep(FIRST_STREAM)),
            skip: 24,
            head: [0; 9],
            filled: 0,
        }
    }

    /// Whether a stream begins in these bytes.
    fn has_begun(&mut self, bytes: &[u8]) -> bool {
        const HEADERS: u8 = 1;
        for byte in bytes {
            if self.skip > 0 {
                self.skip = self.skip.saturating_sub(1);
                continue;
            }
            if let Some(place) = self.head.get_mut(self.filled) {
                *place = *byte;
            }
            self.filled = self.filled.saturating_add(1);
            if self.filled == self.head.len() {
                self.filled = 0;
                let [a, b, c, kind, ..] = self.head;
                if kind == HEADERS {
                    return true;
                }
                self.skip = usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c);
            }
        }
        false
    }
}

impl Connection {
    /// Ready when it must end: for its age, for its silence, or to make room. It is polled with every
    /// read and write, so that a peer that does not read what it is sent does not keep it open.
    fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.ended {
            return Poll::Ready(());
        }
        if Pin::new(&mut self.displaced).poll(cx).is_ready() {
            self.metrics.refused("displaced");
            self.ended = true;
            return Poll::Ready(());
        }
        let silent = match &mut self.first {
            Some(first) => first.deadline.as_mut().poll(cx).is_ready(),
            None => false,
        };
        if silent || self.end.as_mut().poll(cx).is_ready() {
            self.ended = true;
            return Poll::Ready(());
        }
        Poll::Pending
    }
}

impl Connected for Connection {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        self.peer.clone()
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.poll_end(cx).is_ready() {
            // The end of the stream.
            return Poll::Ready(Ok(()));
        }
        let before = buf.filled().len();
        ready!(match &mut this.io {
            Io::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
            Io::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
        })?;
        let read = buf.filled().get(before..).unwrap_or_default();
        if let Some(first) = &mut this.first
            && first.has_begun(read)
        {
            this.first = None;
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        if this.poll_end(cx).is_ready() {
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        match &mut this.io {
            Io::Tls(stream) => Pin::new(stream).poll_write(cx, buf),
            Io::Plain(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let ended = self.poll_end(cx).is_ready();
        let flushed = match &mut self.io {
            Io::Tls(stream) => Pin::new(stream).poll_flush(cx),
            Io::Plain(stream) => Pin::new(stream).poll_flush(cx),
        };
        unless_ended(flushed, ended)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let ended = self.poll_end(cx).is_ready();
        let shut = match &mut self.io {
            Io::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
            Io::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
        };
        unless_ended(shut, ended)
    }
}

/// The peer of a connection that has ended is not waited for.
fn unless_ended(polled: Poll<io::Result<()>>, ended: bool) -> Poll<io::Result<()>> {
    match polled.is_pending() && ended {
        true => Poll::Ready(Ok(())),
        false => polled,
    }
}

/// What the accept loop works with.
pub struct Acceptor {
    /// `None`: the plaintext port for tests.
    pub tls: Option<TlsAcceptor>,
    pub admission: Arc<Admission>,
    pub limits: ConnectionLimits,
    pub metrics: Arc<Metrics>,
}

impl Acceptor {
    /// Accepts until the receiver is dropped.
    pub async fn run(self, listener: TcpListener, ready: mpsc::Sender<io::Result<Connection>>) {
        let shared = Arc::new(self);
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = ready.closed() => return,
            };
            let (stream, address) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, "accepting on the xDS port failed");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            let (permit, displaced) = match shared.admission.enter(address.ip()) {
                Ok(entered) => entered,
                Err(refused) => {
                    shared.metrics.refused(refused.label());
                    tracing::info!(%address, %refused, "connection to the xDS port refused");
                    continue;
                }
            };
            let (shared, ready) = (Arc::clone(&shared), ready.clone());
            tokio::spawn(async move {
                match shared.handshake(stream, address, permit, displaced).await {
                    // Closed: we are shutting down.
                    Ok(connection) => drop(ready.send(Ok(connection)).await),
                    Err(error) => {
                        tracing::info!(%address, %error, "connection to the xDS port refused")
                    }
                }
            });
        }
    }

    async fn handshake(
        &self,
        stream: TcpStream,
        address: SocketAddr,
        mut permit: ConnectionPermit,
        mut displaced: Displaced,
    ) -> io::Result<Connection> {
        stream.set_nodelay(true)?;
        let mut peer = Peer {
            address: Some(address),
            verified: None,
            insecure: self.tls.is_none(),
        };
        let io = match &self.tls {
            None => Io::Plain(stream),
            Some(tls) => {
                let handshake = tokio::time::timeout(HANDSHAKE, tls.accept(stream));
                let stream = tokio::select! {
                    stream = handshake => stream.map_err(|_| io::ErrorKind::TimedOut)??,
                    _ = &mut displaced => {
                        self.metrics.refused("displaced");
                        return Err(io::Error::other("it made room for another"));
                    }
                };
                if let Some([leaf, ..]) = stream.get_ref().1.peer_certificates() {
                    let verified = VerifiedPeer::from_certificate(leaf)
                        .map_err(|why| io::Error::new(io::ErrorKind::InvalidData, why))?;
                    peer.verified = Some(verified);
                }
                Io::Tls(Box::new(stream))
            }
        };
        let mut life = UNVERIFIED_LIFE;
        if let Some(holder) = Holder::of(&peer) {
            displaced = permit.verified(holder).map_err(|refused| {
                self.metrics.refused(refused.label());
                tracing::warn!(%refused, "a proxy's connection was refused");
                io::Error::other(refused)
            })?;
            life = self.limits.age.saturating_add(spread(self.limits.grace()));
        }
        Ok(Connection {
            io,
            peer,
            first: Some(FirstStream::new()),
            end: Box::pin(tokio::time::sleep(life)),
            displaced,
            ended: false,
            metrics: Arc::clone(&self.metrics),
            _permit: permit,
        })
    }
}

/// Some of the grace, so that connections that were made together do not end together.
fn spread(grace: Duration) -> Duration {
    let mut random = [0u8; 2];
    // Without random bytes all wait for half of it.
    let part = match aws_lc_rs::rand::fill(&mut random) {
        Ok(()) => f64::from(u16::from_be_bytes(random)) / f64::from(u16::MAX),
        Err(_) => 0.5,
    };
    grace.mul_f64(0.2 + 0.8 * part)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_first_stream_is_seen_however_the_bytes_are_cut() {
        let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
        bytes.extend([0, 0, 6, 4, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1]);
        bytes.extend([0, 0, 4, 8, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
        let before = bytes.len();
        bytes.extend([0, 0, 1, 1, 4, 0, 0, 0, 1]);
        for cut in 1..bytes.len() {
            let mut first = FirstStream::new();
            let mut seen = None;
            for (at, piece) in bytes.chunks(cut).enumerate() {
                if first.has_begun(piece) {
                    seen = Some(at * cut + piece.len());
                    break;
                }
            }
            assert!(seen.is_some_and(|seen| seen > before), "{cut}");
        }
    }
}
