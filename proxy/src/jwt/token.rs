//! A token in the compact serialisation: header, payload, signature. Its base64url is strict: neither
//! padding nor bits that are dropped, so that no two texts are one token.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::algorithm::SignatureAlgorithm;
use super::json;
use super::jwks::Jwks;
use super::status::JwtStatus;
use crate::metadata::{Object, Value};

/// Bytes of the longest token that is looked at.
const LONGEST: usize = 64 << 10;

/// A token that could be parsed; nothing of it is verified by that.
#[derive(Debug)]
pub struct Jwt {
    /// Header and payload as they came, with the dot between: what is signed.
    signed: Box<str>,
    /// Where the payload begins in it.
    payload_at: usize,
    signature: Vec<u8>,
    pub algorithm: SignatureAlgorithm,
    /// Empty: none.
    pub key_id: Box<str>,
    pub header: Arc<Object>,
    pub payload: Arc<Object>,
    /// Seconds since 1970.
    not_before: u64,
    pub expires: Option<u64>,
}

impl Jwt {
    /// # Errors
    /// What is wrong with it first, in Envoy's order.
    pub fn parse(text: &[u8]) -> Result<Self, JwtStatus> {
        let text = std::str::from_utf8(text)
            .ok()
            .filter(|text| text.len() <= LONGEST)
            .ok_or(JwtStatus::BadFormat)?;
        let (signed, signature) = text.rsplit_once('.').ok_or(JwtStatus::BadFormat)?;
        let (header, payload) = signed.split_once('.').ok_or(JwtStatus::BadFormat)?;
        if payload.contains('.') || [header, payload, signature].contains(&"") {
            return Err(JwtStatus::BadFormat);
        }
        let payload_at = header.len().saturating_add(1);

        let decode = |part: &str| URL_SAFE_NO_PAD.decode(part);
        let bytes = decode(header).map_err(|_| JwtStatus::HeaderBase64)?;
        let header = json::object(&bytes).ok_or(JwtStatus::HeaderJson)?;
        let name = json::string(&header, "alg");
        let name = name.ok().flatten().ok_or(JwtStatus::HeaderAlg)?;
        let algorithm = SignatureAlgorithm::parse(name).ok_or(JwtStatus::UnknownAlg)?;
        let key_id = json::string(&header, "kid").map_err(|()| JwtStatus::HeaderKid)?;
        let key_id = key_id.unwrap_or_default().into();

        let bytes = decode(payload).map_err(|_| JwtStatus::PayloadBase64)?;
        let payload = json::object(&bytes).ok_or(JwtStatus::PayloadJson)?;
        is_text(&payload, "iss", JwtStatus::IssuerType)?;
        is_text(&payload, "sub", JwtStatus::SubjectType)?;
        seconds(
            &payload,
            "iat",
            JwtStatus::IssuedAtType,
            JwtStatus::IssuedAtRange,
        )?;
        let not_before = seconds(
            &payload,
            "nbf",
            JwtStatus::NotBeforeType,
            JwtStatus::NotBeforeRange,
        )?;
        let expires = seconds(
            &payload,
            "exp",
            JwtStatus::ExpirationType,
            JwtStatus::ExpirationRange,
        )?;
        is_text(&payload, "jti", JwtStatus::IdType)?;
        match payload.get("aud") {
            None | Some(Value::String(_)) => {}
            Some(Value::List(list)) if list.iter().all(|v| matches!(v, Value::String(_))) => {}
            Some(_) => return Err(JwtStatus::AudienceType),
        }
        let signature = decode(signature).map_err(|_| JwtStatus::SignatureBase64)?;
        Ok(Self {
            signed: signed.into(),
            payload_at,
            signature,
            algorithm,
            key_id,
            header: Arc::new(header),
            payload: Arc::new(payload),
            not_before: not_before.unwrap_or(0),
            expires,
        })
    }

    /// `iss`; empty: there is none.
    pub fn issuer(&self) -> &str {
        self.text("iss")
    }

    /// `sub`; empty: there is none.
    pub fn subject(&self) -> &str {
        self.text("sub")
    }

    fn text(&self, claim: &str) -> &str {
        match self.payload.get(claim) {
            Some(Value::String(text)) => text,
            _ => "",
        }
    }

    /// `aud`, of which there may be several.
    pub fn audiences(&self) -> impl Iterator<Item = &str> {
        let list = match self.payload.get("aud") {
            Some(Value::List(list)) => list.as_slice(),
            Some(one) => std::slice::from_ref(one),
            None => &[],
        };
        list.iter().filter_map(|value| match value {
            Value::String(text) => Some(&**text),
            _ => None,
        })
    }

    /// The payload as it came, base64url.
    pub fn payload_text(&self) -> &str {
        self.signed.get(self.payload_at..).unwrap_or_default()
    }

    /// Whether it is in force; all in seconds, `now` since 1970.
    ///
    /// # Errors
    /// When it is not yet, or not any more.
    pub fn check_time(&self, now: u64, clock_skew: u64) -> Result<(), JwtStatus> {
        if now.saturating_add(clock_skew) < self.not_before {
            return Err(JwtStatus::NotYetValid);
        }
        let over = |at: u64| now > at.saturating_add(clock_skew);
        match self.expires.is_some_and(over) {
            true => Err(JwtStatus::Expired),
            false => Ok(()),
        }
    }

    /// Verifies the signature by one of `keys`. Tokens without a key's id are tried with all.
    ///
    /// # Errors
    /// When none verifies it.
    pub fn verify(&self, keys: &Jwks) -> Result<(), JwtStatus> {
        let mut matched = false;
        for key in keys.keys() {
            if !key.is_for(&self.key_id, self.algorithm) {
                continue;
            }
            matched = true;
            let verified = key.verify(self.algorithm, self.signed.as_bytes(), &self.signature);
            match verified {
                Err(JwtStatus::NotVerified) => {}
                ended => return ended,
            }
        }
        match matched {
            true => Err(JwtStatus::NotVerified),
            false => Err(JwtStatus::NoKeyMatches),
        }
    }
}

fn is_text(payload: &Object, claim: &str, other: JwtStatus) -> Result<(), JwtStatus> {
    json::string(payload, claim).map_err(|()| other).map(drop)
}

/// A claim in seconds, fractions dropped.
fn seconds(
    payload: &Object,
    claim: &str,
    other: JwtStatus,
    range: JwtStatus,
) -> Result<Option<u64>, JwtStatus> {
    match payload.get(claim) {
        None => Ok(None),
        // The first double above all of `u64` is its bound.
        Some(Value::Number(number)) if (0.0..u64::MAX as f64).contains(number) => {
            Ok(Some(*number as u64))
        }
        Some(Value::Number(_)) => Err(range),
        Some(_) => Err(other),
    }
}
