//! Handshakes of one worker: [`Handshaker::accept`] and [`Handshaker::connect`].
//!
//! A handshake step is a few hundred microseconds of computation. So that a burst of new
//! connections cannot starve open ones, only a few steps run between two passes over the sockets;
//! the others are queued. No step waits for a peer. Time-outs are the caller's: dropping the future
//! cancels the handshake.

use std::io::ErrorKind;
use std::rc::Rc;
use std::sync::Arc;
use std::time::SystemTime;

use rustls::client::UnbufferedClientConnection;
use rustls::server::UnbufferedServerConnection;
use rustls::{HandshakeKind, NamedGroup, ProtocolVersion};
use rustls_pki_types::{ServerName, UnixTime};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;

use super::context::{ClientContext, ServerContext};
use super::error::TlsError;
use super::hello::{self, Parsed};
use super::leaf::PeerRole;
use super::live::{LiveConnections, PeerConnection, VerifiedPeer};
use super::material::{Rotating, TrustBundle};
use super::peers::Peers;
use super::refusal::name_of;
use super::session::TlsSession;
use super::verify::PeerRules;
use super::wire::Wire;
use super::{ConnectionInfo, TlsStream};
use crate::bug;
use crate::dispatcher::buffer::Pool;
use crate::socket;

/// Handshake steps between two passes over the sockets: a millisecond or so.
pub const STEPS_PER_PASS: usize = 4;

/// This worker's handshakes; clones share it.
#[derive(Clone)]
pub struct Handshaker {
    pool: Pool,
    turns: Arc<Semaphore>,
    live: Rc<LiveConnections>,
    peers: Rc<Peers>,
}

/// What differs between connections of one [`ClientContext`].
#[derive(Clone, Debug, Default)]
pub struct Dial<'a> {
    /// Instead of the context's SNI.
    pub sni: Option<&'a str>,
    /// Instead of the context's ALPN list.
    pub alpn: Option<&'a [Vec<u8>]>,
}

impl Handshaker {
    pub fn new(pool: Pool, steps_per_pass: usize) -> Self {
        Handshaker {
            pool,
            turns: Arc::new(Semaphore::new(steps_per_pass)),
            live: Rc::new(LiveConnections::default()),
            peers: Rc::default(),
        }
    }

    /// Accepts TLS. `prefix`: bytes of the client that were already read.
    ///
    /// # Errors
    /// See [`TlsError`]; an alert was sent to the client where there is one for it.
    pub async fn accept(
        &self,
        tcp: TcpStream,
        prefix: &[u8],
        context: &ServerContext,
    ) -> Result<TlsStream, TlsError> {
        let built = context.current()?;
        let session = UnbufferedServerConnection::new(built.config.clone());
        let session = TlsSession::Server(session.map_err(TlsError::Setup)?);
        let mut wire = Wire::new(PeerConnection::new(tcp), session, &self.pool);
        wire.incoming.preload(prefix)?;
        let sni = self.drive(&mut wire).await?;
        let verification = PeerVerification {
            role: PeerRole::Client,
            trust: built.trust.as_ref(),
            live: context.options().trust.as_ref(),
            rules: context.rules(),
        };
        self.finish(wire, sni, &verification)
    }

    /// Dials TLS over a connected socket.
    ///
    /// # Errors
    /// See [`TlsError`]; an alert was sent to the server where there is one for it.
    pub async fn connect(
        &self,
        tcp: TcpStream,
        context: &ClientContext,
        dial: &Dial<'_>,
    ) -> Result<TlsStream, TlsError> {
        let built = context.current()?;
        let sni = dial.sni.or(context.options().sni.as_deref());
        let name = match sni {
            Some(name) => ServerName::try_from(name.to_owned()).map_err(|_| {
                TlsError::Setup(rustls::Error::General(format!(
                    "`{name}` is no server name"
                )))
            })?,
            // rustls keys sessions by a name; an address is not sent as SNI.
            None => ServerName::IpAddress(tcp.peer_addr()?.ip().into()),
        };
        let session = match dial.alpn {
            Some(alpn) => {
                UnbufferedClientConnection::new_with_alpn(built.config.clone(), name, alpn.to_vec())
            }
            None => UnbufferedClientConnection::new(built.config.clone(), name),
        };
        let session = TlsSession::Client(session.map_err(TlsError::Setup)?);
        let mut wire = Wire::new(PeerConnection::new(tcp), session, &self.pool);
        self.drive(&mut wire).await?;
        let verification = PeerVerification {
            role: PeerRole::Server,
            trust: built.trust.as_ref(),
            live: context.options().trust.as_ref(),
            rules: context.rules(),
        };
        self.finish(
            wire,
            sni.map(|sni| sni.to_ascii_lowercase().into()),
            &verification,
        )
    }

    /// Verifies again the peers of this worker's open connections whose trust bundle was replaced,
    /// and ends connections whose peer is no longer trusted. To be called after a new snapshot;
    /// cheap when no bundle changed. Returns how many were ended.
    pub async fn reverify(&self) -> usize {
        self.live.reverify().await
    }

    /// Removes the records of closed connections.
    pub fn prune(&self) {
        self.live.prune();
        self.peers.prune();
    }

    /// Runs the handshake to its end; returns the SNI that a client asked for.
    async fn drive(&self, wire: &mut Wire) -> Result<Option<Box<str>>, TlsError> {
        let mut sni = None;
        let mut hello_seen = matches!(wire.session, TlsSession::Client(_));
        loop {
            if !hello_seen {
                match hello::parse(wire.incoming.ciphertext()) {
                    Parsed::Hello(hello) => (sni, hello_seen) = (hello.sni, true),
                    Parsed::Incomplete => {}
                    // rustls returns the error.
                    Parsed::NotTls => hello_seen = true,
                }
            }
            if let Err(error) = self.step(wire).await {
                refuse(wire);
                return Err(error);
            }
            send_all(wire).await?;
            if wire.unprocessed {
                continue;
            }
            if !wire.session.common().is_handshaking() {
                // Application data may have come along; the stream's first read finds it.
                return Ok(sni);
            }
            if wire.peer_closed {
                return Err(TlsError::Closed);
            }
            receive(wire).await?;
        }
    }

    /// One step of computing, in turn.
    async fn step(&self, wire: &mut Wire) -> Result<(), TlsError> {
        // The semaphore is never closed.
        let turn = self.turns.clone().acquire_owned().await.ok();
        bug::point("tls_step");
        let done = wire.process(None).map_err(TlsError::of_step);
        // The step is done, but the next one may only run after the runtime has polled the sockets.
        tokio::spawn(async {
            tokio::task::yield_now().await;
            drop(turn);
        });
        done
    }

    fn finish(
        &self,
        wire: Wire,
        sni: Option<Box<str>>,
        verification: &PeerVerification<'_>,
    ) -> Result<TlsStream, TlsError> {
        let common = wire.session.common();
        let resumed = common.handshake_kind() == Some(HandshakeKind::Resumed);
        let mut info = ConnectionInfo {
            version: match common.protocol_version() {
                Some(ProtocolVersion::TLSv1_3) => "TLSv1.3",
                _ => "TLSv1.2",
            },
            cipher: common
                .negotiated_cipher_suite()
                .and_then(|suite| suite.suite().as_str())
                .unwrap_or_default(),
            group: common
                .negotiated_key_exchange_group()
                .map(|group| group_name(group.name())),
            alpn: common.alpn_protocol().map(Into::into),
            sni,
            peer: None,
            peer_verified: false,
            resumed,
            peer_certificate: None,
        };
        let chain = common.peer_certificates().unwrap_or_default();
        if let (Some(trust), Some(live)) = (verification.trust, verification.live) {
            let peer = self.peers.shared(chain).map_err(|_| TlsError::Closed)?;
            if let Some(peer) = peer {
                if resumed && peer.not_after <= SystemTime::now() {
                    let certificate = chain.first().map(|leaf| name_of(leaf));
                    let certificate = certificate.unwrap_or_default();
                    return Err(TlsError::ExpiredSession { certificate });
                }
                info.peer.clone_from(&peer.identity);
                info.peer_verified = true;
                info.peer_certificate = Some(peer.clone());
                let verified = VerifiedPeer {
                    role: verification.role,
                    peer,
                    rules: verification.rules.clone(),
                    live: live.clone(),
                    trust: trust.clone(),
                    began: UnixTime::now(),
                };
                self.live.add(&wire.link, verified);
            }
        }
        Ok(TlsStream::new(wire, self.pool.clone(), info))
    }
}

struct PeerVerification<'a> {
    role: PeerRole,
    trust: Option<&'a Arc<TrustBundle>>,
    live: Option<&'a Arc<Rotating<TrustBundle>>>,
    rules: &'a Arc<PeerRules>,
}

async fn send_all(wire: &mut Wire) -> Result<(), TlsError> {
    loop {
        match wire.outgoing.try_send(&wire.link) {
            Ok(()) => return Ok(()),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                wire.link.tcp.writable().await?;
            }
            Err(error) => return Err(error.into()),
        }
    }
}

async fn receive(wire: &mut Wire) -> Result<(), TlsError> {
    loop {
        wire.link.tcp.readable().await?;
        match wire.incoming.receive(&wire.link) {
            Ok(0) => return Err(TlsError::Closed),
            Ok(_) => {
                wire.unprocessed = true;
                return Ok(());
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Sends the alert, as far as it can be written at once.
fn refuse(wire: &mut Wire) {
    let sent = wire.outgoing.try_send(&wire.link);
    if sent.is_ok() {
        // Closing with unread bytes would reset the connection and take the alert with it.
        let _ = socket::shutdown_write(&wire.link.tcp);
        let mut unread = [0; 4096];
        for _ in 0..16 {
            if !matches!(socket::try_read(&wire.link.tcp, &mut unread), Ok(1..)) {
                break;
            }
        }
    }
}

fn group_name(group: NamedGroup) -> &'static str {
    match group {
        NamedGroup::X25519MLKEM768 => "X25519MLKEM768",
        NamedGroup::X25519 => "X25519",
        NamedGroup::secp256r1 => "P-256",
        NamedGroup::secp384r1 => "P-384",
        _ => "other",
    }
}
