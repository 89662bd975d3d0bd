use aws_lc_rs::encoding::AsDer;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{self, ECDSA_P256_SHA256_FIXED_SIGNING, RsaKeyPair};
use serde_json::{Value as Json, json};

use super::signers::*;
use crate::jwt::jwks::JwkError;
use crate::jwt::{Jwks, JwksError, JwtStatus};

#[test]
fn key_sets_are_refused_with_the_reason() {
    let refused = |text: &str| match Jwks::parse(text.as_bytes()) {
        Ok(_) => panic!("{text}"),
        Err(why) => why,
    };
    assert_eq!(refused("{"), JwksError::NotJson);
    assert_eq!(refused("{}"), JwksError::NoKeys);
    assert_eq!(refused(r#"{"keys":1}"#), JwksError::KeysType);
    assert_eq!(refused(r#"{"a":"no certificate"}"#), JwksError::NoKeys);
    let many = vec![json!({}); 1000];
    assert_eq!(
        refused(&json!({"keys": many}).to_string()),
        JwksError::TooManyKeys
    );
    assert_eq!(refused(&" ".repeat(2 << 20)), JwksError::TooLarge);
    let ec = ec_signer("ES256", "P-256", &ECDSA_P256_SHA256_FIXED_SIGNING).jwk;
    let ec_with = |key: &str, value: &str| {
        let mut jwk = ec.clone();
        jwk[key] = value.into();
        jwk
    };
    let short = encoded([0xff; 128]);
    for (jwk, wanted) in [
        (json!({}), JwkError::KeyType),
        (json!({"kty": "x"}), JwkError::KeyType),
        (json!({"kty": "RSA"}), JwkError::Part),
        (json!({"kty": "RSA", "n": "!", "e": "AQAB"}), JwkError::Part),
        (
            json!({"kty": "RSA", "n": short, "e": "AQAB"}),
            JwkError::Rsa,
        ),
        (
            json!({"kty": "RSA", "alg": "HS256", "n": short, "e": "AQAB"}),
            JwkError::AlgorithmForType,
        ),
        (
            json!({"kty": "oct", "alg": "RS256", "k": "YQ"}),
            JwkError::AlgorithmForType,
        ),
        (json!({"kty": "oct", "k": ""}), JwkError::Part),
        (
            json!({"kty": "OKP", "crv": "X25519", "x": "YQ"}),
            JwkError::UnknownCurve,
        ),
        (
            json!({"kty": "OKP", "crv": "Ed25519", "x": "YQ"}),
            JwkError::Point,
        ),
        (ec_with("crv", "P-192"), JwkError::UnknownCurve),
        (ec_with("alg", "ES384"), JwkError::UnknownCurve),
        (ec_with("alg", "RS256"), JwkError::AlgorithmForType),
        (ec_with("x", "YQ"), JwkError::Point),
        (ec_with("use", "enc"), JwkError::Use),
    ] {
        let text = json!({"keys": [jwk]}).to_string();
        assert_eq!(refused(&text), JwksError::NoneValid(wanted), "{jwk}");
        // Beside one that can be used it is left out.
        key_set(&[jwk, ec.clone()]);
    }
    assert_eq!(
        refused(r#"{"keys":[1]}"#),
        JwksError::NoneValid(JwkError::Absent)
    );
}

#[test]
fn certificates_by_key_id_are_keys() {
    let pair = RsaKeyPair::generate(KeySize::Rsa2048).unwrap();
    let pkcs8 = pair.as_der().unwrap();
    let key = rcgen::KeyPair::try_from(pkcs8.as_ref()).unwrap();
    let params = rcgen::CertificateParams::new(vec!["shop".to_owned()]).unwrap();
    let pem = params
        .self_signed(&key)
        .unwrap()
        .pem()
        .replace("\r\n", "\n");
    let keys = Jwks::parse(json!({"one": pem}).to_string().as_bytes()).unwrap();
    let signer = Signer {
        alg: "RS256",
        jwk: Json::Null,
        sign: Box::new(move |message| {
            let mut signature = vec![0; pair.public_modulus_len()];
            let encoding = &signature::RSA_PKCS1_SHA256;
            pair.sign(encoding, &SystemRandom::new(), message, &mut signature)
                .unwrap();
            signature
        }),
    };
    let token = signer.token(json!({"kid": "one"}), &json!({}));
    assert_eq!(verified(&token, &keys), Ok(()));
    let token = signer.token(json!({"kid": "two"}), &json!({}));
    assert_eq!(verified(&token, &keys), Err(JwtStatus::NoKeyMatches));
}
