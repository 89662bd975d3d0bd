//! The mesh's certificate authority.
//!
//! - [`identity`](crate::identity): SPIFFE ids of workloads, and the identity of a connection's peer.
//! - [`private`]: files that only we may read.
//! - [`authority`]: what signs, and with which lifetimes; [`root`]: its key and certificates, made or
//!   read; [`csr`] checks requests before that.
//! - [`token`]: join tokens; [`used`] records those that were used. [`pod_token`]: service-account
//!   tokens in their place, in a cluster; [`refusals`] limits how often they are refused.
//! - [`serving`]: our own certificate and the TLS settings of the gRPC port.
//! - [`service`] serves `istio.v1.auth.IstioCertificateService`.
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

pub mod authority;
pub mod csr;
pub mod pod_token;
pub mod private;
pub mod refusals;
pub mod root;
pub mod service;
pub mod serving;
pub mod token;
pub mod used;

#[cfg(test)]
mod tests;

pub use crate::identity::{Identity, Peer, VerifiedPeer};
pub use authority::Authority;

use std::path::PathBuf;

/// Why the CA can't start, sign or record a used token.
#[derive(Debug, thiserror::Error)]
pub enum CaError {
    #[error("{path}: {source}", path = path.display())]
    Io {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error(
        "{path} may be read or changed by others (mode {mode:o}); it holds private keys: \
         run `chmod {wanted:o} {path}`, and make a new root if others had access",
        path = path.display()
    )]
    Loose {
        path: PathBuf,
        mode: u32,
        wanted: u32,
    },
    #[error(
        "{path} belongs to user {owner}, not to us ({us}); start as that user or give it to us",
        path = path.display()
    )]
    Owner { path: PathBuf, owner: u32, us: u32 },
    #[error("{path}: {why}; restore it from a copy, or remove the folder to make a new root", path = path.display())]
    Damaged { path: PathBuf, why: String },
    #[error("{part}: {why}")]
    Pem { part: root::CaPart, why: String },
    #[error("signing a certificate failed: {0}")]
    Signing(String),
    #[error("`{0}` is no trust domain: use a-z 0-9 . - _, at most 255 bytes")]
    TrustDomain(String),
    #[error("TLS settings: {0}")]
    Tls(String),
}
