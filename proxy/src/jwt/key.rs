//! A key, and signatures that it verifies. The type of the key decides which algorithms it is for: a
//! token cannot have a public key taken for the secret of an HMAC.

use aws_lc_rs::signature::{self, ParsedPublicKey, RsaParameters, UnparsedPublicKey};
use aws_lc_rs::{hmac, rsa};

use super::algorithm::SignatureAlgorithm;
use super::status::JwtStatus;

/// RSA keys of fewer bits are refused, as everywhere here.
const RSA_BITS: std::ops::RangeInclusive<usize> = 2048..=8192;
/// Exponents other than the usual ones are refused, as by Envoy.
const EXPONENTS: [&[u8]; 2] = [&[3], &[1, 0, 1]];
/// Bytes of an Ed25519 signature.
const ED25519: usize = 64;

/// A key of a set.
pub struct Jwk {
    /// `kid`; empty: none.
    pub id: Box<str>,
    /// `alg`.
    pub algorithm: JwkAlgorithm,
    pub material: KeyMaterial,
}

/// Which signatures a key says it is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JwkAlgorithm {
    /// Any of its type.
    Any,
    Only(SignatureAlgorithm),
    /// An algorithm that is not known here.
    Unknown,
}

pub enum KeyMaterial {
    /// Modulus and exponent, big-endian, without leading zeros.
    Rsa(rsa::PublicKeyComponents<Box<[u8]>>),
    /// An uncompressed point.
    Ec(Curve, Box<[u8]>),
    Ed25519(Box<[u8]>),
    /// The secret of an HMAC.
    Secret(Box<[u8]>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Curve {
    P256,
    P384,
    P521,
}

impl Curve {
    pub fn parse(name: &str) -> Option<Self> {
        Some(match name {
            "P-256" => Self::P256,
            "P-384" => Self::P384,
            "P-521" => Self::P521,
            _ => return None,
        })
    }

    /// The algorithm that signs with it (RFC 7518, 3.4).
    pub fn algorithm(self) -> SignatureAlgorithm {
        match self {
            Self::P256 => SignatureAlgorithm::Es256,
            Self::P384 => SignatureAlgorithm::Es384,
            Self::P521 => SignatureAlgorithm::Es512,
        }
    }

    /// Bytes of a coordinate.
    fn bytes(self) -> usize {
        match self {
            Self::P256 => 32,
            Self::P384 => 48,
            Self::P521 => 66,
        }
    }

    fn signatures(self) -> &'static signature::EcdsaVerificationAlgorithm {
        match self {
            Self::P256 => &signature::ECDSA_P256_SHA256_FIXED,
            Self::P384 => &signature::ECDSA_P384_SHA384_FIXED,
            Self::P521 => &signature::ECDSA_P521_SHA512_FIXED,
        }
    }
}

impl KeyMaterial {
    /// An RSA key; `None`: it is too short, too long, or has an unusual exponent.
    pub fn rsa(modulus: &[u8], exponent: &[u8]) -> Option<Self> {
        let (n, e) = (without_zeros(modulus), without_zeros(exponent));
        let first = n.first()?;
        let zeros = usize::try_from(first.leading_zeros()).ok()?;
        let bits = n.len().checked_mul(8)?.checked_sub(zeros)?;
        let is_odd = n.last().is_some_and(|last| last & 1 == 1);
        let fits = RSA_BITS.contains(&bits) && is_odd && EXPONENTS.contains(&e);
        fits.then(|| {
            Self::Rsa(rsa::PublicKeyComponents {
                n: n.into(),
                e: e.into(),
            })
        })
    }

    /// A point of `curve`; `None`: it is none.
    pub fn point(curve: Curve, x: &[u8], y: &[u8]) -> Option<Self> {
        let mut point = vec![4];
        for coordinate in [x, y] {
            let coordinate = without_zeros(coordinate);
            let missing = curve.bytes().checked_sub(coordinate.len())?;
            point.extend(std::iter::repeat_n(0, missing));
            point.extend_from_slice(coordinate);
        }
        ParsedPublicKey::new(curve.signatures(), &point).ok()?;
        Some(Self::Ec(curve, point.into()))
    }

    /// An Ed25519 key; `None`: it is none.
    pub fn ed25519(key: &[u8]) -> Option<Self> {
        ParsedPublicKey::new(&signature::ED25519, key).ok()?;
        Some(Self::Ed25519(key.into()))
    }
}

fn without_zeros(mut number: &[u8]) -> &[u8] {
    while let Some(rest) = number.strip_prefix(&[0]) {
        number = rest;
    }
    number
}

impl Jwk {
    /// Whether a token with this key id, which may be empty, and algorithm is to be tried with it.
    pub fn is_for(&self, id: &str, algorithm: SignatureAlgorithm) -> bool {
        let same_id = id.is_empty() || self.id.is_empty() || *self.id == *id;
        same_id
            && match self.algorithm {
                JwkAlgorithm::Any => true,
                JwkAlgorithm::Only(only) => only == algorithm,
                JwkAlgorithm::Unknown => false,
            }
    }

    /// # Errors
    /// When the key is not for the algorithm, or the signature is not one of `message` by it.
    pub fn verify(
        &self,
        algorithm: SignatureAlgorithm,
        message: &[u8],
        signature: &[u8],
    ) -> Result<(), JwtStatus> {
        let verified = match (&self.material, algorithm) {
            (KeyMaterial::Rsa(key), _) => {
                let Some(parameters) = rsa_parameters(algorithm) else {
                    return Err(JwtStatus::NotVerified);
                };
                key.verify(parameters, message, signature)
            }
            (KeyMaterial::Ec(curve, point), _) if curve.algorithm() == algorithm => {
                UnparsedPublicKey::new(curve.signatures(), point).verify(message, signature)
            }
            (KeyMaterial::Ed25519(key), SignatureAlgorithm::EdDsa) => {
                if signature.len() != ED25519 {
                    return Err(JwtStatus::Ed25519Length);
                }
                UnparsedPublicKey::new(&signature::ED25519, key).verify(message, signature)
            }
            (KeyMaterial::Secret(secret), _) => {
                let Some(hash) = hmac_of(algorithm) else {
                    return Err(JwtStatus::NotVerified);
                };
                // In constant time.
                hmac::verify(&hmac::Key::new(hash, secret), message, signature)
            }
            (KeyMaterial::Ec(..) | KeyMaterial::Ed25519(_), _) => {
                return Err(JwtStatus::NotVerified);
            }
        };
        verified.map_err(|_| JwtStatus::NotVerified)
    }
}

fn rsa_parameters(algorithm: SignatureAlgorithm) -> Option<&'static RsaParameters> {
    Some(match algorithm {
        SignatureAlgorithm::Rs256 => &signature::RSA_PKCS1_2048_8192_SHA256,
        SignatureAlgorithm::Rs384 => &signature::RSA_PKCS1_2048_8192_SHA384,
        SignatureAlgorithm::Rs512 => &signature::RSA_PKCS1_2048_8192_SHA512,
        SignatureAlgorithm::Ps256 => &signature::RSA_PSS_2048_8192_SHA256,
        SignatureAlgorithm::Ps384 => &signature::RSA_PSS_2048_8192_SHA384,
        SignatureAlgorithm::Ps512 => &signature::RSA_PSS_2048_8192_SHA512,
        _ => return None,
    })
}

fn hmac_of(algorithm: SignatureAlgorithm) -> Option<hmac::Algorithm> {
    Some(match algorithm {
        SignatureAlgorithm::Hs256 => hmac::HMAC_SHA256,
        SignatureAlgorithm::Hs384 => hmac::HMAC_SHA384,
        SignatureAlgorithm::Hs512 => hmac::HMAC_SHA512,
        _ => return None,
    })
}
