//! Key sets: JWKS (RFC 7517, 5), or an object of X.509 certificates in PEM by key id, as Google and
//! Firebase publish them. Source: Envoy, which takes these two.

use aws_lc_rs::digest;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use x509_parser::prelude::{FromDer, X509Certificate};
use x509_parser::public_key::PublicKey;

use super::algorithm::SignatureAlgorithm;
use super::json;
use super::key::{Curve, Jwk, JwkAlgorithm, KeyMaterial};
use crate::metadata::{Object, Value};

/// Bytes of a key set.
pub const LARGEST: usize = 1 << 20;
/// Keys in a set. A token without a key's id is tried with each.
const MOST_KEYS: usize = 128;

const PEM_BEGIN: &str = "-----BEGIN CERTIFICATE-----\n";
const PEM_END: &str = "\n-----END CERTIFICATE-----\n";

/// Keys that verify signatures, at least one.
pub struct Jwks {
    keys: Vec<Jwk>,
    /// Of the text.
    digest: digest::Digest,
}

/// Why a key set cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JwksError {
    #[error("it is larger than 1 MiB")]
    TooLarge,
    #[error("it is no JSON object without repeated names")]
    NotJson,
    #[error("it has neither `keys` nor certificates by key id")]
    NoKeys,
    #[error("`keys` is no list")]
    KeysType,
    #[error("it has more than {MOST_KEYS} keys")]
    TooManyKeys,
    #[error("none of its keys can be used; of the first, {0}")]
    NoneValid(JwkError),
    #[error("a certificate cannot be used: {0}")]
    Certificate(JwkError),
}

/// Why a key cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JwkError {
    #[error("there is none")]
    Absent,
    #[error("`kty` is missing or not known")]
    KeyType,
    #[error("it is for encryption")]
    Use,
    #[error("`alg` is not for keys of its type")]
    AlgorithmForType,
    #[error("`crv` is not known, or not that of `alg`")]
    UnknownCurve,
    #[error("a part of the key is missing or not base64url")]
    Part,
    #[error("the RSA key has not 2048 to 8192 bits, or an exponent other than 3 and 65537")]
    Rsa,
    #[error("it is no point of its curve")]
    Point,
    #[error("the certificate cannot be parsed, or its key is not RSA")]
    Parse,
}

impl Jwks {
    /// # Errors
    /// See [`JwksError`]. A key that cannot be used is left out as long as there is another.
    pub fn parse(text: &[u8]) -> Result<Self, JwksError> {
        if text.len() > LARGEST {
            return Err(JwksError::TooLarge);
        }
        let fields = json::object(text).ok_or(JwksError::NotJson)?;
        let list = match fields.get("keys") {
            Some(Value::List(list)) => list,
            Some(_) => return Err(JwksError::KeysType),
            None => return Ok(Self::new(certificates(&fields)?, text)),
        };
        if list.len() > MOST_KEYS {
            return Err(JwksError::TooManyKeys);
        }
        let (mut keys, mut first) = (Vec::new(), None);
        for value in list {
            let Value::Object(fields) = value else {
                continue;
            };
            match key(fields) {
                Ok(key) => keys.push(key),
                Err(why) => _ = first.get_or_insert(why),
            }
        }
        match keys.is_empty() {
            true => Err(JwksError::NoneValid(first.unwrap_or(JwkError::Absent))),
            false => Ok(Self::new(keys, text)),
        }
    }

    fn new(keys: Vec<Jwk>, text: &[u8]) -> Self {
        let digest = digest::digest(&digest::SHA256, text);
        Self { keys, digest }
    }

    /// Whether both were made of the same text.
    pub fn is_same(&self, other: &Self) -> bool {
        self.digest.as_ref() == other.digest.as_ref()
    }

    pub(super) fn keys(&self) -> &[Jwk] {
        &self.keys
    }
}

fn key(fields: &Object) -> Result<Jwk, JwkError> {
    let text = |name: &str| json::string(fields, name).ok().flatten();
    let (kind, alg) = (text("kty"), text("alg").unwrap_or_default());
    if text("use") == Some("enc") {
        return Err(JwkError::Use);
    }
    let part = |name: &str| {
        let decoded = URL_SAFE_NO_PAD.decode(text(name).unwrap_or_default());
        let decoded = decoded.ok().filter(|bytes| !bytes.is_empty());
        decoded.ok_or(JwkError::Part)
    };
    let is_for_type = |prefixes: &[&str]| {
        let fits = alg.is_empty() || prefixes.iter().any(|prefix| alg.starts_with(prefix));
        fits.then_some(()).ok_or(JwkError::AlgorithmForType)
    };
    let mut only = None;
    let material = match kind {
        Some("RSA") => {
            is_for_type(&["RS", "PS"])?;
            KeyMaterial::rsa(&part("n")?, &part("e")?).ok_or(JwkError::Rsa)?
        }
        Some("EC") => {
            is_for_type(&["ES"])?;
            let curve = curve(alg, text("crv").unwrap_or_default())?;
            only = Some(curve.algorithm());
            KeyMaterial::point(curve, &part("x")?, &part("y")?).ok_or(JwkError::Point)?
        }
        Some("OKP") => {
            is_for_type(&["EdDSA"])?;
            if text("crv") != Some("Ed25519") {
                return Err(JwkError::UnknownCurve);
            }
            KeyMaterial::ed25519(&part("x")?).ok_or(JwkError::Point)?
        }
        Some("oct") => {
            is_for_type(&["HS256", "HS384", "HS512"])?;
            KeyMaterial::Secret(part("k")?.into())
        }
        _ => return Err(JwkError::KeyType),
    };
    Ok(Jwk {
        id: text("kid").unwrap_or_default().into(),
        algorithm: match (alg, SignatureAlgorithm::parse(alg), only) {
            ("", _, _) => JwkAlgorithm::Any,
            (_, Some(known), None) => JwkAlgorithm::Only(known),
            (_, Some(known), Some(only)) if known == only => JwkAlgorithm::Only(known),
            _ => JwkAlgorithm::Unknown,
        },
        material,
    })
}

/// The curve that `alg` and `crv` name; P-256 when neither does, as in Envoy.
fn curve(alg: &str, crv: &str) -> Result<Curve, JwkError> {
    let of_alg = match alg {
        "ES256" => Some(Curve::P256),
        "ES384" => Some(Curve::P384),
        "ES512" => Some(Curve::P521),
        _ => None,
    };
    match (of_alg, alg, crv) {
        (Some(curve), _, "") => Ok(curve),
        (None, "", "") => Ok(Curve::P256),
        (of_alg, _, crv) => {
            let curve = Curve::parse(crv).ok_or(JwkError::UnknownCurve)?;
            let fits = of_alg.map_or(alg.is_empty(), |of_alg| of_alg == curve);
            fits.then_some(curve).ok_or(JwkError::UnknownCurve)
        }
    }
}

fn certificates(fields: &Object) -> Result<Vec<Jwk>, JwksError> {
    let mut all = Vec::new();
    for (id, value) in fields {
        match value {
            Value::String(pem) if !id.is_empty() && is_certificate(pem) => all.push((id, pem)),
            _ => return Err(JwksError::NoKeys),
        }
    }
    if all.is_empty() {
        return Err(JwksError::NoKeys);
    }
    if all.len() > MOST_KEYS {
        return Err(JwksError::TooManyKeys);
    }
    let keys = all.into_iter().map(|(id, pem)| {
        let material = of_certificate(pem).map_err(JwksError::Certificate)?;
        Ok(Jwk {
            id: id.clone(),
            algorithm: JwkAlgorithm::Any,
            material,
        })
    });
    keys.collect()
}

fn is_certificate(pem: &str) -> bool {
    pem.starts_with(PEM_BEGIN) && pem.ends_with(PEM_END)
}

/// The RSA key of a certificate, of which nothing else is looked at.
fn of_certificate(pem: &str) -> Result<KeyMaterial, JwkError> {
    let der = CertificateDer::from_pem_slice(pem.as_bytes()).map_err(|_| JwkError::Parse)?;
    let (_, certificate) = X509Certificate::from_der(&der).map_err(|_| JwkError::Parse)?;
    match certificate.public_key().parsed() {
        Ok(PublicKey::RSA(key)) => KeyMaterial::rsa(key.modulus, key.exponent).ok_or(JwkError::Rsa),
        _ => Err(JwkError::Parse),
    }
}
