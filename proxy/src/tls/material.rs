//! What a TLS context is made of: an identity (chain and key) and a trust bundle, parsed and
//! checked once, and [`Rotating`], the slot in which a newer one replaces it without a restart.

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use arc_swap::ArcSwapOption;
use rustls::sign::{CertifiedKey, SigningKey};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer, TrustAnchor};
use webpki::{CertRevocationList, OwnedCertRevocationList};

use super::identity::{SpiffeId, is_trust_domain};
use super::leaf::{Leaf, check_root};
use super::provider::provider;
use super::refusal::name_of;

/// Why certificates, keys or CRLs cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum MaterialError {
    #[error("{what} is not valid PEM: {why}")]
    Pem { what: &'static str, why: String },
    #[error("{0} holds no certificate")]
    NoCertificate(&'static str),
    #[error("certificate {index} of {what}, {name:?}: {why}")]
    Certificate {
        what: &'static str,
        /// From 0.
        index: usize,
        /// Its subject, or what else identifies it.
        name: String,
        why: String,
    },
    #[error(
        "the private key is encrypted: write it without a passphrase \
         (openssl pkey -in encrypted.pem -out key.pem) and keep the file from other users"
    )]
    EncryptedKey,
    #[error("the private key cannot be used: {0}")]
    Key(String),
    #[error("the private key does not belong to the certificate")]
    KeyMismatch,
    #[error("CRL {index}: {why}")]
    Crl { index: usize, why: String },
    #[error("`{0}` is not a trust domain")]
    TrustDomain(String),
}

/// A value that can be replaced while connections that began with the old one stay open.
///
/// Empty until the first value arrives (from SDS or a CSR); contexts refuse handshakes until then.
pub struct Rotating<T>(ArcSwapOption<T>);

impl<T> Rotating<T> {
    pub fn new(first: Option<Arc<T>>) -> Arc<Self> {
        Arc::new(Rotating(ArcSwapOption::new(first)))
    }

    pub fn set(&self, next: Arc<T>) {
        self.0.store(Some(next));
    }

    pub fn load(&self) -> Option<Arc<T>> {
        self.0.load_full()
    }

    /// Whether `value` is still the current one. Costs two atomic operations.
    pub fn is_current(&self, value: &Arc<T>) -> bool {
        self.0
            .load()
            .as_ref()
            .is_some_and(|now| Arc::ptr_eq(now, value))
    }
}

impl<T> fmt::Debug for Rotating<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.load().is_some() {
            "Rotating(set)"
        } else {
            "Rotating(empty)"
        })
    }
}

/// Certificate chain and key of this side.
#[derive(Debug)]
pub struct Identity {
    certified: Arc<CertifiedKey>,
    leaf: Leaf,
}

impl Identity {
    /// From PEM: the leaf first, then its issuers; the key as PKCS#8, SEC1 or PKCS#1.
    ///
    /// # Errors
    /// When either cannot be parsed, the key type is not supported, or they do not belong
    /// together.
    pub fn from_pem(chain: &[u8], key: &[u8]) -> Result<Self, MaterialError> {
        if is_encrypted(key) {
            return Err(MaterialError::EncryptedKey);
        }
        let key =
            PrivateKeyDer::from_pem_slice(key).map_err(|e| MaterialError::Key(e.to_string()))?;
        Self::from_der(certificates("the certificate chain", chain)?, key)
    }

    /// From DER; see [`Self::from_pem`].
    ///
    /// # Errors
    /// As [`Self::from_pem`].
    pub fn from_der(
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
    ) -> Result<Self, MaterialError> {
        const WHAT: &str = "the certificate chain";
        let leaf = chain.first().ok_or(MaterialError::NoCertificate(WHAT))?;
        let leaf = Leaf::parse(leaf).map_err(|why| unusable(WHAT, 0, leaf, &why))?;
        let key: Arc<dyn SigningKey> = provider()
            .key_provider
            .load_private_key(key)
            .map_err(|e| MaterialError::Key(e.to_string()))?;
        let certified = CertifiedKey::new(chain, key);
        match certified.keys_match() {
            Ok(()) => {}
            Err(rustls::Error::InconsistentKeys(rustls::InconsistentKeys::KeyMismatch)) => {
                return Err(MaterialError::KeyMismatch);
            }
            Err(why) => return Err(MaterialError::Key(why.to_string())),
        }
        Ok(Identity {
            certified: Arc::new(certified),
            leaf,
        })
    }

    pub(super) fn certified(&self) -> &Arc<CertifiedKey> {
        &self.certified
    }

    /// The SPIFFE id of the leaf, when it has one.
    pub fn spiffe_id(&self) -> Option<&SpiffeId> {
        self.leaf.spiffe.as_ref()
    }

    /// The chain as it is sent, the leaf first.
    pub fn chain(&self) -> &[CertificateDer<'static>] {
        &self.certified.cert
    }

    /// Serial number of the leaf, lower-case hex.
    pub fn serial(&self) -> &str {
        &self.leaf.serial
    }

    pub fn not_before(&self) -> SystemTime {
        self.leaf.not_before
    }

    pub fn not_after(&self) -> SystemTime {
        self.leaf.not_after
    }
}

/// A trust bundle: roots by trust domain, and revocation lists.
///
/// A bundle is never changed; a newer one replaces it (see [`Rotating`]). The `Arc` that holds it is
/// its generation: sessions and verification results belong to one bundle and do not outlive it.
#[derive(Debug)]
pub struct TrustBundle {
    pub(super) domains: Vec<Roots>,
    pub(super) crls: Vec<CertRevocationList<'static>>,
}

/// Where distributions keep the CA certificates that a system trusts: Debian, Alpine and our images; Fedora
/// and RHEL, also before 7; SUSE; others.
const SYSTEM_ROOTS: [&str; 5] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// The roots of one trust domain.
#[derive(Debug)]
pub(super) struct Roots {
    /// `None`: roots that are not bound to a trust domain.
    pub(super) domain: Option<Box<str>>,
    pub(super) anchors: Vec<TrustAnchor<'static>>,
    /// What the anchors were made of, in the same order.
    pub(super) certificates: Vec<CertificateDer<'static>>,
}

impl Roots {
    fn from_pem(domain: Option<Box<str>>, pem: &[u8]) -> Result<Self, MaterialError> {
        const WHAT: &str = "the trust bundle";
        let certificates = certificates(WHAT, pem)?;
        let mut roots = Roots {
            domain,
            anchors: Vec::new(),
            certificates: Vec::new(),
        };
        let mut too_weak = None;
        for (index, der) in certificates.into_iter().enumerate() {
            if let Err(why) = check_root(&der) {
                let why = unusable(WHAT, index, &der, &why);
                tracing::warn!(%why, "a root is left out");
                too_weak = Some(why);
                continue;
            }
            let anchor = webpki::anchor_from_trusted_cert(&der)
                .map_err(|why| unusable(WHAT, index, &der, &why))?;
            roots.anchors.push(anchor.to_owned());
            roots.certificates.push(der);
        }
        match too_weak {
            Some(why) if roots.anchors.is_empty() => Err(why),
            _ => Ok(roots),
        }
    }

    /// Whether this very certificate, byte for byte, is one of the roots. Where roots are bound to
    /// a trust domain it counts for nothing: the certificate of a SPIFFE workload is never a CA's
    /// (X509-SVID, 4.1).
    pub(super) fn is_root(&self, certificate: &CertificateDer<'_>) -> bool {
        self.domain.is_none() && self.certificates.iter().any(|root| root == certificate)
    }
}

impl TrustBundle {
    /// Roots for peers of any name, and CRLs, both PEM.
    ///
    /// # Errors
    /// When something cannot be parsed, or there is no root at all.
    pub fn from_pem(roots: &[u8], crls: Option<&[u8]>) -> Result<Self, MaterialError> {
        Ok(TrustBundle {
            domains: vec![Roots::from_pem(None, roots)?],
            crls: revocation_lists(crls)?,
        })
    }

    /// Roots (PEM) per trust domain: a peer must carry a SPIFFE id of one of these domains, and
    /// chain to a root of that very domain.
    ///
    /// # Errors
    /// As [`Self::from_pem`], and when a name is no trust domain.
    pub fn from_trust_domains<'a>(
        domains: impl IntoIterator<Item = (&'a str, &'a [u8])>,
        crls: Option<&[u8]>,
    ) -> Result<Self, MaterialError> {
        let domains = domains
            .into_iter()
            .map(|(name, roots)| {
                if !is_trust_domain(name) {
                    return Err(MaterialError::TrustDomain(name.into()));
                }
                Roots::from_pem(Some(name.into()), roots)
            })
            .collect::<Result<Vec<_>, _>>()?;
        if domains.is_empty() {
            return Err(MaterialError::NoCertificate("the trust bundle"));
        }
        Ok(TrustBundle {
            domains,
            crls: revocation_lists(crls)?,
        })
    }

    /// The CA certificates that the system trusts: those of the first file that distributions keep
    /// them in. Where there is none, no peer is trusted.
    pub fn system() -> Self {
        let mut roots = Roots {
            domain: None,
            anchors: Vec::new(),
            certificates: Vec::new(),
        };
        let pem = SYSTEM_ROOTS
            .iter()
            .find_map(|path| std::fs::read(path).ok());
        let pem = pem.unwrap_or_default();
        for der in CertificateDer::pem_slice_iter(&pem).flatten() {
            let usable = check_root(&der).is_ok();
            let anchor = webpki::anchor_from_trusted_cert(&der).map(|it| it.to_owned());
            if let (true, Ok(anchor)) = (usable, anchor) {
                roots.anchors.push(anchor);
                roots.certificates.push(der);
            }
        }
        if roots.anchors.is_empty() {
            let files = SYSTEM_ROOTS.join(", ");
            tracing::error!(
                "no CA certificates of the system in {files}: no peer is trusted by them"
            );
        }
        TrustBundle {
            domains: vec![roots],
            crls: Vec::new(),
        }
    }

    /// Whether a peer must have a SPIFFE id to be trusted.
    pub(super) fn wants_spiffe(&self) -> bool {
        self.domains.iter().any(|roots| roots.domain.is_some())
    }
}

fn unusable(
    what: &'static str,
    index: usize,
    der: &CertificateDer<'_>,
    why: &dyn fmt::Display,
) -> MaterialError {
    MaterialError::Certificate {
        what,
        index,
        name: name_of(der),
        why: why.to_string(),
    }
}

fn certificates(
    what: &'static str,
    pem: &[u8],
) -> Result<Vec<CertificateDer<'static>>, MaterialError> {
    let chain = CertificateDer::pem_slice_iter(pem)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|e| MaterialError::Pem {
            what,
            why: e.to_string(),
        })?;
    if chain.is_empty() {
        return Err(MaterialError::NoCertificate(what));
    }
    Ok(chain)
}

/// PKCS#8 (RFC 7468, 11) or as OpenSSL wrote it before (RFC 1421, 4.6.1.1).
fn is_encrypted(pem: &[u8]) -> bool {
    pem.split(|byte| *byte == b'\n').any(|line| {
        line.starts_with(b"-----BEGIN ENCRYPTED PRIVATE KEY")
            || line.starts_with(b"Proc-Type:") && line.trim_ascii_end().ends_with(b"ENCRYPTED")
    })
}

fn revocation_lists(pem: Option<&[u8]>) -> Result<Vec<CertRevocationList<'static>>, MaterialError> {
    let Some(pem) = pem else {
        return Ok(Vec::new());
    };
    let lists = CertificateRevocationListDer::pem_slice_iter(pem)
        .enumerate()
        .map(|(index, der)| {
            let broken = |why: String| MaterialError::Crl { index, why };
            let der = der.map_err(|e| broken(e.to_string()))?;
            OwnedCertRevocationList::from_der(&der)
                .map(CertRevocationList::from)
                .map_err(|e| broken(e.to_string()))
        })
        .collect::<Result<Vec<_>, _>>()?;
    if lists.is_empty() {
        // A CRL file without any CRL is an error: it must not count as "nothing revoked".
        return Err(MaterialError::Crl {
            index: 0,
            why: "no CRL found in PEM".into(),
        });
    }
    Ok(lists)
}
