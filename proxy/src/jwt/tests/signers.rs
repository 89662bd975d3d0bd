//! Keys of each type, and what they sign.

use std::rc::Rc;

use aws_lc_rs::hmac;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    self, ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING,
    ECDSA_P521_SHA512_FIXED_SIGNING, EcdsaKeyPair, EcdsaSigningAlgorithm, Ed25519KeyPair, KeyPair,
    RsaKeyPair,
};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value as Json, json};

use crate::jwt::{Jwks, Jwt, JwtStatus};

pub(super) fn encoded(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

pub(super) type Sign = Box<dyn Fn(&[u8]) -> Vec<u8>>;

/// A key that signs by `alg`, and its JWK.
pub(super) struct Signer {
    pub(super) alg: &'static str,
    pub(super) jwk: Json,
    pub(super) sign: Sign,
}

impl Signer {
    pub(super) fn token(&self, header: Json, payload: &Json) -> String {
        let mut fields = json!({"alg": self.alg});
        for (key, value) in header.as_object().unwrap() {
            fields[key] = value.clone();
        }
        let signed = format!(
            "{}.{}",
            encoded(fields.to_string()),
            encoded(payload.to_string())
        );
        let signature = encoded((self.sign)(signed.as_bytes()));
        format!("{signed}.{signature}")
    }
}

pub(super) fn rsa_signers() -> Vec<Signer> {
    let pair = Rc::new(RsaKeyPair::generate(KeySize::Rsa2048).unwrap());
    let public = pair.public_key();
    let n = encoded(public.modulus().big_endian_without_leading_zero());
    let e = encoded(public.exponent().big_endian_without_leading_zero());
    let algorithms: [(&str, &'static dyn signature::RsaEncoding); 6] = [
        ("RS256", &signature::RSA_PKCS1_SHA256),
        ("RS384", &signature::RSA_PKCS1_SHA384),
        ("RS512", &signature::RSA_PKCS1_SHA512),
        ("PS256", &signature::RSA_PSS_SHA256),
        ("PS384", &signature::RSA_PSS_SHA384),
        ("PS512", &signature::RSA_PSS_SHA512),
    ];
    let of = |(alg, encoding): (&'static str, &'static dyn signature::RsaEncoding)| {
        let pair = pair.clone();
        Signer {
            alg,
            jwk: json!({"kty": "RSA", "n": n, "e": e}),
            sign: Box::new(move |message| {
                let mut signature = vec![0; pair.public_modulus_len()];
                let random = SystemRandom::new();
                pair.sign(encoding, &random, message, &mut signature)
                    .unwrap();
                signature
            }),
        }
    };
    algorithms.into_iter().map(of).collect()
}

pub(super) fn ec_signer(
    alg: &'static str,
    crv: &str,
    algorithm: &'static EcdsaSigningAlgorithm,
) -> Signer {
    let pair = EcdsaKeyPair::generate(algorithm).unwrap();
    let point = &pair.public_key().as_ref()[1..];
    let (x, y) = point.split_at(point.len() / 2);
    Signer {
        alg,
        jwk: json!({"kty": "EC", "crv": crv, "x": encoded(x), "y": encoded(y)}),
        sign: Box::new(move |message| {
            pair.sign(&SystemRandom::new(), message)
                .unwrap()
                .as_ref()
                .to_vec()
        }),
    }
}

pub(super) fn hmac_signer(alg: &'static str, algorithm: hmac::Algorithm) -> Signer {
    let secret = b"a secret that is long enough for all of them";
    let key = hmac::Key::new(algorithm, secret);
    Signer {
        alg,
        jwk: json!({"kty": "oct", "k": encoded(secret)}),
        sign: Box::new(move |message| hmac::sign(&key, message).as_ref().to_vec()),
    }
}

pub(super) fn all_signers() -> Vec<Signer> {
    let mut all = rsa_signers();
    all.push(ec_signer(
        "ES256",
        "P-256",
        &ECDSA_P256_SHA256_FIXED_SIGNING,
    ));
    all.push(ec_signer(
        "ES384",
        "P-384",
        &ECDSA_P384_SHA384_FIXED_SIGNING,
    ));
    all.push(ec_signer(
        "ES512",
        "P-521",
        &ECDSA_P521_SHA512_FIXED_SIGNING,
    ));
    all.push(hmac_signer("HS256", hmac::HMAC_SHA256));
    all.push(hmac_signer("HS384", hmac::HMAC_SHA384));
    all.push(hmac_signer("HS512", hmac::HMAC_SHA512));
    let pair = Ed25519KeyPair::generate().unwrap();
    all.push(Signer {
        alg: "EdDSA",
        jwk: json!({"kty": "OKP", "crv": "Ed25519", "x": encoded(pair.public_key().as_ref())}),
        sign: Box::new(move |message| pair.sign(message).as_ref().to_vec()),
    });
    all
}

pub(super) fn key_set(keys: &[Json]) -> Jwks {
    Jwks::parse(json!({"keys": keys}).to_string().as_bytes()).unwrap()
}

pub(super) fn verified(token: &str, keys: &Jwks) -> Result<(), JwtStatus> {
    Jwt::parse(token.as_bytes()).unwrap().verify(keys)
}
