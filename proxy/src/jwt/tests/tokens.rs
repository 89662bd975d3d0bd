use aws_lc_rs::hmac;
use proptest::prelude::*;
use serde_json::json;

use super::signers::*;
use crate::jwt::{Jwks, Jwt, JwtStatus};

#[test]
fn tokens_are_refused_for_what_is_wrong_first() {
    let part = |json: &str| encoded(json);
    let good = part(r#"{"alg":"HS256"}"#);
    let with_payload = |payload: &str| format!("{good}.{}.YQ", part(payload));
    use JwtStatus as S;
    for (token, wanted) in [
        ("".to_owned(), S::BadFormat),
        ("a".to_owned(), S::BadFormat),
        ("a.b".to_owned(), S::BadFormat),
        ("a.b.c.d".to_owned(), S::BadFormat),
        (format!("{good}..YQ"), S::BadFormat),
        (format!("{good}.{}.", part("{}")), S::BadFormat),
        ("x".repeat(70_000), S::BadFormat),
        (format!("!.{}.YQ", part("{}")), S::HeaderBase64),
        (format!("{good}=.{}.YQ", part("{}")), S::HeaderBase64),
        (format!("{}.{}.YQ", part("{x"), part("{}")), S::HeaderJson),
        (format!("{}.{}.YQ", part("[]"), part("{}")), S::HeaderJson),
        (format!("{}.{}.YQ", part("{}"), part("{}")), S::HeaderAlg),
        (
            format!("{}.{}.YQ", part(r#"{"alg":1}"#), part("{}")),
            S::HeaderAlg,
        ),
        (
            format!("{}.{}.YQ", part(r#"{"alg":"RS256","kid":5}"#), part("{}")),
            S::HeaderKid,
        ),
        (format!("{good}.!!.YQ"), S::PayloadBase64),
        (with_payload("{x"), S::PayloadJson),
        (with_payload(r#"{"iss":"a","iss":"b"}"#), S::PayloadJson),
        (with_payload(r#"{"iss":5}"#), S::IssuerType),
        (with_payload(r#"{"iss":null}"#), S::IssuerType),
        (with_payload(r#"{"sub":5}"#), S::SubjectType),
        (with_payload(r#"{"iat":"x"}"#), S::IssuedAtType),
        (with_payload(r#"{"iat":-1}"#), S::IssuedAtRange),
        (with_payload(r#"{"nbf":"x"}"#), S::NotBeforeType),
        (with_payload(r#"{"nbf":-1}"#), S::NotBeforeRange),
        (with_payload(r#"{"exp":true}"#), S::ExpirationType),
        (
            with_payload(r#"{"exp":18446744073709551616}"#),
            S::ExpirationRange,
        ),
        (with_payload(r#"{"jti":5}"#), S::IdType),
        (with_payload(r#"{"aud":5}"#), S::AudienceType),
        (with_payload(r#"{"aud":["a",5]}"#), S::AudienceType),
        (format!("{good}.{}.!", part("{}")), S::SignatureBase64),
        // Bits that no byte has.
        (format!("{good}.{}.YR", part("{}")), S::SignatureBase64),
    ] {
        assert_eq!(Jwt::parse(token.as_bytes()).unwrap_err(), wanted, "{token}");
    }
    assert_eq!(Jwt::parse(b"\xff.a.b").unwrap_err(), S::BadFormat);
}

#[test]
fn claims_and_times_are_read() {
    let payload = json!({
        "iss": "shop", "sub": "cart", "aud": ["a", "b"], "exp": 1000.9, "nbf": 500, "extra": {"x": 1},
    });
    let token = hmac_signer("HS256", hmac::HMAC_SHA256).token(json!({}), &payload);
    let token = Jwt::parse(token.as_bytes()).unwrap();
    assert_eq!((token.issuer(), token.subject()), ("shop", "cart"));
    assert_eq!(token.audiences().collect::<Vec<_>>(), ["a", "b"]);
    assert_eq!(token.payload_text(), encoded(payload.to_string()));
    assert_eq!(token.expires, Some(1000));
    for (now, wanted) in [
        (0, Err(JwtStatus::NotYetValid)),
        (439, Err(JwtStatus::NotYetValid)),
        (440, Ok(())),
        (1060, Ok(())),
        (1061, Err(JwtStatus::Expired)),
        (u64::MAX, Err(JwtStatus::Expired)),
    ] {
        assert_eq!(token.check_time(now, 60), wanted, "{now}");
    }
    // As RFC 7519 has it, and not as no time at all.
    let token = format!(
        "{}.{}.YQ",
        encoded(r#"{"alg":"HS256"}"#),
        encoded(r#"{"exp":0}"#)
    );
    let token = Jwt::parse(token.as_bytes()).unwrap();
    assert_eq!(token.check_time(1000, 60), Err(JwtStatus::Expired));
}

proptest! {
    #[test]
    fn any_bytes_can_be_parsed(bytes: Vec<u8>, parts in prop::collection::vec("[A-Za-z0-9_=-]{0,40}", 0..5)) {
        let _ = Jwt::parse(&bytes);
        let _ = Jwt::parse(parts.join(".").as_bytes());
        let _ = Jwks::parse(&bytes);
    }

    #[test]
    fn a_token_of_any_claims_is_read_as_it_was_written(
        issuer in "\\PC{0,20}", audiences in prop::collection::vec("\\PC{0,10}", 0..4), exp in 0u32..,
    ) {
        let payload = json!({"iss": issuer, "aud": audiences, "exp": exp});
        let token = hmac_signer("HS384", hmac::HMAC_SHA384).token(json!({"kid": issuer}), &payload);
        let token = Jwt::parse(token.as_bytes()).unwrap();
        prop_assert_eq!(token.issuer(), &*issuer);
        prop_assert_eq!(&*token.key_id, &*issuer);
        prop_assert_eq!(token.audiences().collect::<Vec<_>>(), audiences);
        prop_assert_eq!(token.expires, Some(u64::from(exp)));
        prop_assert_eq!(token.payload_text(), encoded(payload.to_string()));
    }
}
