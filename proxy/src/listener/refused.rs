//! Why a connection was closed before any path served it.

use crate::tls::PeerIdentity;

/// Why a connection was closed before any path served it.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refused {
    #[error("the client went away")]
    Gone,
    #[error("the control plane does not answer, and the destination was never seen")]
    Unknown,
    #[error("the client sent nothing in time")]
    Silent,
    #[error("no filter chain matches")]
    NoChain,
    #[error("CONNECT: {0}")]
    Tunnel(&'static str),
    #[error("TLS handshake: {0}")]
    Tls(String),
    #[error("refused by policy {by}")]
    Denied {
        by: Box<str>,
        /// The peer's verified identity, if any.
        peer: Option<PeerIdentity>,
    },
}
