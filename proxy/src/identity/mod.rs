//! The proxy's own certificate: the key is generated here, the certificate obtained by CSR and
//! renewed at half-life.
//!
//! - `token`: tokens for the first certificate; `csr`: key and signing request; `pin`: how the CA's
//!   certificate is verified; `ca`: the call to the CA
//! - `store`: key, certificate and bundle on disk, so that a restart works
//! - `schedule`: when to renew and to retry, and whether the clock is plausible (no I/O)
//! - `agent`: the loop that ties them together and publishes to the TLS contexts
//!
//! A renewal replaces the certificate of the next handshake; open connections are not affected.
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

pub mod agent;
mod ca;
mod csr;
mod pin;
mod schedule;
mod store;
mod token;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::tls::{Identity, MaterialError, Rotating, TrustBundle};

/// The slots into which certificate and bundle are written.
#[derive(Clone)]
pub struct Slots {
    /// The static secret `default`.
    pub identity: Arc<Rotating<Identity>>,
    /// The static secret `ROOTCA`.
    pub trust: Arc<Rotating<TrustBundle>>,
}

impl Slots {
    pub fn empty() -> Self {
        Slots {
            identity: Rotating::new(None),
            trust: Rotating::new(None),
        }
    }
}

/// The certificate to request (anyam.bootstrap.v1.Identity, checked).
#[derive(Clone, Debug)]
pub struct IdentitySettings {
    pub spiffe_id: crate::tls::SpiffeId,
    pub token_file: Option<std::path::PathBuf>,
    /// The CA's roots; `None`: the join token has the hash of its root.
    pub ca_file: Option<std::path::PathBuf>,
    pub state_dir: std::path::PathBuf,
    /// `None`: the CA's default.
    pub ttl: Option<Duration>,
}

/// Key, certificate and bundle, PEM.
#[derive(Clone, PartialEq, Eq)]
pub struct Material {
    pub key: String,
    /// The leaf first, without the root.
    pub chain: String,
    pub roots: String,
}

impl Material {
    /// # Errors
    /// When something cannot be parsed or does not belong together.
    fn parse(&self, trust_domain: &str) -> Result<(Identity, TrustBundle), MaterialError> {
        let identity = Identity::from_pem(self.chain.as_bytes(), self.key.as_bytes())?;
        let domains = [(trust_domain, self.roots.as_bytes())];
        Ok((identity, TrustBundle::from_trust_domains(domains, None)?))
    }
}

impl std::fmt::Debug for Material {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Material")
            .field("chain", &self.chain)
            .field("roots", &self.roots)
            .finish_non_exhaustive()
    }
}

/// The certificate's state, for admin and metrics.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CertificateStatus {
    /// Lower-case hex; empty before the first certificate.
    pub serial: String,
    pub not_before: Option<SystemTime>,
    pub not_after: Option<SystemTime>,
    /// PEM, for `/certs`.
    pub chain: String,
    pub roots: String,
    /// Certificates received since start.
    pub renewals: u64,
    /// Why the last attempt failed; `None` after a success.
    pub error: Option<String>,
    /// Why the clock cannot be right.
    pub clock: Option<String>,
}
