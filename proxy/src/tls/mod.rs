//! TLS: contexts, identities, the stream.

/// Certificate chain and key.
pub struct Identity {}
/// Roots, CRLs and the trust domain they speak for.
pub struct TrustBundle {}
/// Accepts TLS.
pub struct ServerContext {}
/// Dials TLS.
pub struct ClientContext {}
