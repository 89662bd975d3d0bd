//! TLS: contexts, identities, and the one stream type.
//!
//! - `identity`: SPIFFE ids and the identity of a peer
//! - `material`: certificates, keys, trust bundles, and how they are replaced
//! - `leaf`: the content of a certificate
//! - `verify`: verification of a peer's certificate; `san`: which of its names are accepted;
//!   `verified_chains`: a cache of chains that were verified
//! - `untrusted`: explains why a chain leads to no root; `refusal`: the name of a certificate that was
//!   refused
//! - `context`: the settings that a listener accepts and a cluster dials with; `provider`: its cryptography
//! - `hello`: SNI and ALPN of a ClientHello
//! - `handshake`: [`Handshaker`], per worker: accepts and connects, fairly
//! - `peers`: their certificates, one copy each
//! - `live`: verifies connections again when a trust bundle was replaced
//! - `session`, `wire`, `outgoing`, `stream`: rustls' unbuffered state machine, its record buffers,
//!   and [`TlsStream`] on top
//! - `error`: what can fail, and which side caused it
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

mod context;
mod error;
mod handshake;
pub mod hello;
mod identity;
mod leaf;
mod live;
mod material;
mod outgoing;
mod peers;
mod provider;
pub(crate) mod refusal;
mod san;
mod session;
mod stream;
mod untrusted;
mod verified_chains;
mod verify;
mod wire;

use std::sync::Arc;

pub use context::{
    ClientContext, ClientOptions, ServerContext, ServerOptions, TlsVersion, Versions,
};
pub use error::{ConnectionLost, TlsError};
pub use handshake::{Dial, Handshaker, STEPS_PER_PASS};
pub use identity::{PeerIdentity, SpiffeError, SpiffeId};
pub use leaf::LeafError;
pub use material::{Identity, MaterialError, Rotating, TrustBundle};
pub use peers::PeerCertificate;
pub use provider::{provider, warm_up};
pub use san::SanMatch;
pub use stream::TlsStream;
pub use verify::PeerRules;

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
    /// The client's SNI, lower case.
    pub sni: Option<Box<str>>,
    /// The verified SPIFFE identity; `None` without a (verified) peer certificate, or when it
    /// carries no SPIFFE id.
    pub peer: Option<PeerIdentity>,
    /// The peer sent a certificate and it was verified.
    pub peer_verified: bool,
    pub resumed: bool,
    /// Of a verified peer.
    pub peer_certificate: Option<Arc<PeerCertificate>>,
}

impl ConnectionInfo {
    /// Whether the peer has an identity of the mesh.
    pub fn is_authenticated(&self) -> bool {
        self.peer.is_some()
    }
}
