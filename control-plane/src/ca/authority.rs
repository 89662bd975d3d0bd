//! The self-made root, and the certificates it signs.

use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use aws_lc_rs::digest;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, PublicKeyData, SanType, SerialNumber, SubjectPublicKeyInfo,
};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use time::OffsetDateTime;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::{CaError, csr, private};
use crate::identity::subject_name;
use crate::identity::{Identity, is_trust_domain};
use crate::text::hex;

/// Clocks in a mesh differ a little; a certificate must be good on the machine that is behind.
const BACKDATE: Duration = Duration::from_secs(60);
const ROOT_LIFETIME: Duration = Duration::from_secs(10 * 365 * 24 * 3600);
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

/// A root key, its certificate, and the trust domain it stands for.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    root: CertificateDer<'static>,
    root_pem: String,
    root_not_after: OffsetDateTime,
    trust_domain: String,
    lifetimes: Lifetimes,
}

/// A signed certificate with its chain.
#[derive(Clone, Debug)]
pub struct Issued {
    pub certificate: CertificateDer<'static>,
    /// PEM: the leaf, then the root.
    pub chain: Vec<String>,
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
        let (key_pem, root_pem) = match (private::read(&key_path)?, private::read(&root_path)?) {
            (Some(key), Some(root)) => (key, root),
            (None, None) => {
                let (key, root) = make_root(trust_domain)?;
                private::write(&key_path, key.as_bytes())?;
                private::write(&root_path, root.as_bytes())?;
                (key.into_bytes(), root.into_bytes())
            }
            (Some(_), None) => return Err(damaged(&root_path, "missing beside root.key".into())),
            (None, Some(_)) => return Err(damaged(&key_path, "missing beside root.crt".into())),
        };
        let key_pem = String::from_utf8(key_pem).map_err(|e| damaged(&key_path, e.to_string()))?;
        let root_pem =
            String::from_utf8(root_pem).map_err(|e| damaged(&root_path, e.to_string()))?;
        let key = KeyPair::from_pem(&key_pem).map_err(|e| damaged(&key_path, e.to_string()))?;
        let root = CertificateDer::from_pem_slice(root_pem.as_bytes())
            .map_err(|e| damaged(&root_path, e.to_string()))?;
        let root_not_after =
            validate_root(&root, &key, trust_domain).map_err(|why| damaged(&root_path, why))?;
        let issuer =
            Issuer::from_ca_cert_der(&root, key).map_err(|e| damaged(&root_path, e.to_string()))?;
        Ok(Authority {
            issuer,
            root,
            root_pem,
            root_not_after,
            trust_domain: trust_domain.to_owned(),
            lifetimes,
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

    pub fn root_not_after(&self) -> OffsetDateTime {
        self.root_not_after
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
        let key = csr::validate(csr_pem, identity)?;
        let key = SubjectPublicKeyInfo::from_der(&key)
            .map_err(|_| SignError::Csr(csr::CsrError::Key("a key that does not parse".into())))?;
        let names = workload_names(identity)?;
        Ok(self.sign(&key, workload, names, asked)?)
    }

    /// A key and certificate made here, for a workload whose proxy reads them from files.
    ///
    /// # Errors
    /// When signing fails.
    pub fn issue_pair(
        &self,
        identity: &Identity,
        workload: &str,
        asked: Duration,
    ) -> Result<(KeyPair, Issued), CaError> {
        let key = KeyPair::generate().map_err(signing)?;
        let issued = self.sign(&key, workload, workload_names(identity)?, asked)?;
        Ok((key, issued))
    }

    /// Our own certificate for the gRPC port.
    ///
    /// # Errors
    /// When a name can't stand in a certificate, or signing fails.
    pub fn issue_serving(&self, names: &[String]) -> Result<(KeyPair, Issued), CaError> {
        let key = KeyPair::generate().map_err(signing)?;
        let identity = Identity {
            trust_domain: self.trust_domain.clone(),
            namespace: "anyam-system".into(),
            service_account: "anyam-control".into(),
        };
        let mut sans = workload_names(&identity)?;
        for name in names {
            sans.push(match name.parse::<IpAddr>() {
                Ok(address) => SanType::IpAddress(address),
                Err(_) => SanType::DnsName(name.as_str().try_into().map_err(signing)?),
            });
        }
        let issued = self.sign(&key, "anyam-control", sans, Duration::ZERO)?;
        Ok((key, issued))
    }

    fn sign(
        &self,
        key: &impl PublicKeyData,
        workload: &str,
        names: Vec<SanType>,
        asked: Duration,
    ) -> Result<Issued, CaError> {
        let lifetime = match asked {
            Duration::ZERO => self.lifetimes.default,
            asked => asked.clamp(MIN_LIFETIME, self.lifetimes.max.max(MIN_LIFETIME)),
        };
        let now = OffsetDateTime::now_utc();
        let mut params = CertificateParams::default();
        params.not_before = now - BACKDATE;
        // A leaf that outlives its root fails in ways that are hard to read.
        params.not_after = (now + lifetime).min(self.root_not_after);
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
        let certificate = params.signed_by(key, &self.issuer).map_err(signing)?;
        Ok(Issued {
            chain: vec![certificate.pem(), self.root_pem.clone()],
            certificate: certificate.into(),
            not_after,
            serial: hex(&serial),
        })
    }
}

/// Why a request is not signed.
#[derive(Debug, thiserror::Error)]
pub enum SignError {
    #[error(transparent)]
    Csr(#[from] csr::CsrError),
    #[error(transparent)]
    Ca(#[from] CaError),
}

fn signing(error: impl std::fmt::Display) -> CaError {
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

fn make_root(trust_domain: &str) -> Result<(String, String), CaError> {
    let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).map_err(signing)?;
    let now = OffsetDateTime::now_utc();
    let mut params = CertificateParams::default();
    params.not_before = now - BACKDATE;
    params.not_after = now + ROOT_LIFETIME;
    params.distinguished_name = DistinguishedName::new();
    let names = &mut params.distinguished_name;
    names.push(DnType::OrganizationName, "Anyam");
    names.push(DnType::CommonName, "Anyam root");
    let uri = format!("spiffe://{trust_domain}");
    params.subject_alt_names = vec![SanType::URI(uri.try_into().map_err(signing)?)];
    // Leaves only: nothing below the root may be a CA.
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let root = params.self_signed(&key).map_err(signing)?;
    Ok((key.serialize_pem(), root.pem()))
}

/// The root's end of validity, when it is our key's, a CA's, in time, and of our trust domain.
fn validate_root(
    root: &CertificateDer<'_>,
    key: &KeyPair,
    trust_domain: &str,
) -> Result<OffsetDateTime, String> {
    let (_, root) = X509Certificate::from_der(root).map_err(|e| e.to_string())?;
    if root.public_key().subject_public_key.data.as_ref() != key.public_key_raw() {
        return Err("is not the certificate of root.key".into());
    }
    if !root.is_ca() {
        return Err("is not a CA certificate".into());
    }
    let not_after = root.validity().not_after.to_datetime();
    if not_after <= OffsetDateTime::now_utc() {
        return Err(format!("expired at {not_after}"));
    }
    let uri = format!("spiffe://{trust_domain}");
    let names = root.subject_alternative_name().map_err(|e| e.to_string())?;
    let ours = |name: &x509_parser::extensions::GeneralName<'_>| matches!(name, x509_parser::extensions::GeneralName::URI(found) if *found == uri);
    // A root that came from elsewhere may name no trust domain; one that does must name ours.
    if names.is_some_and(|names| !names.value.general_names.iter().any(ours)) {
        return Err(format!(
            "is the root of another trust domain than {trust_domain}"
        ));
    }
    Ok(not_after)
}
