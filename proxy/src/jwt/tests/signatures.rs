use aws_lc_rs::hmac;
use aws_lc_rs::signature::ECDSA_P256_SHA256_FIXED_SIGNING;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value as Json, json};

use super::signers::*;
use crate::jwt::{Jwt, JwtStatus};

#[test]
fn each_algorithm_verifies_its_own_signatures_and_no_others() {
    let signers = all_signers();
    let payload = json!({"iss": "shop"});
    for signer in &signers {
        let token = signer.token(json!({}), &payload);
        let keys = key_set(std::slice::from_ref(&signer.jwk));
        assert_eq!(verified(&token, &keys), Ok(()), "{}", signer.alg);
        let mut named = signer.jwk.clone();
        named["alg"] = signer.alg.into();
        assert_eq!(
            verified(&token, &key_set(&[named])),
            Ok(()),
            "{}",
            signer.alg
        );

        let (signed, signature) = token.rsplit_once('.').unwrap();
        let mut bytes = URL_SAFE_NO_PAD.decode(signature).unwrap();
        bytes[7] ^= 1;
        let changed = format!("{signed}.{}", encoded(&bytes));
        assert_eq!(verified(&changed, &keys), Err(JwtStatus::NotVerified));
        bytes[7] ^= 1;
        bytes.push(0);
        let longer = format!("{signed}.{}", encoded(&bytes));
        assert!(verified(&longer, &keys).is_err(), "{}", signer.alg);
        let (header, _) = signed.split_once('.').unwrap();
        let other = encoded(json!({"iss": "shop", "x": 1}).to_string());
        let forged = format!("{header}.{other}.{signature}");
        assert_eq!(verified(&forged, &keys), Err(JwtStatus::NotVerified));

        // The same signature under the name of another algorithm.
        for other in &signers {
            if other.alg == signer.alg {
                continue;
            }
            let renamed = signer.token(json!({"alg": other.alg}), &payload);
            assert!(
                verified(&renamed, &keys).is_err(),
                "{} as {}",
                signer.alg,
                other.alg
            );
        }
    }
}

/// The classic: an HMAC by the public key, which everyone has.
#[test]
fn a_public_key_is_no_secret() {
    for signer in rsa_signers().into_iter().take(1) {
        let keys = key_set(std::slice::from_ref(&signer.jwk));
        let public = signer.jwk.to_string();
        let n = URL_SAFE_NO_PAD
            .decode(signer.jwk["n"].as_str().unwrap())
            .unwrap();
        for secret in [public.as_bytes(), &n] {
            let key = hmac::Key::new(hmac::HMAC_SHA256, secret);
            let forger = Signer {
                alg: "HS256",
                jwk: Json::Null,
                sign: Box::new(move |message| hmac::sign(&key, message).as_ref().to_vec()),
            };
            let token = forger.token(json!({}), &json!({}));
            assert_eq!(verified(&token, &keys), Err(JwtStatus::NotVerified));
        }
    }
    for alg in ["none", "None", "", "HS1", "rs256"] {
        let header = encoded(json!({"alg": alg}).to_string());
        let token = format!("{header}.{}.{}", encoded("{}"), encoded("x"));
        let refused = Jwt::parse(token.as_bytes()).unwrap_err();
        assert_eq!(refused, JwtStatus::UnknownAlg, "{alg}");
    }
}

#[test]
fn keys_are_chosen_by_id_and_algorithm() {
    let (one, two) = (
        hmac_signer("HS256", hmac::HMAC_SHA256),
        ec_signer("ES256", "P-256", &ECDSA_P256_SHA256_FIXED_SIGNING),
    );
    let with = |jwk: &Json, more: Json| {
        let mut jwk = jwk.clone();
        for (key, value) in more.as_object().unwrap() {
            jwk[key] = value.clone();
        }
        jwk
    };
    let keys = key_set(&[
        with(&one.jwk, json!({"kid": "one", "alg": "HS256"})),
        with(&two.jwk, json!({"kid": "two"})),
    ]);
    let payload = json!({});
    for (signer, id, wanted) in [
        (&one, json!({"kid": "one"}), Ok(())),
        (&one, json!({}), Ok(())),
        (&two, json!({}), Ok(())),
        (&two, json!({"kid": "two"}), Ok(())),
        (&two, json!({"kid": "one"}), Err(JwtStatus::NoKeyMatches)),
        (&one, json!({"kid": "two"}), Err(JwtStatus::NotVerified)),
        (&one, json!({"kid": "three"}), Err(JwtStatus::NoKeyMatches)),
    ] {
        let token = signer.token(id.clone(), &payload);
        assert_eq!(verified(&token, &keys), wanted, "{} {id}", signer.alg);
    }
}
