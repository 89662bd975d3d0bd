//! How a peer's certificate is verified.
//!
//! One procedure for both sides: the path to a root by webpki (validity, EKU, basic constraints,
//! name constraints, CRLs), then the names in the leaf by [`Leaf`] and [`SanMatch`]. Host names are
//! not checked unless a matcher does: in a mesh the service account is the identity, not the
//! address.

use std::fmt;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, OtherError, SignatureScheme,
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use webpki::{EndEntityCert, ExpirationPolicy, KeyUsage, RevocationOptionsBuilder};

use super::leaf::{Leaf, LeafError, PeerRole, unusable_issuer};
use super::material::{Roots, TrustBundle};
use super::refusal;
use super::san::SanMatch;
use super::untrusted::Untrusted;
use super::verified_chains;
use super::verified_chains::VerifiedChains;

/// Certificates a peer may send besides its leaf; the bound limits the CPU time of path building.
const DEFAULT_MAX_INTERMEDIATES: usize = 5;

/// Rules for a peer beyond a path to a root.
#[derive(Clone, Debug)]
pub struct PeerRules {
    /// Any of them; empty: any name.
    pub sans: Vec<SanMatch>,
    /// Certificates allowed between leaf and root.
    pub max_intermediates: usize,
}

impl Default for PeerRules {
    fn default() -> Self {
        PeerRules {
            sans: Vec::new(),
            max_intermediates: DEFAULT_MAX_INTERMEDIATES,
        }
    }
}

/// Verifies a chain as `role` at the time `now`.
///
/// # Errors
/// With rustls' own errors, so that the peer receives the right alert.
pub(super) fn verify(
    trust: &TrustBundle,
    rules: &PeerRules,
    role: PeerRole,
    leaf: &CertificateDer<'_>,
    intermediates: &[CertificateDer<'_>],
    now: UnixTime,
) -> Result<Leaf, Error> {
    if intermediates.len() > rules.max_intermediates {
        return Err(refused(LeafError::ChainTooLong(
            intermediates.len().saturating_add(1),
        )));
    }
    let names = Leaf::parse(leaf).map_err(refused)?;
    let roots = roots_for(trust, &names).map_err(refused)?;
    let cert = EndEntityCert::try_from(leaf).map_err(|e| path_error(&e, leaf, intermediates))?;
    if roots.is_root(leaf) && trust.crls.is_empty() {
        // As in Envoy: the peer shows what is trusted itself, so there is no path to look for.
        names.holds(role, now).map_err(Error::InvalidCertificate)?;
        return expected(rules, names);
    }
    let lists: Vec<_> = trust.crls.iter().collect();
    let revocation = RevocationOptionsBuilder::new(&lists).ok().map(|options| {
        options
            .with_expiration_policy(ExpirationPolicy::Enforce)
            .build()
    });
    let usage = match role {
        PeerRole::Client => KeyUsage::client_auth(),
        PeerRole::Server => KeyUsage::server_auth(),
    };
    let algorithms = algorithms();
    let verify = |anchors| {
        cert.verify_for_usage(
            algorithms.all,
            anchors,
            intermediates,
            now,
            usage,
            revocation,
            None,
        )
        .map(|_| ())
    };
    verify(&roots.anchors[..]).map_err(|e| path_error(&e, leaf, intermediates))?;
    expected(rules, names)
}

/// `names` if they are among those that `rules` expect.
fn expected(rules: &PeerRules, names: Leaf) -> Result<Leaf, Error> {
    if !rules.sans.is_empty() && !rules.sans.iter().any(|san| san.matches(&names)) {
        return Err(refused(LeafError::NoSanMatch));
    }
    Ok(names)
}

fn roots_for<'a>(trust: &'a TrustBundle, leaf: &Leaf) -> Result<&'a Roots, LeafError> {
    let domain = match trust.wants_spiffe() {
        // One set of roots, by construction.
        false => None,
        true => Some(
            leaf.spiffe
                .as_ref()
                .ok_or(LeafError::NoSpiffeId)?
                .trust_domain(),
        ),
    };
    let mut roots = trust.domains.iter();
    roots
        .find(|roots| roots.domain.as_deref() == domain)
        .ok_or_else(|| LeafError::TrustDomain(domain.unwrap_or_default().into()))
}

fn refused(error: LeafError) -> Error {
    let inner = match error {
        LeafError::Encoding => CertificateError::BadEncoding,
        other => CertificateError::Other(OtherError(Arc::new(other))),
    };
    Error::InvalidCertificate(inner)
}

/// webpki's errors as rustls spells them: the variant chooses the alert.
fn path_error(
    error: &webpki::Error,
    leaf: &CertificateDer<'_>,
    intermediates: &[CertificateDer<'_>],
) -> Error {
    use webpki::Error as E;
    // To webpki a signature of a key that is too small is just not valid.
    if let E::InvalidSignatureForPublicKey | E::UnsupportedCertVersion = error
        && let Some(issuer) = unusable_issuer(intermediates.iter().map(|der| &der[..]))
    {
        return refused(issuer);
    }
    if let Some(untrusted) = Untrusted::because(error, leaf) {
        let inner = CertificateError::Other(OtherError(Arc::new(untrusted)));
        return Error::InvalidCertificate(inner);
    }
    let inner = match error {
        E::BadDer | E::BadDerTime | E::TrailingData(_) => CertificateError::BadEncoding,
        E::CertExpired { time, not_after } => CertificateError::ExpiredContext {
            time: *time,
            not_after: *not_after,
        },
        E::InvalidCertValidity => CertificateError::Expired,
        E::CertNotValidYet { time, not_before } => CertificateError::NotValidYetContext {
            time: *time,
            not_before: *not_before,
        },
        E::CertRevoked => CertificateError::Revoked,
        E::UnknownRevocationStatus => CertificateError::UnknownRevocationStatus,
        E::CrlExpired { .. } => CertificateError::ExpiredRevocationList,
        E::InvalidSignatureForPublicKey => CertificateError::BadSignature,
        E::RequiredEkuNotFoundContext(_) => CertificateError::InvalidPurpose,
        other => CertificateError::Other(OtherError(Arc::new(other.clone()))),
    };
    Error::InvalidCertificate(inner)
}

fn algorithms() -> WebPkiSupportedAlgorithms {
    super::provider::provider().signature_verification_algorithms
}

/// rustls' verifier interface, for one bundle.
pub(super) struct Verifier {
    pub(super) role: PeerRole,
    /// `None`: certificates are not checked at all (Envoy's default without a validation context).
    pub(super) trust: Option<Arc<TrustBundle>>,
    pub(super) rules: Arc<PeerRules>,
    /// Servers: whether a client without a certificate is rejected.
    pub(super) mandatory: bool,
    pub(super) verified_chains: VerifiedChains,
}

impl Verifier {
    /// Leaves the name of a certificate that is refused with [`refusal`].
    fn check(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), Error> {
        self.check_chain(leaf, intermediates, now)
            .inspect_err(|_| refusal::note(leaf))
    }

    fn check_chain(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), Error> {
        let Some(trust) = &self.trust else {
            return Ok(());
        };
        let chain = || std::iter::once(leaf).chain(intermediates);
        if !trust.crls.is_empty() || intermediates.len() > self.rules.max_intermediates {
            return verify(trust, &self.rules, self.role, leaf, intermediates, now).map(drop);
        }
        let digest = verified_chains::digest(chain());
        if !self.verified_chains.contains(&digest, now) {
            verify(trust, &self.rules, self.role, leaf, intermediates, now)?;
            self.verified_chains.remember(digest, chain());
        }
        Ok(())
    }
}

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Verifier")
            .field("role", &self.role)
            .finish_non_exhaustive()
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.check(leaf, intermediates, now)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &algorithms())
            .inspect_err(|_| refusal::note(cert))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &algorithms())
            .inspect_err(|_| refusal::note(cert))
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        algorithms().supported_schemes()
    }
}

impl ClientCertVerifier for Verifier {
    fn client_auth_mandatory(&self) -> bool {
        self.mandatory
    }

    /// No hints: in a mesh both sides know which certificate is meant, and hints cost bytes.
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.check(leaf, intermediates, now)?;
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &algorithms())
            .inspect_err(|_| refusal::note(cert))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &algorithms())
            .inspect_err(|_| refusal::note(cert))
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        algorithms().supported_schemes()
    }
}
