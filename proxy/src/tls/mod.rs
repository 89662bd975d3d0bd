//! TLS: contexts, identities, and the one stream type.
//!
//! - `identity`: SPIFFE ids and the identity of a peer
//! - `verify`: how a peer's certificate is judged
//! - `context`: certificates, trust bundles and the settings that accept and dial with them
//! - `handshake`: [`Handshaker`], per worker: accepts and connects, fairly
//! - `stream`: [`TlsStream`], rustls' unbuffered state machine on a socket

mod identity;
mod stream;

use std::time::SystemTime;

pub use identity::{PeerIdentity, SpiffeError, SpiffeId};
pub use stream::TlsStream;

/// Certificate chain and key.
pub struct Identity {}
/// Roots, CRLs and the trust domain they speak for.
pub struct TrustBundle {}
/// Accepts TLS.
pub struct ServerContext {}
/// Dials TLS.
pub struct ClientContext {}

/// What a handshake established.
#[derive(Clone, Debug)]
pub struct ConnectionInfo {
    /// `TLSv1.3` or `TLSv1.2`, as Envoy's `%DOWNSTREAM_TLS_VERSION%` spells it.
    pub version: &'static str,
    /// IANA name of the cipher suite.
    pub cipher: &'static str,
    /// Name of the key exchange group; `None` where a resumption had none.
    pub group: Option<&'static str>,
    pub alpn: Option<Box<[u8]>>,
    /// The name the client asked for, lower case.
    pub sni: Option<Box<str>>,
    /// The verified SPIFFE identity; `None` without a (verified) peer certificate, or when it
    /// carries no SPIFFE id.
    pub peer: Option<PeerIdentity>,
    /// The peer sent a certificate and it was verified.
    pub peer_verified: bool,
    pub resumed: bool,
    /// Serial number of the peer's certificate, lower-case hex.
    pub peer_cert_serial: Option<Box<str>>,
    /// When the peer's certificate ends.
    pub not_after: Option<SystemTime>,
}
