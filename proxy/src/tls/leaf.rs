//! The content of a certificate: names, dates, uses.

use std::time::{Duration, SystemTime};

use rustls::CertificateError;
use rustls_pki_types::UnixTime;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate, X509Version};
use x509_parser::public_key::PublicKey;

use super::identity::{SpiffeError, SpiffeId};
use super::refusal::name_of;

/// Of smaller keys no signature is accepted.
const MIN_RSA_BITS: usize = 2048;

/// Which side of a handshake is verified.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum PeerRole {
    Client,
    Server,
}

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
    #[error("it is of X.509 version {0}: TLS needs version 3, which a CA writes with extensions")]
    Version(u32),
    #[error("its RSA key has {0} bits: make one of at least {MIN_RSA_BITS}, or of ECDSA P-256")]
    WeakKey(usize),
    #[error("the certificate {0:?} of its issuer cannot be used: {1}")]
    Issuer(String, Box<LeafError>),
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
    /// The uses that it is restricted to.
    uses: Vec<PeerRole>,
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
        check_version(&cert)?;
        check_key(&cert)?;
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
            uses: uses(&cert)?,
        })
    }

    /// Checks a self-signed root that a peer uses as its leaf: validity and key usage.
    pub(super) fn holds(&self, role: PeerRole, now: UnixTime) -> Result<(), CertificateError> {
        let (not_before, not_after) = (unix(self.not_before), unix(self.not_after));
        match () {
            () if now < not_before => Err(CertificateError::NotValidYetContext {
                time: now,
                not_before,
            }),
            () if now > not_after => Err(CertificateError::ExpiredContext {
                time: now,
                not_after,
            }),
            () if !self.uses.contains(&role) => Err(CertificateError::InvalidPurpose),
            () => Ok(()),
        }
    }
}

/// Converts seconds since the epoch, as certificates have them.
fn time_from_unix(seconds: i64) -> SystemTime {
    let after = Duration::from_secs(u64::try_from(seconds).unwrap_or(0));
    let time = SystemTime::UNIX_EPOCH.checked_add(after);
    time.unwrap_or(SystemTime::UNIX_EPOCH)
}

/// # Errors
/// [`LeafError::Version`].
fn check_version(cert: &X509Certificate<'_>) -> Result<(), LeafError> {
    match cert.version() {
        X509Version::V3 => Ok(()),
        old => Err(LeafError::Version(old.0.saturating_add(1))),
    }
}

/// # Errors
/// [`LeafError::WeakKey`].
fn check_key(cert: &X509Certificate<'_>) -> Result<(), LeafError> {
    match cert.public_key().parsed() {
        Ok(PublicKey::RSA(key)) if key.key_size() < MIN_RSA_BITS => {
            Err(LeafError::WeakKey(key.key_size()))
        }
        _ => Ok(()),
    }
}

/// A root may be of version 1, as webpki takes it, but its key must be one whose signatures are
/// accepted: with a smaller one no peer of this root would ever be, and each for a reason that looks
/// like the peer's own fault.
///
/// # Errors
/// [`LeafError::WeakKey`].
pub(super) fn check_root(der: &[u8]) -> Result<(), LeafError> {
    // What only webpki can parse, it judges alone.
    X509Certificate::from_der(der).map_or(Ok(()), |(_, cert)| check_key(&cert))
}

/// The first of a chain's intermediate certificates that no path can use, if there is one.
pub(super) fn unusable_issuer<'a>(
    intermediates: impl IntoIterator<Item = &'a [u8]>,
) -> Option<LeafError> {
    intermediates.into_iter().find_map(|der| {
        let (_, cert) = X509Certificate::from_der(der).ok()?;
        let fault = check_version(&cert).and_then(|()| check_key(&cert)).err()?;
        Some(LeafError::Issuer(name_of(der), Box::new(fault)))
    })
}

/// Clamps times before 1970 to 0.
fn unix(time: SystemTime) -> UnixTime {
    let since = time.duration_since(SystemTime::UNIX_EPOCH);
    UnixTime::since_unix_epoch(since.unwrap_or_default())
}

/// By the extended key usage (RFC 5280, 4.2.1.12); without one there is no restriction.
fn uses(cert: &X509Certificate<'_>) -> Result<Vec<PeerRole>, LeafError> {
    let usage = cert.extended_key_usage().map_err(|_| LeafError::Encoding)?;
    let roles = [PeerRole::Client, PeerRole::Server].into_iter();
    let allowed = |role: &PeerRole| {
        usage.as_ref().is_none_or(|usage| match role {
            PeerRole::Client => usage.value.client_auth,
            PeerRole::Server => usage.value.server_auth,
        })
    };
    Ok(roles.filter(allowed).collect())
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
