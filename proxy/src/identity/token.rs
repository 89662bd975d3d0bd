//! Join tokens: `anyam-join.v1.<base64url payload>.<base64url signature>`.
//!
//! Only the control plane can check the signature. The proxy reads one thing out of it: the hash of
//! the CA's root, by which it authenticates the control plane before it has a bundle.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

const PREFIX: &str = "anyam-join.v1.";
/// A token is a few hundred bytes; what is longer is no token.
const MAX: usize = 8 << 10;

/// A token as it is presented.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Token {
    pub(super) text: String,
    /// SHA-256 of the root certificate's DER.
    pub(super) ca_hash: [u8; 32],
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
            ca_hash: unhex(&payload.ca_hash).ok_or(TokenError::CaHash)?,
        })
    }
}

fn unhex(text: &str) -> Option<[u8; 32]> {
    if text.len() != 64 || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    let mut out = [0; 32];
    for (at, byte) in out.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[at * 2..at * 2 + 2], 16).ok()?;
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
        assert_eq!(token.map(|token| token.ca_hash), Ok([0xab; 32]));
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
