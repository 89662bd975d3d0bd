//! The token at the end of the path of a rewritten lifecycle hook.
//!
//! A hook changes what the app does, and every peer can reach the port at which the sidecar
//! performs it: without mTLS, because the kubelet has no certificate. The source address does not
//! identify the kubelet either: depending on the CNI it is an address of the node, of a bridge, of
//! a tunnel or of the pod's gateway, and traffic through a node port has the same addresses. So the
//! path contains a secret, which only the pod's specification has; the kubelet reads it there.
//!
//! A pod that is injected again keeps its token, so that a second injection changes nothing: the
//! result depends on the pod, the settings and the token alone.

use aws_lc_rs::hmac;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::InjectError;

/// Bytes of a token.
const LENGTH: usize = 16;

/// 128 bits, as text that can stand in a path.
#[derive(Clone, PartialEq, Eq)]
pub struct HookToken(String);

impl HookToken {
    /// `None`: the text is not a token that injection writes.
    pub(super) fn read(text: &str) -> Option<Self> {
        let bytes = URL_SAFE_NO_PAD.decode(text).ok()?;
        (bytes.len() == LENGTH).then(|| HookToken(text.to_owned()))
    }

    pub(super) fn as_str(&self) -> &str {
        &self.0
    }
}

/// The source of tokens for pods that have none.
pub enum HookTokens {
    /// A random token for each pod.
    Random,
    /// Derived from a secret and the pod's name: equal in each run.
    Derived(Box<hmac::Key>),
}

impl HookTokens {
    /// Minimum length of the secret, bytes.
    pub const SECRET: usize = 16;

    /// `None`: the secret is shorter than [`HookTokens::SECRET`] bytes.
    pub fn derived(secret: &[u8]) -> Option<Self> {
        let is_long = secret.len() >= Self::SECRET;
        is_long.then(|| HookTokens::Derived(Box::new(hmac::Key::new(hmac::HMAC_SHA256, secret))))
    }

    /// A token for the pods of `object`.
    ///
    /// # Errors
    /// The operating system gives no random bytes.
    pub fn token(&self, object: &str) -> Result<HookToken, InjectError> {
        let mut bytes = [0; LENGTH];
        match self {
            HookTokens::Random => {
                aws_lc_rs::rand::fill(&mut bytes).map_err(|_| InjectError::NoRandomBytes)?;
            }
            HookTokens::Derived(key) => {
                let tag = hmac::sign(key, object.as_bytes());
                for (byte, derived) in bytes.iter_mut().zip(tag.as_ref()) {
                    *byte = *derived;
                }
            }
        }
        Ok(HookToken(URL_SAFE_NO_PAD.encode(bytes)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_read_as_they_are_written_and_nothing_else_is() {
        let derived = HookTokens::derived(&[7; 16]).unwrap();
        for tokens in [HookTokens::Random, derived] {
            let token = tokens.token("Pod shop/web").unwrap();
            assert!(HookToken::read(token.as_str()) == Some(token.clone()));
        }
        for wrong in ["", "c2hvcnQ", "a/b", "AAAAAAAAAAAAAAAAAAAAAAA"] {
            assert!(HookToken::read(wrong).is_none(), "{wrong}");
        }
    }

    #[test]
    fn only_derived_tokens_come_again() {
        let random = || HookTokens::Random.token("Pod shop/web").unwrap();
        assert!(random() != random());
        let derived = |secret: u8, object: &str| {
            let tokens = HookTokens::derived(&[secret; 32]).unwrap();
            tokens.token(object).unwrap()
        };
        assert!(derived(1, "Pod shop/web") == derived(1, "Pod shop/web"));
        assert!(derived(1, "Pod shop/web") != derived(1, "Pod shop/cart"));
        assert!(derived(1, "Pod shop/web") != derived(2, "Pod shop/web"));
        assert!(HookTokens::derived(&[1; 15]).is_none());
    }
}
