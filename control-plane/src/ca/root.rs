//! The key and certificates of a CA as PEM: made where there are none, and checked where there are.

use std::fmt;

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, KeyPair, KeyUsagePurpose,
    SanType,
};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use time::OffsetDateTime;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::CaError;
use super::authority::{BACKDATE, signing, span};

const ROOT_LIFETIME: std::time::Duration = std::time::Duration::from_secs(10 * 365 * 24 * 3600);
/// Certificates from the one that signs to the root.
const MAX_CERTIFICATES: usize = 8;

/// A CA as PEM. No `Debug`: it has the private key.
#[derive(Clone, PartialEq, Eq)]
pub struct CaPem {
    /// Unencrypted: PKCS #8, PKCS #1 or SEC 1.
    pub key: String,
    /// The certificate of that key, then those between it and the root.
    pub certificates: String,
    /// The root. `None`: it is the last of `certificates`.
    pub root: Option<String>,
}

/// A part of a [`CaPem`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CaPart {
    Key,
    Certificates,
    Root,
}

impl fmt::Display for CaPart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            CaPart::Key => "the CA's key",
            CaPart::Certificates => "the CA's certificates",
            CaPart::Root => "the CA's root",
        })
    }
}

/// What a [`CaPem`] says.
pub(super) struct CaMaterial {
    pub key: KeyPair,
    /// The certificate of `key`.
    pub issuer: CertificateDer<'static>,
    /// From `issuer` up to the root, which is not among them; none where the root itself signs.
    pub intermediates: Vec<CertificateDer<'static>>,
    pub root: CertificateDer<'static>,
    /// When the first of them all ends.
    pub not_after: OffsetDateTime,
}

/// A certificate as PEM.
pub(super) fn pem(der: &[u8]) -> String {
    let lines = pem::EncodeConfig::new().set_line_ending(pem::LineEnding::LF);
    pem::encode_config(&pem::Pem::new("CERTIFICATE", der), lines)
}

/// A new root of a trust domain, and its key.
///
/// # Errors
/// When there are no random bytes.
pub fn make(trust_domain: &str) -> Result<CaPem, CaError> {
    let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).map_err(signing)?;
    let now = OffsetDateTime::now_utc();
    let mut params = CertificateParams::default();
    params.not_before = now.saturating_sub(span(BACKDATE));
    params.not_after = now.saturating_add(span(ROOT_LIFETIME));
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
    Ok(CaPem {
        key: key.serialize_pem(),
        certificates: root.pem(),
        root: None,
    })
}

impl CaPem {
    /// # Errors
    /// [`CaError::Pem`], with the part that is wrong.
    pub(super) fn read(&self, trust_domain: &str) -> Result<CaMaterial, CaError> {
        let wrong = |part: CaPart| move |why: String| CaError::Pem { part, why };
        let key = KeyPair::from_pem(&self.key)
            .map_err(|error| wrong(CaPart::Key)(format!("cannot be read ({error})")))?;
        let certificates = certificates(&self.certificates).map_err(wrong(CaPart::Certificates))?;
        let (root, root_part) = match &self.root {
            None => (certificates.last().cloned(), CaPart::Certificates),
            Some(pem) => match certificates_of_root(pem) {
                Ok(root) => (Some(root), CaPart::Root),
                Err(why) => return Err(wrong(CaPart::Root)(why)),
            },
        };
        let (Some(issuer), Some(root)) = (certificates.first().cloned(), root) else {
            let why = "there is no certificate".to_owned();
            return Err(wrong(CaPart::Certificates)(why));
        };
        if self.root.is_none() && !is_self_signed(&root) {
            let why = "there is no root above these intermediate certificates".to_owned();
            return Err(wrong(CaPart::Root)(why));
        }
        validate_issuer(&issuer, &key).map_err(wrong(CaPart::Certificates))?;
        let mut not_after = end(&root).map_err(wrong(root_part))?;
        for certificate in &certificates {
            let ends = end(certificate).map_err(wrong(CaPart::Certificates))?;
            not_after = not_after.min(ends);
        }
        let intermediates = certificates.into_iter().filter(|it| *it != root);
        let intermediates: Vec<_> = intermediates.collect();
        validate_root(&root, trust_domain, intermediates.len()).map_err(wrong(root_part))?;
        Ok(CaMaterial {
            key,
            intermediates,
            issuer,
            root,
            not_after,
        })
    }
}

fn certificates(text: &str) -> Result<Vec<CertificateDer<'static>>, String> {
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(text.as_bytes()).collect();
    let all = all.map_err(|error| format!("cannot be read as PEM ({error})"))?;
    if all.len() > MAX_CERTIFICATES {
        return Err(format!(
            "are {}; at most {MAX_CERTIFICATES} are read",
            all.len()
        ));
    }
    Ok(all)
}

fn certificates_of_root(text: &str) -> Result<CertificateDer<'static>, String> {
    match &*certificates(text)? {
        [root] => Ok(root.clone()),
        all => Err(format!(
            "has {} certificates; exactly one root is supported",
            all.len()
        )),
    }
}

fn parse<'a>(der: &'a CertificateDer<'_>) -> Result<X509Certificate<'a>, String> {
    let parsed = X509Certificate::from_der(der);
    parsed
        .map(|(_, certificate)| certificate)
        .map_err(|error| format!("is malformed ({error})"))
}

fn is_self_signed(der: &CertificateDer<'_>) -> bool {
    parse(der).is_ok_and(|it| it.subject().as_raw() == it.issuer().as_raw())
}

/// When a certificate ends, which must not be over.
fn end(der: &CertificateDer<'_>) -> Result<OffsetDateTime, String> {
    let not_after = parse(der)?.validity().not_after.to_datetime();
    match not_after <= OffsetDateTime::now_utc() {
        true => Err(format!("expired at {not_after}")),
        false => Ok(not_after),
    }
}

fn validate_issuer(der: &CertificateDer<'_>, key: &KeyPair) -> Result<(), String> {
    let issuer = parse(der)?;
    if issuer.public_key().subject_public_key.data.as_ref() != key.public_key_raw() {
        return Err("the first is not the certificate of the key".into());
    }
    if !issuer.is_ca() {
        return Err("the first is not a CA certificate".into());
    }
    let usage = issuer.key_usage().map_err(|error| error.to_string())?;
    if usage.is_some_and(|usage| !usage.value.key_cert_sign()) {
        return Err("the first may not sign certificates (its key usage)".into());
    }
    Ok(())
}

/// An external root may have no trust domain; if it has, it must be ours. `below`: CA certificates
/// under it, checked against pathLenConstraint, which not every verifier does.
fn validate_root(der: &CertificateDer<'_>, trust_domain: &str, below: usize) -> Result<(), String> {
    let root = parse(der)?;
    let constraints = root.basic_constraints().map_err(|e| e.to_string())?;
    let Some(constraints) = constraints.filter(|it| it.value.ca) else {
        return Err("is not a CA certificate".into());
    };
    let most = constraints.value.path_len_constraint;
    if most.is_some_and(|most| usize::try_from(most).is_ok_and(|most| most < below)) {
        return Err(format!(
            "has a path length that allows fewer CAs below it than the {below} that there are"
        ));
    }
    let names = root.subject_alternative_name();
    let names = names.map_err(|error| error.to_string())?;
    let mut domains = names
        .iter()
        .flat_map(|names| &names.value.general_names)
        .filter_map(|name| match name {
            GeneralName::URI(uri) if uri.starts_with("spiffe://") => Some(*uri),
            _ => None,
        })
        .peekable();
    let ours = format!("spiffe://{trust_domain}");
    if domains.peek().is_some() && !domains.any(|uri| uri == ours) {
        return Err(format!(
            "is the root of another trust domain than {trust_domain}"
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rcgen::Issuer;

    use super::super::authority::{Authority, Lifetimes};
    use super::*;
    use crate::identity::Identity;

    const DOMAIN: &str = "mesh.local";

    /// A CA that was made by other means, and names no trust domain.
    struct Own {
        key: KeyPair,
        certificate: rcgen::Certificate,
        params: CertificateParams,
    }

    fn params(name: &str, below: BasicConstraints) -> CertificateParams {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params
            .distinguished_name
            .push(DnType::OrganizationName, "Corp");
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(below);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params
    }

    fn own_root(name: &str, below: BasicConstraints) -> Own {
        let key = KeyPair::generate().unwrap();
        let params = params(name, below);
        let certificate = params.self_signed(&key).unwrap();
        Own {
            key,
            certificate,
            params,
        }
    }

    /// Its key and certificate.
    fn intermediate(root: &Own, params: &CertificateParams) -> (String, String) {
        let issuer = Issuer::from_params(&root.params, &root.key);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &issuer).unwrap();
        (key.serialize_pem(), certificate.pem())
    }

    fn open(pem: &CaPem) -> Result<Authority, CaError> {
        Authority::from_pem(pem, DOMAIN, Lifetimes::default())
    }

    fn wrong_part(pem: &CaPem) -> CaPart {
        match open(pem).err().unwrap() {
            CaError::Pem { part, .. } => part,
            other => panic!("{other}"),
        }
    }

    fn chain(authority: &Authority) -> Vec<String> {
        let identity = Identity::parse("spiffe://mesh.local/ns/shop/sa/web").unwrap();
        let issued = authority.issue_pair(&identity, "web-0", Duration::ZERO);
        issued.unwrap().1.chain
    }

    #[test]
    fn an_intermediate_signs_and_is_part_of_the_chain() {
        let root = own_root("Corp root", BasicConstraints::Unconstrained);
        let mut below = params("Mesh", BasicConstraints::Constrained(0));
        below.not_after = OffsetDateTime::now_utc() + Duration::from_secs(3600);
        let (key, certificate) = intermediate(&root, &below);
        let apart = CaPem {
            key: key.clone(),
            certificates: certificate.clone(),
            root: Some(root.certificate.pem()),
        };
        let together = CaPem {
            key,
            certificates: certificate.clone() + &root.certificate.pem(),
            root: None,
        };
        for pem in [apart, together] {
            let authority = open(&pem).unwrap();
            let issued = chain(&authority);
            assert_eq!(issued[1..], [certificate.clone(), root.certificate.pem()]);
            assert_eq!(authority.root_pem(), root.certificate.pem());
            let left = authority.not_after() - OffsetDateTime::now_utc();
            assert!(left <= Duration::from_secs(3600), "the first that ends");
        }
    }

    #[test]
    fn what_does_not_belong_together_is_named() {
        let root = own_root("Corp root", BasicConstraints::Unconstrained);
        let below = params("Mesh", BasicConstraints::Constrained(0));
        let (key, certificate) = intermediate(&root, &below);
        let good = CaPem {
            key,
            certificates: certificate.clone(),
            root: Some(root.certificate.pem()),
        };
        let with = |change: &dyn Fn(&mut CaPem)| {
            let mut pem = good.clone();
            change(&mut pem);
            wrong_part(&pem)
        };
        assert_eq!(with(&|it| it.key.clear()), CaPart::Key);
        assert_eq!(with(&|it| it.certificates.clear()), CaPart::Certificates);
        assert_eq!(with(&|it| it.root = None), CaPart::Root);
        assert_eq!(with(&|it| it.root = Some(String::new())), CaPart::Root);
        let two = root.certificate.pem().repeat(2);
        assert_eq!(with(&|it| it.root = Some(two.clone())), CaPart::Root);
        let other_key = KeyPair::generate().unwrap().serialize_pem();
        assert_eq!(
            with(&|it| it.key.clone_from(&other_key)),
            CaPart::Certificates
        );
        let unrelated = own_root("Corp root", BasicConstraints::Unconstrained);
        let unrelated = unrelated.certificate.pem();
        assert_eq!(
            with(&|it| it.root = Some(unrelated.clone())),
            CaPart::Certificates
        );
    }

    #[test]
    fn what_peers_would_not_accept_is_found_at_once() {
        let narrow = own_root("Corp root", BasicConstraints::Constrained(0));
        let (key, certificates) =
            intermediate(&narrow, &params("Mesh", BasicConstraints::Unconstrained));
        let root = Some(narrow.certificate.pem());
        let pem = CaPem {
            key,
            certificates,
            root,
        };
        assert_eq!(wrong_part(&pem), CaPart::Root);
        let signer = params("Mesh", BasicConstraints::Constrained(0));
        let root = own_root("Corp root", BasicConstraints::Unconstrained);
        let mut leaf = signer.clone();
        leaf.is_ca = IsCa::ExplicitNoCa;
        let mut over = signer.clone();
        over.not_after = OffsetDateTime::now_utc() - Duration::from_secs(1);
        let mut unusable = signer.clone();
        unusable.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        for (what, root, params) in [
            ("no CA", &root, &leaf),
            ("expired", &root, &over),
            ("may not sign", &root, &unusable),
        ] {
            let (key, certificates) = intermediate(root, params);
            let root = Some(root.certificate.pem());
            let pem = CaPem {
                key,
                certificates,
                root,
            };
            assert_eq!(wrong_part(&pem), CaPart::Certificates, "{what}");
        }
        let other_domain = make("other.local").unwrap();
        assert_eq!(wrong_part(&other_domain), CaPart::Certificates);
    }

    #[test]
    fn a_renewed_intermediate_signs_and_another_root_does_not() {
        let root = own_root("Corp root", BasicConstraints::Unconstrained);
        let below = params("Mesh", BasicConstraints::Constrained(0));
        let pem = |root: &Own| {
            let (key, certificates) = intermediate(root, &below);
            CaPem {
                key,
                certificates,
                root: Some(root.certificate.pem()),
            }
        };
        let (first, second) = (pem(&root), pem(&root));
        let authority = open(&first).unwrap();
        assert_eq!(chain(&authority)[1], first.certificates);
        authority.replace(&second).unwrap();
        assert_eq!(chain(&authority)[1], second.certificates);
        let other = own_root("Other root", BasicConstraints::Unconstrained);
        for wrong in [pem(&other), make(DOMAIN).unwrap()] {
            let error = authority.replace(&wrong).unwrap_err();
            assert!(
                matches!(
                    error,
                    CaError::Pem {
                        part: CaPart::Root,
                        ..
                    }
                ),
                "{error}"
            );
            assert_eq!(chain(&authority)[1], second.certificates);
        }
    }
}
