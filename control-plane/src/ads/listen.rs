//! The gRPC port: accepts, shakes hands, and hands verified connections to tonic.
//!
//! Our own loop, so that a slow or hostile handshake costs one bounded slot and not the port.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tonic::transport::server::Connected;

use crate::identity::{Peer, VerifiedPeer};

const HANDSHAKE: Duration = Duration::from_secs(10);
/// After an error such as "too many open files": trying at once would spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

enum Io {
    Tls(Box<TlsStream<TcpStream>>),
    Plain(TcpStream),
}

/// A connection with who is at its other end.
pub struct Connection {
    io: Io,
    peer: Peer,
    /// Its place among the connections that may be open.
    _slot: OwnedSemaphorePermit,
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
        match &mut self.io {
            Io::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
            Io::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        match &mut self.io {
            Io::Tls(stream) => Pin::new(stream).poll_write(cx, buf),
            Io::Plain(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.io {
            Io::Tls(stream) => Pin::new(stream).poll_flush(cx),
            Io::Plain(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.io {
            Io::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
            Io::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

/// Accepts until the receiver is dropped. `tls: None` is the plaintext port for tests.
pub async fn accept(
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
    slots: Arc<Semaphore>,
    ready: mpsc::Sender<io::Result<Connection>>,
) {
    loop {
        let Ok(slot) = Arc::clone(&slots).acquire_owned().await else {
            return;
        };
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
        let (tls, ready) = (tls.clone(), ready.clone());
        tokio::spawn(async move {
            match greet(stream, address, tls).await {
                Ok((io, peer)) => {
                    let connection = Connection {
                        io,
                        peer,
                        _slot: slot,
                    };
                    // Closed: we are shutting down.
                    let _ = ready.send(Ok(connection)).await;
                }
                Err(error) => {
                    tracing::info!(%address, %error, "connection to the xDS port refused")
                }
            }
        });
    }
}

async fn greet(
    stream: TcpStream,
    address: SocketAddr,
    tls: Option<TlsAcceptor>,
) -> io::Result<(Io, Peer)> {
    stream.set_nodelay(true)?;
    let mut peer = Peer {
        address: Some(address),
        verified: None,
        insecure: tls.is_none(),
    };
    let Some(tls) = tls else {
        return Ok((Io::Plain(stream), peer));
    };
    let handshake = tokio::time::timeout(HANDSHAKE, tls.accept(stream));
    let stream = handshake.await.map_err(|_| io::ErrorKind::TimedOut)??;
    if let Some([leaf, ..]) = stream.get_ref().1.peer_certificates() {
        let verified = VerifiedPeer::from_certificate(leaf);
        peer.verified =
            Some(verified.map_err(|why| io::Error::new(io::ErrorKind::InvalidData, why))?);
    }
    Ok((Io::Tls(Box::new(stream)), peer))
}
