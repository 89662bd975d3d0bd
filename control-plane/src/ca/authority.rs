//! What signs certificates: a root, self-made or given, or an intermediate below one.

use std::net::IpAddr;
use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use aws_lc_rs::digest;
use rcgen::{
    CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PublicKeyData, SanType, SerialNumber, SubjectPublicKeyInfo,
};
use rustls::RootCertStore;
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::server::WebPkiClientVerifier;
use rustls_pki_types::{CertificateDer, UnixTime};
use time::OffsetDateTime;

use super::root::{self, CaMaterial, CaPart, CaPem};
use super::{CaError, csr, private};
use crate::identity::subject_name;
use crate::identity::{Identity, is_trust_domain};
use crate::text::hex;

/// Clocks in a mesh differ a little; a certificate must be good on the machine that is behind.
pub(super) const BACKDATE: Duration = Duration::from_secs(60);
/// Below this a proxy would renew without pause.
const MIN_LIFETIME: Duration = Duration::from_secs(10);

/// How long workload certificates last.
#[derive(Clone, Copy, Debug)]
pub struct Lifetimes {
    pub default: Duration,
    /// The longest lifetime that a proxy may request.
    pub max: Duration,
}

impl Default for Lifetimes {
    fn default() -> Self {
        let day = Duration::from_secs(24 * 3600);
        Lifetimes {
            default: day,
            max: day,
        }
    }
}

/// A root, what signs below it, and the trust domain they stand for.
pub struct Authority {
    root: CertificateDer<'static>,
    root_pem: String,
    trust_domain: String,
    lifetimes: Lifetimes,
    signer: RwLock<Arc<Signer>>,
}

/// The key that signs, which may be replaced below the same root.
struct Signer {
    issuer: Issuer<'static, KeyPair>,
    /// Certificates that a peer needs to get from a leaf to the root.
    intermediates: Vec<CertificateDer<'static>>,
    not_after: OffsetDateTime,
}

/// A signed certificate with its chain.
#[derive(Clone, Debug)]
pub struct Issued {
    pub certificate: CertificateDer<'static>,
    /// PEM: the leaf, intermediates if there are any, the root.
    pub chain: Vec<String>,
    /// The same in DER, as TLS sends it. The root is part of it: a sidecar that joins has no bundle
    /// yet, and recognises the root by its hash.
    pub sent: Vec<CertificateDer<'static>>,
    pub not_after: OffsetDateTime,
    /// Lower-case hex.
    pub serial: String,
}

impl Authority {
    /// Reads `root.key` and `root.crt` of `directory`, or makes them when neither is there.
    ///
    /// # Errors
    /// When the folder or a file is open to others, damaged, or of another trust domain.
    pub fn open(
        directory: &Path,
        trust_domain: &str,
        lifetimes: Lifetimes,
    ) -> Result<Self, CaError> {
        if !is_trust_domain(trust_domain) {
            return Err(CaError::TrustDomain(trust_domain.to_owned()));
        }
        private::directory(directory)?;
        // Two that start at once must not make two roots.
        let lock = private::append(&directory.join("lock"))?;
        lock.lock().map_err(|source| CaError::Io {
            path: directory.join("lock"),
            source,
        })?;
        let (key_path, root_path) = (directory.join("root.key"), directory.join("root.crt"));
        let damaged = |path: &Path, why: String| CaError::Damaged {
            path: path.to_owned(),
            why,
        };
        let text = |path: &Path, content: Vec<u8>| {
            String::from_utf8(content).map_err(|error| damaged(path, error.to_string()))
        };
        let pem = match (private::read(&key_path)?, private::read(&root_path)?) {
            (Some(key), Some(root)) => CaPem {
                key: text(&key_path, key)?,
                certificates: text(&root_path, root)?,
                root: None,
            },
            (None, None) => {
                let made = root::make(trust_domain)?;
                private::write(&key_path, made.key.as_bytes())?;
                private::write(&root_path, made.certificates.as_bytes())?;
                made
            }
            (Some(_), None) => return Err(damaged(&root_path, "missing beside root.key".into())),
            (None, Some(_)) => return Err(damaged(&key_path, "missing beside root.crt".into())),
        };
        Self::from_pem(&pem, trust_domain, lifetimes).map_err(|error| match error {
            CaError::Pem { part, why } => match part {
                CaPart::Key => damaged(&key_path, why),
                CaPart::Certificates | CaPart::Root => damaged(&root_path, why),
            },
            other => other,
        })
    }

    /// # Errors
    /// [`CaError::Pem`] when a part is missing, damaged, over, of another trust domain, or does not
    /// belong to the others; [`CaError::TrustDomain`].
    pub fn from_pem(
        pem: &CaPem,
        trust_domain: &str,
        lifetimes: Lifetimes,
    ) -> Result<Self, CaError> {
        if !is_trust_domain(trust_domain) {
            return Err(CaError::TrustDomain(trust_domain.to_owned()));
        }
        let material = pem.read(trust_domain)?;
        let root = material.root.clone();
        let authority = Authority {
            root_pem: root::pem(&root),
            trust_domain: trust_domain.to_owned(),
            lifetimes,
            signer: RwLock::new(Arc::new(Signer::new(material)?)),
            root,
        };
        authority.verify(&authority.signer())?;
        Ok(authority)
    }

    /// Signs with another key from now on: an intermediate that was renewed. What was signed before
    /// stays good, because the root is the same.
    ///
    /// # Errors
    /// As [`Self::from_pem`], and when the root is another one. Then nothing changes.
    pub fn replace(&self, pem: &CaPem) -> Result<(), CaError> {
        let material = pem.read(&self.trust_domain)?;
        if material.root != self.root {
            let why = "is another one than that of the certificates in use".to_owned();
            let part = CaPart::Root;
            return Err(CaError::Pem { part, why });
        }
        let signer = Arc::new(Signer::new(material)?);
        self.verify(&signer)?;
        *self.signer.write().unwrap_or_else(PoisonError::into_inner) = signer;
        Ok(())
    }

    fn signer(&self) -> Arc<Signer> {
        let signer = self.signer.read().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(&signer)
    }

    /// Whether peers accept what `signer` signs, found by verifying such a certificate as they do:
    /// signatures, names, usages, the length of the path.
    fn verify(&self, signer: &Signer) -> Result<(), CaError> {
        let (_, issued) = self.issue_by(signer, &[])?;
        let verified = || {
            let mut roots = RootCertStore::empty();
            roots.add(self.root.clone()).map_err(|e| e.to_string())?;
            let provider = Arc::new(default_provider());
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
                .build()
                .map_err(|e| e.to_string())?;
            verifier
                .verify_client_cert(&issued.certificate, &signer.intermediates, UnixTime::now())
                .map_err(|e| e.to_string())
        };
        verified().map(|_| ()).map_err(|error| CaError::Pem {
            part: CaPart::Certificates,
            why: format!(
                "do not lead from what the key signs to the root ({error}); the first is the key's own, \
                 then follows the issuer of each"
            ),
        })
    }

    pub fn trust_domain(&self) -> &str {
        &self.trust_domain
    }

    pub fn root(&self) -> &CertificateDer<'static> {
        &self.root
    }

    pub fn root_pem(&self) -> &str {
        &self.root_pem
    }

    /// When the first of root and intermediates ends, and with it what can be signed.
    pub fn not_after(&self) -> OffsetDateTime {
        self.signer().not_after
    }

    /// SHA-256 of the root's DER in lower-case hex: what a join token pins.
    pub fn root_hash(&self) -> String {
        hex(digest::digest(&digest::SHA256, &self.root).as_ref())
    }

    /// Signs a workload's request. `asked` is the requested lifetime, zero for the default.
    ///
    /// # Errors
    /// What is wrong with the request, or that signing failed.
    pub fn sign_request(
        &self,
        csr_pem: &str,
        identity: &Identity,
        workload: &str,
        asked: Duration,
    ) -> Result<Issued, SignError> {
        self.refuse_own(identity)?;
        let key = csr::validate(csr_pem, identity)?;
        let key = SubjectPublicKeyInfo::from_der(&key)
            .map_err(|_| SignError::Csr(csr::CsrError::Key("a key that does not parse".into())))?;
        let names = workload_names(identity)?;
        Ok(self.sign(&self.signer(), &key, workload, (names, asked))?)
    }

    /// A key and certificate made here, for a workload whose proxy reads them from files.
    ///
    /// # Errors
    /// When it is the control plane's own identity, or signing fails.
    pub fn issue_pair(
        &self,
        identity: &Identity,
        workload: &str,
        asked: Duration,
    ) -> Result<(KeyPair, Issued), SignError> {
        self.refuse_own(identity)?;
        let key = KeyPair::generate().map_err(signing)?;
        let wanted = (workload_names(identity)?, asked);
        let issued = self.sign(&self.signer(), &key, workload, wanted)?;
        Ok((key, issued))
    }

    /// Our own certificate for the gRPC port.
    ///
    /// # Errors
    /// When a name can't stand in a certificate, or signing fails.
    pub fn issue_serving(&self, names: &[String]) -> Result<(KeyPair, Issued), CaError> {
        self.issue_by(&self.signer(), names)
    }

    /// The control plane's own identity, by which replicas recognise each other. No workload gets it.
    pub fn own_identity(&self) -> Identity {
        Identity {
            trust_domain: self.trust_domain.clone(),
            namespace: "anyam-system".into(),
            service_account: "anyam-control".into(),
        }
    }

    fn refuse_own(&self, identity: &Identity) -> Result<(), SignError> {
        match *identity == self.own_identity() {
            true => Err(SignError::Own(identity.to_string())),
            false => Ok(()),
        }
    }

    fn issue_by(&self, signer: &Signer, names: &[String]) -> Result<(KeyPair, Issued), CaError> {
        let key = KeyPair::generate().map_err(signing)?;
        let mut sans = workload_names(&self.own_identity())?;
        for name in names {
            sans.push(match name.parse::<IpAddr>() {
                Ok(address) => SanType::IpAddress(address),
                Err(_) => SanType::DnsName(name.as_str().try_into().map_err(signing)?),
            });
        }
        let issued = self.sign(signer, &key, "anyam-control", (sans, Duration::ZERO))?;
        Ok((key, issued))
    }

    fn sign(
        &self,
        signer: &Signer,
        key: &impl PublicKeyData,
        workload: &str,
        (names, asked): (Vec<SanType>, Duration),
    ) -> Result<Issued, CaError> {
        let lifetime = match asked {
            Duration::ZERO => self.lifetimes.default,
            asked => asked.clamp(MIN_LIFETIME, self.lifetimes.max.max(MIN_LIFETIME)),
        };
        let now = OffsetDateTime::now_utc();
        let mut params = CertificateParams::default();
        params.not_before = now.saturating_sub(span(BACKDATE));
        // A leaf that outlives its issuer fails in ways that are hard to read.
        params.not_after = now.saturating_add(span(lifetime)).min(signer.not_after);
        let mut serial = [0u8; 16];
        aws_lc_rs::rand::fill(&mut serial)
            .map_err(|_| CaError::Signing("no random bytes".into()))?;
        serial[0] = serial[0] & 0x7f | 0x40;
        params.serial_number = Some(SerialNumber::from_slice(&serial));
        params.subject_alt_names = names;
        params.distinguished_name = subject(workload);
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ClientAuth,
            ExtendedKeyUsagePurpose::ServerAuth,
        ];
        params.use_authority_key_identifier_extension = true;
        let not_after = params.not_after;
        let certificate = params.signed_by(key, &signer.issuer).map_err(signing)?;
        let mut chain = vec![certificate.pem()];
        chain.extend(signer.intermediates.iter().map(|der| root::pem(der)));
        chain.push(self.root_pem.clone());
        let mut sent = vec![certificate.der().clone()];
        sent.extend(signer.intermediates.iter().cloned());
        sent.push(self.root.clone());
        Ok(Issued {
            chain,
            sent,
            certificate: certificate.into(),
            not_after,
            serial: hex(&serial),
        })
    }
}

impl Signer {
    fn new(material: CaMaterial) -> Result<Self, CaError> {
        let CaMaterial {
            key,
            issuer,
            intermediates,
            root: _,
            not_after,
        } = material;
        let issuer = Issuer::from_ca_cert_der(&issuer, key).map_err(|error| CaError::Pem {
            part: CaPart::Certificates,
            why: format!("the first cannot be used ({error})"),
        })?;
        Ok(Signer {
            issuer,
            intermediates,
            not_after,
        })
    }
}

/// Why a request is not signed.
#[derive(Debug, thiserror::Error)]
pub enum SignError {
    #[error(
        "`{0}` is the control plane's own identity, which no workload gets; run it under another service account"
    )]
    Own(String),
    #[error(transparent)]
    Csr(#[from] csr::CsrError),
    #[error(transparent)]
    Ca(#[from] CaError),
}

pub(super) fn signing(error: impl std::fmt::Display) -> CaError {
    CaError::Signing(error.to_string())
}

fn workload_names(identity: &Identity) -> Result<Vec<SanType>, CaError> {
    let uri = identity.to_string();
    Ok(vec![SanType::URI(uri.try_into().map_err(signing)?)])
}

fn subject(workload: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, subject_name(workload));
    name
}

/// Of a duration too long for it, the longest.
pub(super) fn span(duration: Duration) -> time::Duration {
    time::Duration::try_from(duration).unwrap_or(time::Duration::MAX)
}
