//! One token, by the provider that it is for.

use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::fetch::FetchedKeySets;
use super::locate::FoundToken;
use crate::config::filter::{Audiences, JwtAuthn, JwtProvider, KeySource, TokenLifetime};
use crate::jwt::{Jwks, Jwt, JwtStatus, TokenCaches, VerifiedToken};
use crate::metadata::{Object, Value};

/// What tokens are checked by.
pub struct TokenChecks<'a> {
    pub own: &'a JwtAuthn,
    pub caches: &'a TokenCaches,
    /// Keys that the request has waited for.
    pub fetched: &'a FetchedKeySets,
    /// Since 1970.
    pub now: Duration,
    /// Whether tokens that were known are counted, and others.
    pub counts: bool,
}

/// The provider that a requirement names.
#[derive(Clone, Copy)]
pub struct NamedProvider<'a> {
    pub provider: &'a JwtProvider,
    /// In place of its own.
    pub audiences: Option<&'a Audiences>,
}

/// Why a token is refused, and by which provider, if there is one for it.
pub struct TokenRefusal<'a> {
    pub status: JwtStatus,
    pub provider: Option<&'a JwtProvider>,
}

/// A token that its provider has verified.
pub struct CheckedToken<'a> {
    pub provider: &'a JwtProvider,
    pub verified: Rc<VerifiedToken>,
}

impl<'a> TokenChecks<'a> {
    pub fn new(own: &'a JwtAuthn, caches: &'a TokenCaches, fetched: &'a FetchedKeySets) -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        Self {
            own,
            caches,
            fetched,
            now: now.unwrap_or_default(),
            counts: true,
        }
    }

    /// `named`: the provider that it must be for; `None`: that of its issuer.
    pub fn check(
        &self,
        found: &FoundToken<'_, '_>,
        named: Option<NamedProvider<'a>>,
    ) -> Result<CheckedToken<'a>, TokenRefusal<'a>> {
        let mut provider = named.map(|named| named.provider);
        let checked = self.checked(found, named, &mut provider);
        checked.map_err(|status| TokenRefusal { status, provider })
    }

    fn checked(
        &self,
        found: &FoundToken<'_, '_>,
        named: Option<NamedProvider<'a>>,
        provider: &mut Option<&'a JwtProvider>,
    ) -> Result<CheckedToken<'a>, JwtStatus> {
        let known = named.and_then(|named| self.known(named.provider, &found.text));
        self.count(named.map(|_| known.is_some()));
        if let Some(verified) = known {
            let provider = self.admit(&verified.token, found, named, provider)?;
            return Ok(CheckedToken { provider, verified });
        }
        let token = Jwt::parse(&found.text)?;
        let provider = self.admit(&token, found, named, provider)?;
        let keys = self.keys(provider)?;
        token.verify(&keys)?;
        let verified = Rc::new(VerifiedToken {
            metadata: normalised(provider, &token.payload),
            token,
            keys,
        });
        if let (Some(cache), Some(_), Ok(text)) =
            (&provider.cache, named, std::str::from_utf8(&found.text))
        {
            self.caches.insert(cache, text, &verified);
        }
        Ok(CheckedToken { provider, verified })
    }

    fn count(&self, is_known: Option<bool>) {
        let metrics = &self.own.metrics;
        match is_known.filter(|_| self.counts) {
            Some(true) => metrics.jwt_cache_hit.inc(),
            Some(false) => metrics.jwt_cache_miss.inc(),
            None => {}
        }
    }

    /// The token, if the provider verified it before, by the keys that it still has.
    fn known(&self, provider: &JwtProvider, text: &[u8]) -> Option<Rc<VerifiedToken>> {
        let cache = provider.cache.as_ref()?;
        let text = std::str::from_utf8(text).ok()?;
        let known = self.caches.find(cache, text)?;
        let is_verified = match &provider.keys {
            KeySource::Local(_) => true,
            KeySource::Remote(remote) => remote.are_last(&known.keys),
        };
        let expires = known.token.expires.unwrap_or(u64::MAX);
        let last = expires.saturating_add(provider.clock_skew);
        if is_verified && self.now.as_secs() <= last {
            return Some(known);
        }
        self.caches.remove(cache, text);
        None
    }

    /// What is checked before the signature. Gives the provider.
    fn admit(
        &self,
        token: &Jwt,
        found: &FoundToken<'_, '_>,
        named: Option<NamedProvider<'a>>,
        provider: &mut Option<&'a JwtProvider>,
    ) -> Result<&'a JwtProvider, JwtStatus> {
        if !found.issuers.allow(token.issuer()) {
            return Err(JwtStatus::UnknownIssuer);
        }
        let by = provider.or_else(|| self.own.by_issuer(token.issuer()));
        *provider = by;
        let by = by.ok_or(JwtStatus::UnknownIssuer)?;
        token.check_time(self.now.as_secs(), by.clock_skew)?;
        let audiences = named.and_then(|named| named.audiences);
        if !audiences.unwrap_or(&by.audiences).allow(token.audiences()) {
            return Err(JwtStatus::AudienceNotAllowed);
        }
        let subjects = by.subjects.as_ref();
        if subjects.is_some_and(|wanted| !wanted.matches(token.subject().as_bytes())) {
            return Err(JwtStatus::NotVerified);
        }
        match self.is_lifetime_allowed(token, by.lifetime) {
            true => Ok(by),
            false => Err(JwtStatus::NotVerified),
        }
    }

    fn is_lifetime_allowed(&self, token: &Jwt, lifetime: TokenLifetime) -> bool {
        match (lifetime, token.expires) {
            (TokenLifetime::Any, _) => true,
            (_, None) => false,
            (TokenLifetime::Finite, Some(_)) => true,
            (TokenLifetime::Below(most), Some(expires)) => {
                Duration::from_secs(expires) < self.now.saturating_add(most)
            }
        }
    }

    fn keys(&self, provider: &JwtProvider) -> Result<Arc<Jwks>, JwtStatus> {
        match &provider.keys {
            KeySource::Local(keys) => Ok(keys.clone()),
            KeySource::Remote(remote) => match self.fetched.of(remote) {
                Some(fetched) => fetched.clone(),
                None => remote.fresh().ok_or(JwtStatus::FetchFailed),
            },
        }
    }
}

/// The payload as metadata has it: some claims as lists.
fn normalised(provider: &JwtProvider, payload: &Arc<Object>) -> Value {
    let mut payload = payload.clone();
    for claim in &provider.space_delimited {
        if let Some(Value::String(text)) = payload.get(claim) {
            let words = text.split(' ').filter(|word| !word.is_empty());
            let list = words.map(|word| Value::String(word.into())).collect();
            Arc::make_mut(&mut payload).insert(claim.clone(), Value::List(list));
        }
    }
    Value::Object(payload)
}
