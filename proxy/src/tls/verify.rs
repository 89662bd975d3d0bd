//! How a peer's certificate is verified.
//!
//! One procedure for both sides: the path to a root by webpki (validity, EKU, basic constraints,
//! name constraints, CRLs), then the names in the leaf by [`Leaf`] and [`SanMatch`]. Host names are
//! not checked unless a matcher does: in a mesh the service account is the identity, not the
//! address.

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, OtherError, SignatureScheme,
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use webpki::{EndEntityCert, ExpirationPolicy, KeyUsage, RevocationOptionsBuilder};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::identity::{SpiffeError, SpiffeId};
use super::material::{TrustBundle, time_from_unix};
use super::san::SanMatch;
use super::verified_chains;
use super::verified_chains::VerifiedChains;

/// Certificates a peer may send besides its leaf; the bound limits the CPU time of path building.
const DEFAULT_MAX_INTERMEDIATES: usize = 5;

/// Faults of a leaf certificate, apart from its path.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LeafError {
    #[error("the certificate cannot be parsed")]
    Encoding,
    #[error("a subject alternative name cannot be parsed or holds control characters")]
    Name,
    #[error("a DNS name looks like a SPIFFE id")]
    SpiffeAsDns,
    #[error("{0} URI names where a SPIFFE certificate has exactly one")]
    SeveralUris(usize),
    #[error("the SPIFFE id is not canonical: {0}")]
    Spiffe(SpiffeError),
    #[error("no SPIFFE id, but the trust bundle is bound to trust domains")]
    NoSpiffeId,
    #[error("trust domain `{0}` is not in the trust bundle")]
    TrustDomain(Box<str>),
    #[error("no subject alternative name matches what is expected of this peer")]
    NoSanMatch,
    #[error("{0} certificates in the chain are too many")]
    ChainTooLong(usize),
}

/// The names and dates of a leaf certificate.
#[derive(Debug)]
pub(super) struct Leaf {
    pub(super) spiffe: Option<SpiffeId>,
    pub(super) serial: Box<str>,
    pub(super) not_before: SystemTime,
    pub(super) not_after: SystemTime,
    pub(super) uris: Vec<Box<str>>,
    pub(super) dns: Vec<Box<str>>,
}

impl Leaf {
    /// # Errors
    /// When the certificate cannot be parsed, or has a name that parsers are known to read
    /// differently.
    pub(super) fn parse(der: &[u8]) -> Result<Self, LeafError> {
        let (rest, cert) = X509Certificate::from_der(der).map_err(|_| LeafError::Encoding)?;
        if !rest.is_empty() {
            return Err(LeafError::Encoding);
        }
        let (uris, dns) = names(&cert)?;
        let spiffe = spiffe_of(&uris)?;
        let serial: String = cert
            .raw_serial()
            .iter()
            .map(|b| format!("{b:02x}"))
            .collect();
        Ok(Leaf {
            spiffe,
            serial: serial.into(),
            not_before: time_from_unix(cert.validity().not_before.timestamp()),
            not_after: time_from_unix(cert.validity().not_after.timestamp()),
            uris,
            dns,
        })
    }
}

type Names = Vec<Box<str>>;

fn names(cert: &X509Certificate<'_>) -> Result<(Names, Names), LeafError> {
    let (mut uris, mut dns) = (Vec::new(), Vec::new());
    // Errors on a repeated extension: two SAN lists would be ambiguous.
    let san = cert
        .subject_alternative_name()
        .map_err(|_| LeafError::Encoding)?;
    for name in san.iter().flat_map(|san| &san.value.general_names) {
        match name {
            GeneralName::URI(uri) => uris.push(clean(uri)?),
            GeneralName::DNSName(name) if looks_like_spiffe(name) => {
                return Err(LeafError::SpiffeAsDns);
            }
            GeneralName::DNSName(name) => dns.push(clean(name)?),
            GeneralName::Invalid(..) => return Err(LeafError::Name),
            _ => {}
        }
    }
    Ok((uris, dns))
}

fn clean(name: &str) -> Result<Box<str>, LeafError> {
    match name.bytes().all(|b| b.is_ascii_graphic()) && !name.is_empty() {
        true => Ok(name.into()),
        false => Err(LeafError::Name),
    }
}

fn looks_like_spiffe(name: &str) -> bool {
    name.get(..7)
        .is_some_and(|head| head.eq_ignore_ascii_case("spiffe:"))
        || name.contains('/')
}

fn spiffe_of(uris: &[Box<str>]) -> Result<Option<SpiffeId>, LeafError> {
    let claims = uris.iter().any(|uri| looks_like_spiffe_uri(uri));
    match uris {
        _ if !claims => Ok(None),
        [uri] => SpiffeId::parse(uri).map(Some).map_err(LeafError::Spiffe),
        several => Err(LeafError::SeveralUris(several.len())),
    }
}

fn looks_like_spiffe_uri(uri: &str) -> bool {
    uri.get(..7)
        .is_some_and(|head| head.eq_ignore_ascii_case("spiffe:"))
}

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

/// Which side of a handshake is verified.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum PeerRole {
    Client,
    Server,
}

/// Verifies a chain as `role` at the time `now`.
///
/// # Errors
/// As rustls names them, so that the alert the peer gets is the right one.
pub(super) fn judge(
    trust: &TrustBundle,
    rules: &PeerRules,
    role: PeerRole,
    leaf: &CertificateDer<'_>,
    intermediates: &[CertificateDer<'_>],
    now: UnixTime,
) -> Result<Leaf, Error> {
    if intermediates.len() > rules.max_intermediates {
        return Err(refused(LeafError::ChainTooLong(intermediates.len() + 1)));
    }
    let names = Leaf::parse(leaf).map_err(refused)?;
    let roots = roots_for(trust, &names).map_err(refused)?;
    let cert = EndEntityCert::try_from(leaf).map_err(|e| path_error(&e))?;
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
    let judged = |anchors| {
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
    judged(roots).map_err(|e| path_error(&e))?;
    if !rules.sans.is_empty() && !rules.sans.iter().any(|san| san.matches(&names)) {
        return Err(refused(LeafError::NoSanMatch));
    }
    Ok(names)
}

fn roots_for<'a>(
    trust: &'a TrustBundle,
    leaf: &Leaf,
) -> Result<&'a [rustls_pki_types::TrustAnchor<'static>], LeafError> {
    if !trust.wants_spiffe() {
        // One set of roots, by construction.
        return Ok(trust
            .domains
            .first()
            .map_or(&[], |roots| &roots.anchors[..]));
    }
    let id = leaf.spiffe.as_ref().ok_or(LeafError::NoSpiffeId)?;
    trust
        .domains
        .iter()
        .find(|roots| roots.domain.as_deref() == Some(id.trust_domain()))
        .map(|roots| &roots.anchors[..])
        .ok_or_else(|| LeafError::TrustDomain(id.trust_domain().into()))
}

fn refused(error: LeafError) -> Error {
    let inner = match error {
        LeafError::Encoding => CertificateError::BadEncoding,
        LeafError::ChainTooLong(_) => CertificateError::UnknownIssuer,
        other => CertificateError::Other(OtherError(Arc::new(other))),
    };
    Error::InvalidCertificate(inner)
}

/// webpki's errors as rustls spells them: the variant chooses the alert.
fn path_error(error: &webpki::Error) -> Error {
    use webpki::Error as E;
    let inner = match error {
        E::BadDer | E::BadDerTime | E::TrailingData(_) => CertificateError::BadEncoding,
        E::CertExpired { .. } | E::InvalidCertValidity => CertificateError::Expired,
        E::CertNotValidYet { .. } => CertificateError::NotValidYet,
        E::CertRevoked => CertificateError::Revoked,
        E::UnknownIssuer => CertificateError::UnknownIssuer,
        E::UnknownRevocationStatus => CertificateError::UnknownRevocationStatus,
        E::CrlExpired { .. } => CertificateError::ExpiredRevocationList,
        E::InvalidSignatureForPublicKey => CertificateError::BadSignature,
        E::RequiredEkuNotFoundContext(_) => CertificateError::InvalidPurpose,
        other => CertificateError::Other(OtherError(Arc::new(other.clone()))),
    };
    Error::InvalidCertificate(inner)
}

fn algorithms() -> WebPkiSupportedAlgorithms {
    super::context::provider().signature_verification_algorithms
}

/// rustls' verifier interface, for one bundle.
pub(super) struct Verifier {
    pub(super) role: PeerRole,
    /// `None`: certificates are not checked at all (Envoy's default without a validation context).
    pub(super) trust: Option<Arc<TrustBundle>>,
    pub(super) rules: Arc<PeerRules>,
    /// Servers: whether a client without a certificate is rejected.
    pub(super) mandatory: bool,
    pub(super) judged: VerifiedChains,
}

impl Verifier {
    fn check(
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
            return judge(trust, &self.rules, self.role, leaf, intermediates, now).map(drop);
        }
        let digest = verified_chains::digest(chain());
        if !self.judged.knows(&digest, now) {
            judge(trust, &self.rules, self.role, leaf, intermediates, now)?;
            self.judged.remember(digest, chain());
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
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &algorithms())
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
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &algorithms())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        algorithms().supported_schemes()
    }
}
