//! The gRPC port: accepts connections, performs the TLS handshake, and passes them to tonic.
//!
//! Our own loop, so that a slow, silent or hostile peer holds one permit of those for peers without
//! a certificate ([`super::admission`]) for a short time, and does not hold up the port. Control
//! frames are counted (`http2_frames`).

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use http2_frames::{Budget, Frames, PREFACE, Role};
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
    /// When it ends unless a stream begins; `None`: one has.
    first: Option<Pin<Box<Sleep>>>,
    /// When it ends, whatever it carries.
    end: Pin<Box<Sleep>>,
    displaced: Displaced,
    received: Frames,
    sent: Frames,
    control: Budget,
    ended: bool,
    metrics: Arc<Metrics>,
    /// Its permit among the connections that may be open.
    _permit: ConnectionPermit,
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
            Some(first) => first.as_mut().poll(cx).is_ready(),
            None => false,
        };
        if silent || self.end.as_mut().poll(cx).is_ready() {
            self.ended = true;
            return Poll::Ready(());
        }
        Poll::Pending
    }

    /// Looks at what came in. False: it is a flood of control frames.
    fn count(&mut self, read: &[u8]) -> bool {
        let Connection {
            first,
            received,
            control,
            ..
        } = self;
        received.scan(read, |frame| {
            if frame.is_headers() {
                *first = None;
            }
            control.received(frame);
        });
        !control.is_exceeded(Instant::now)
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
        if !this.count(read) {
            this.ended = true;
            this.metrics.refused("flood");
            let address = this.peer.address;
            tracing::warn!(
                ?address,
                "a connection to the xDS port sent too many control frames of HTTP/2 and was closed"
            );
            buf.set_filled(before);
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
        let written = ready!(match &mut this.io {
            Io::Tls(stream) => Pin::new(stream).poll_write(cx, buf),
            Io::Plain(stream) => Pin::new(stream).poll_write(cx, buf),
        })?;
        let control = &mut this.control;
        let bytes = buf.get(..written).unwrap_or_default();
        this.sent.scan(bytes, |frame| control.sent(frame));
        Poll::Ready(Ok(written))
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
            first: Some(Box::pin(tokio::time::sleep(FIRST_STREAM))),
            end: Box::pin(tokio::time::sleep(life)),
            displaced,
            received: Frames::after(PREFACE),
            sent: Frames::default(),
            control: Budget::new(Role::Server, Instant::now()),
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
