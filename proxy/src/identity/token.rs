//! Tokens for the first certificate.
//!
//! Only the control plane can verify a token. Join tokens, `anyam-join.v1.<base64url
//! payload>.<base64url signature>`, contain the hash of the CA's root, by which the proxy
//! authenticates the control plane before it has a bundle. Other tokens, such as Kubernetes service
//! accounts', require a file of roots.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::pin;

const PREFIX: &str = "anyam-join.v1.";
/// Join tokens have a few hundred bytes, service accounts' some thousand; longer text is no token.
const MAX: usize = 8 << 10;

/// A token as it is presented.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Token {
    pub(super) text: String,
    /// SHA-256 of the DER of each root that is accepted.
    pub(super) ca_hashes: Vec<[u8; 32]>,
}

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    #[error("is longer than {MAX} bytes")]
    TooLong,
    #[error("does not look like `{PREFIX}<payload>.<signature>`")]
    Shape,
    #[error("its payload is not base64url JSON")]
    Payload,
    #[error("its payload has no ca_hash of 64 hex digits")]
    CaHash,
    #[error("is empty, or not one line of printable characters")]
    Text,
    #[error("the roots beside it cannot be used: {0}")]
    Roots(String),
}

#[derive(serde::Deserialize)]
struct Payload {
    #[serde(default)]
    ca_hash: String,
}

impl Token {
    pub(super) fn parse(text: &str) -> Result<Self, TokenError> {
        let text = text.trim();
        if text.len() > MAX {
            return Err(TokenError::TooLong);
        }
        let rest = text.strip_prefix(PREFIX).ok_or(TokenError::Shape)?;
        let (payload, signature) = rest.split_once('.').ok_or(TokenError::Shape)?;
        if payload.is_empty() || signature.is_empty() || signature.contains('.') {
            return Err(TokenError::Shape);
        }
        let json = URL_SAFE_NO_PAD
            .decode(payload)
            .map_err(|_| TokenError::Payload)?;
        let payload: Payload = serde_json::from_slice(&json).map_err(|_| TokenError::Payload)?;
        Ok(Token {
            text: text.to_owned(),
            ca_hashes: vec![unhex(&payload.ca_hash).ok_or(TokenError::CaHash)?],
        })
    }

    /// Any token, for a CA whose root is in `roots` (PEM).
    pub(super) fn beside_roots(text: &str, roots: &str) -> Result<Self, TokenError> {
        let text = text.trim();
        if text.len() > MAX {
            return Err(TokenError::TooLong);
        }
        if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(TokenError::Text);
        }
        let roots = pin::certificates(roots).map_err(TokenError::Roots)?;
        if roots.is_empty() {
            return Err(TokenError::Roots("there is no certificate".to_owned()));
        }
        Ok(Token {
            text: text.to_owned(),
            ca_hashes: roots.iter().map(|root| pin::hash(root)).collect(),
        })
    }
}

fn unhex(text: &str) -> Option<[u8; 32]> {
    if text.len() != 64 || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    let mut out = [0; 32];
    for (byte, digits) in out.iter_mut().zip(text.as_bytes().chunks(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(payload: &str) -> String {
        format!("{PREFIX}{}.c2ln", URL_SAFE_NO_PAD.encode(payload))
    }

    #[test]
    fn the_hash_is_read() {
        let hash = "ab".repeat(32);
        let token = Token::parse(&token(&format!(r#"{{"ca_hash":"{hash}","jti":"1"}}"#)));
        assert_eq!(token.map(|token| token.ca_hashes), Ok(vec![[0xab; 32]]));
    }

    #[test]
    fn other_tokens_need_roots() {
        let made = rcgen::generate_simple_self_signed(["a".to_owned()]).unwrap();
        let roots = made.cert.pem().repeat(2);
        let token = Token::beside_roots(" header.payload.signature\n", &roots).unwrap();
        assert_eq!(token.text, "header.payload.signature");
        assert_eq!(token.ca_hashes, [pin::hash(made.cert.der()); 2]);
        for (text, roots, expected) in [
            ("", roots.as_str(), TokenError::Text),
            ("a b", &roots, TokenError::Text),
            ("a\nb", &roots, TokenError::Text),
            (&"x".repeat(MAX + 1), &roots, TokenError::TooLong),
        ] {
            assert_eq!(Token::beside_roots(text, roots).err(), Some(expected));
        }
        for roots in ["", "no PEM"] {
            let error = Token::beside_roots("a", roots).err();
            assert!(matches!(error, Some(TokenError::Roots(_))), "{error:?}");
        }
    }

    #[test]
    fn junk_is_refused() {
        for (text, error) in [
            (String::new(), TokenError::Shape),
            ("anyam-join.v2.e30.eA".into(), TokenError::Shape),
            ("anyam-join.v1.e30".into(), TokenError::Shape),
            ("anyam-join.v1.e30.a.b".into(), TokenError::Shape),
            ("anyam-join.v1.!!.eA".into(), TokenError::Payload),
            (token("7"), TokenError::Payload),
            (token("{}"), TokenError::CaHash),
            (token(r#"{"ca_hash":"zz"}"#), TokenError::CaHash),
            ("x".repeat(MAX + 1), TokenError::TooLong),
        ] {
            assert_eq!(Token::parse(&text).err(), Some(error), "{text:.40}");
        }
        let signed = format!(r#"{{"ca_hash":"+{}"}}"#, "1".repeat(63));
        assert_eq!(
            Token::parse(&token(&signed)).err(),
            Some(TokenError::CaHash)
        );
    }
}
