//! Tokens, and the key set that verifies them.

use std::time::{SystemTime, UNIX_EPOCH};

use aws_lc_rs::hmac;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair, RSA_PKCS1_SHA256,
    RsaKeyPair,
};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

const SECRET: &[u8] = b"a secret of thirty-two characters";

pub fn encoded(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// Seconds since 1970.
pub fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_secs()
}

/// Keys of some types.
pub struct Issuer {
    rsa: RsaKeyPair,
    ec: EcdsaKeyPair,
    ed: Ed25519KeyPair,
}

impl Issuer {
    pub fn new() -> Self {
        Self {
            rsa: RsaKeyPair::generate(KeySize::Rsa2048).unwrap(),
            ec: EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap(),
            ed: Ed25519KeyPair::generate().unwrap(),
        }
    }

    pub fn jwks(&self) -> String {
        let rsa = self.rsa.public_key();
        let n = encoded(rsa.modulus().big_endian_without_leading_zero());
        let (x, y) = self.ec.public_key().as_ref()[1..].split_at(32);
        json!({"keys": [
            {"kty": "RSA", "kid": "rsa", "alg": "RS256", "use": "sig", "n": n, "e": "AQAB"},
            {"kty": "EC", "kid": "ec", "crv": "P-256", "x": encoded(x), "y": encoded(y)},
            {"kty": "OKP", "kid": "ed", "alg": "EdDSA", "crv": "Ed25519", "x": encoded(self.ed.public_key())},
            {"kty": "oct", "kid": "hs", "alg": "HS256", "k": encoded(SECRET)},
            {"kty": "what", "kid": "skipped"},
        ]})
        .to_string()
    }

    /// A token of the issuer `shop` for `cart`, with other claims.
    pub fn token(&self, claims: Value) -> String {
        let mut payload = json!({"iss": "shop", "aud": "cart", "exp": now() + 3600});
        for (name, value) in claims.as_object().unwrap() {
            payload[name] = value.clone();
        }
        self.signed(json!({"alg": "HS256", "kid": "hs"}), &payload.to_string())
    }

    /// Any header and payload, signed by what the header says, else by the secret.
    pub fn signed(&self, header: Value, payload: &str) -> String {
        let message = format!("{}.{}", encoded(header.to_string()), encoded(payload));
        let bytes = message.as_bytes();
        let random = SystemRandom::new();
        let signature = match header["alg"].as_str() {
            Some("RS256") => {
                let mut signature = vec![0; self.rsa.public_modulus_len()];
                let signed = self
                    .rsa
                    .sign(&RSA_PKCS1_SHA256, &random, bytes, &mut signature);
                signed.map(|()| signature).unwrap()
            }
            Some("ES256") => self.ec.sign(&random, bytes).unwrap().as_ref().to_vec(),
            Some("EdDSA") => self.ed.sign(bytes).as_ref().to_vec(),
            _ => hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, SECRET), bytes)
                .as_ref()
                .to_vec(),
        };
        format!("{message}.{}", encoded(signature))
    }
}
