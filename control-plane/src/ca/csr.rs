//! Validates a certificate signing request. Only its key is used, and only if the key signed the
//! request, is strong enough, and the request has no names but the identity that the caller has
//! proved.

use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::oid_registry::{
    OID_EC_P256, OID_KEY_TYPE_EC_PUBLIC_KEY, OID_NIST_EC_P384, OID_PKCS1_RSAENCRYPTION,
    OID_PKCS1_SHA256WITHRSA, OID_PKCS1_SHA384WITHRSA, OID_PKCS1_SHA512WITHRSA,
    OID_SIG_ECDSA_WITH_SHA256, OID_SIG_ECDSA_WITH_SHA384,
};
use x509_parser::pem::parse_x509_pem;
use x509_parser::prelude::FromDer;
use x509_parser::public_key::PublicKey;
use x509_parser::x509::SubjectPublicKeyInfo;

use crate::identity::Identity;

/// Beyond any request that carries one key and one name.
const MAX_CSR: usize = 16 << 10;
const RSA_BITS: std::ops::RangeInclusive<usize> = 2048..=4096;

/// Why a request is refused; the text is sent to the client.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CsrError {
    #[error("the CSR is no PEM `CERTIFICATE REQUEST` of at most {MAX_CSR} bytes")]
    Malformed,
    #[error("the CSR's signature does not verify: it must be signed by the key it asks for")]
    Signature,
    #[error("the CSR is signed with {0}; sign with ECDSA or RSA and SHA-256 or better")]
    Algorithm(String),
    #[error(
        "the CSR's key is weak or of a kind not accepted ({0}); use P-256, P-384, or RSA of 2048 to 4096 bits"
    )]
    Key(String),
    #[error("the CSR asks for `{asked}`, but the credential is for `{allowed}`")]
    Identity { asked: String, allowed: String },
    #[error("the CSR must name exactly one URI SAN, `{0}`, and no other name")]
    Names(String),
    #[error("the CSR asks to be a CA")]
    Authority,
    #[error("the CSR asks for {0}, which workload certificates do not carry")]
    Extension(&'static str),
}

/// The DER public key (SubjectPublicKeyInfo) of a request that may have `identity`.
///
/// # Errors
/// The first thing that is wrong with the request.
pub fn validate(pem: &str, identity: &Identity) -> Result<Vec<u8>, CsrError> {
    if pem.len() > MAX_CSR {
        return Err(CsrError::Malformed);
    }
    let (rest, block) = parse_x509_pem(pem.as_bytes()).map_err(|_| CsrError::Malformed)?;
    let labelled = matches!(
        &*block.label,
        "CERTIFICATE REQUEST" | "NEW CERTIFICATE REQUEST"
    );
    if !labelled || !rest.iter().all(u8::is_ascii_whitespace) {
        return Err(CsrError::Malformed);
    }
    let parsed = X509CertificationRequest::from_der(&block.contents);
    let (rest, request) = parsed.map_err(|_| CsrError::Malformed)?;
    if !rest.is_empty() {
        return Err(CsrError::Malformed);
    }
    let public_key = &request.certification_request_info.subject_pki;
    validate_key(public_key)?;
    validate_algorithm(&request)?;
    request
        .verify_signature()
        .map_err(|_| CsrError::Signature)?;
    validate_extensions(&request, identity)?;
    Ok(public_key.raw.to_vec())
}

fn validate_key(key: &SubjectPublicKeyInfo<'_>) -> Result<(), CsrError> {
    let algorithm = &key.algorithm.algorithm;
    if *algorithm == OID_PKCS1_RSAENCRYPTION {
        let Ok(PublicKey::RSA(rsa)) = key.parsed() else {
            return Err(CsrError::Key("an RSA key that does not parse".into()));
        };
        // A leading zero byte of the encoding is no strength.
        let modulus: Vec<u8> = rsa
            .modulus
            .iter()
            .copied()
            .skip_while(|byte| *byte == 0)
            .collect();
        let unused = modulus.first().map_or(0, |b| b.leading_zeros() as usize);
        let bits = modulus.len().saturating_mul(8).saturating_sub(unused);
        if !RSA_BITS.contains(&bits) {
            return Err(CsrError::Key(format!("RSA of {bits} bits")));
        }
        return Ok(());
    }
    if *algorithm == OID_KEY_TYPE_EC_PUBLIC_KEY {
        let curve = key
            .algorithm
            .parameters
            .as_ref()
            .and_then(|any| any.as_oid().ok());
        return match curve {
            Some(oid) if oid == OID_EC_P256 || oid == OID_NIST_EC_P384 => Ok(()),
            Some(oid) => Err(CsrError::Key(format!("curve {oid}"))),
            None => Err(CsrError::Key("an unnamed curve".into())),
        };
    }
    Err(CsrError::Key(format!("algorithm {algorithm}")))
}

fn validate_algorithm(request: &X509CertificationRequest<'_>) -> Result<(), CsrError> {
    let accepted = [
        OID_SIG_ECDSA_WITH_SHA256,
        OID_SIG_ECDSA_WITH_SHA384,
        OID_PKCS1_SHA256WITHRSA,
        OID_PKCS1_SHA384WITHRSA,
        OID_PKCS1_SHA512WITHRSA,
    ];
    let algorithm = &request.signature_algorithm.algorithm;
    if accepted.contains(algorithm) {
        return Ok(());
    }
    Err(CsrError::Algorithm(algorithm.to_string()))
}

fn validate_extensions(
    request: &X509CertificationRequest<'_>,
    identity: &Identity,
) -> Result<(), CsrError> {
    let allowed = identity.to_string();
    let mut named = false;
    for extension in request.requested_extensions().into_iter().flatten() {
        match extension {
            ParsedExtension::SubjectAlternativeName(names) => {
                let [GeneralName::URI(uri)] = names.general_names[..] else {
                    return Err(CsrError::Names(allowed));
                };
                if uri != allowed {
                    let asked = crate::text::bounded(uri);
                    return Err(CsrError::Identity { asked, allowed });
                }
                if named {
                    return Err(CsrError::Names(allowed));
                }
                named = true;
            }
            ParsedExtension::BasicConstraints(constraints) if constraints.ca => {
                return Err(CsrError::Authority);
            }
            ParsedExtension::BasicConstraints(_) => {}
            ParsedExtension::KeyUsage(usage) if usage.key_cert_sign() || usage.crl_sign() => {
                return Err(CsrError::Authority);
            }
            // Other requested extensions are not read: the certificate's are set by the CA.
            ParsedExtension::KeyUsage(_) | ParsedExtension::ExtendedKeyUsage(_) => {}
            ParsedExtension::NameConstraints(_) => {
                return Err(CsrError::Extension("name constraints"));
            }
            _ => return Err(CsrError::Extension("an unknown extension")),
        }
    }
    if named {
        Ok(())
    } else {
        Err(CsrError::Names(allowed))
    }
}
