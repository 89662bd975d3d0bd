//! Join tokens: how a workload without a certificate shows that it may have its first.
//!
//! `anyam-join.v1.<base64url payload>.<base64url HMAC-SHA-256>`: signed with a key of the state
//! directory, short-lived, bound to one workload, good once. It carries the root's hash, so that
//! the workload can verify the control plane before it has a trust bundle.

use std::path::Path;
use std::time::Duration;

use aws_lc_rs::hmac;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};

use super::{CaError, private};
use crate::identity::Identity;
use crate::text::hex;

const PREFIX: &str = "anyam-join.v1";
/// Beyond any token we make.
const MAX_TOKEN: usize = 4096;
/// A token is carried to its workload at once; it is no credential to keep.
pub const DEFAULT_LIFETIME: Duration = Duration::from_secs(600);
pub const MAX_LIFETIME: Duration = Duration::from_secs(24 * 3600);

/// The claims of a token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Claims {
    pub workload: String,
    pub namespace: String,
    pub service_account: String,
    pub trust_domain: String,
    /// SHA-256 of the root's DER, lower-case hex.
    pub ca_hash: String,
    /// Seconds since 1970.
    pub exp: u64,
    /// Unique; what makes it single-use.
    pub jti: String,
}

impl Claims {
    pub fn identity(&self) -> Identity {
        Identity {
            trust_domain: self.trust_domain.clone(),
            namespace: self.namespace.clone(),
            service_account: self.service_account.clone(),
        }
    }
}

/// Why a token is refused. None of these reveals more to an attacker than the refusal itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    #[error("this is no join token (`{PREFIX}.…`); mint one with `anyam-control token`")]
    Malformed,
    #[error("the join token was not signed by this control plane, or was changed")]
    Signature,
    #[error("the join token has expired; mint a new one with `anyam-control token`")]
    Expired,
    #[error("the join token is for another trust domain or another root")]
    Audience,
}

/// Signs and checks tokens.
pub struct Tokens {
    key: hmac::Key,
    trust_domain: String,
    ca_hash: String,
}

impl Tokens {
    /// Reads the signing key of the state directory, or makes it.
    ///
    /// # Errors
    /// When it can't be read or made, or is open to others.
    pub fn open(state: &Path, trust_domain: &str, ca_hash: &str) -> Result<Self, CaError> {
        let path = state.join("join-token.key");
        let mut random = [0u8; 32];
        aws_lc_rs::rand::fill(&mut random)
            .map_err(|_| CaError::Signing("no random bytes".into()))?;
        let secret = private::secret(&path, || random.to_vec())?;
        if secret.len() < 32 {
            let why = "shorter than 32 bytes".into();
            return Err(CaError::Damaged { path, why });
        }
        Ok(Tokens {
            key: hmac::Key::new(hmac::HMAC_SHA256, &secret),
            trust_domain: trust_domain.to_owned(),
            ca_hash: ca_hash.to_owned(),
        })
    }

    /// A token for one workload. `now` is in seconds since 1970.
    ///
    /// # Errors
    /// When there are no random bytes.
    pub fn mint(
        &self,
        (namespace, workload): (&str, &str),
        service_account: &str,
        now: u64,
        lifetime: Duration,
    ) -> Result<String, CaError> {
        let mut id = [0u8; 16];
        aws_lc_rs::rand::fill(&mut id).map_err(|_| CaError::Signing("no random bytes".into()))?;
        let claims = Claims {
            workload: workload.to_owned(),
            namespace: namespace.to_owned(),
            service_account: service_account.to_owned(),
            trust_domain: self.trust_domain.clone(),
            ca_hash: self.ca_hash.clone(),
            exp: now.saturating_add(lifetime.min(MAX_LIFETIME).as_secs()),
            jti: hex(&id),
        };
        let payload = serde_json::to_vec(&claims).map_err(|e| CaError::Signing(e.to_string()))?;
        Ok(self.sign(&payload))
    }

    fn sign(&self, payload: &[u8]) -> String {
        let signed = format!("{PREFIX}.{}", URL_SAFE_NO_PAD.encode(payload));
        let signature = URL_SAFE_NO_PAD.encode(hmac::sign(&self.key, signed.as_bytes()));
        format!("{signed}.{signature}")
    }

    /// The claims of a token that we signed and that has not expired. Does not check whether it was
    /// used already.
    ///
    /// # Errors
    /// When it is none.
    pub fn check(&self, token: &str, now: u64) -> Result<Claims, TokenError> {
        if token.len() > MAX_TOKEN {
            return Err(TokenError::Malformed);
        }
        let (signed, signature) = token.rsplit_once('.').ok_or(TokenError::Malformed)?;
        let payload = signed
            .strip_prefix(PREFIX)
            .and_then(|rest| rest.strip_prefix('.'))
            .ok_or(TokenError::Malformed)?;
        let signature = URL_SAFE_NO_PAD
            .decode(signature)
            .map_err(|_| TokenError::Malformed)?;
        // Constant in time; nothing of the payload is looked at before.
        hmac::verify(&self.key, signed.as_bytes(), &signature)
            .map_err(|_| TokenError::Signature)?;
        let payload = URL_SAFE_NO_PAD
            .decode(payload)
            .map_err(|_| TokenError::Malformed)?;
        let claims: Claims = serde_json::from_slice(&payload).map_err(|_| TokenError::Malformed)?;
        if claims.trust_domain != self.trust_domain || claims.ca_hash != self.ca_hash {
            return Err(TokenError::Audience);
        }
        if claims.exp <= now || claims.exp > now.saturating_add(MAX_LIFETIME.as_secs()) {
            return Err(TokenError::Expired);
        }
        Ok(claims)
    }
}
