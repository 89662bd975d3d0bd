//! Secrets: certificates with their keys, and trust bundles.

use std::sync::Arc;

use super::Name;
use crate::tls::{Identity, TrustBundle};

/// envoy.extensions.transport_sockets.tls.v3.Secret, parsed and checked.
pub struct Secret {
    pub name: Name,
    pub value: SecretValue,
}

#[derive(Clone)]
pub enum SecretValue {
    /// Certificate chain and key.
    Certificate(Arc<Identity>),
    /// Roots, CRLs, trust domain.
    Validation(Arc<TrustBundle>),
}
