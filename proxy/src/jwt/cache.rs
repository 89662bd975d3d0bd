//! Tokens that were verified, so that their signatures are not verified again. Each worker has its own.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

use super::jwks::Jwks;
use super::token::Jwt;
use crate::metadata::Value;

/// Envoy's defaults for `jwt_cache_size` and `jwt_max_token_size`.
const ENTRIES: usize = 100;
const LARGEST: usize = 4096;

/// envoy.extensions.filters.http.jwt_authn.v3.JwtCacheConfig, of one provider.
#[derive(Debug)]
pub struct CacheSettings {
    /// Tokens kept.
    entries: usize,
    /// Bytes of the largest that is kept.
    largest: usize,
}

impl CacheSettings {
    /// 0: the default.
    pub fn new(entries: usize, largest: usize) -> Self {
        let or = |value, default| if value == 0 { default } else { value };
        Self {
            entries: or(entries, ENTRIES),
            largest: or(largest, LARGEST),
        }
    }
}

/// A token, and the keys that verified its signature.
pub struct VerifiedToken {
    pub token: Jwt,
    /// The payload as metadata has it.
    pub metadata: Value,
    pub keys: Arc<Jwks>,
}

/// The caches of one worker's providers.
#[derive(Default)]
pub struct TokenCaches(RefCell<HashMap<*const CacheSettings, (Arc<CacheSettings>, Recent)>>);

impl TokenCaches {
    /// A token that the provider verified before.
    pub fn find(&self, provider: &Arc<CacheSettings>, token: &str) -> Option<Rc<VerifiedToken>> {
        let mut caches = self.0.borrow_mut();
        let (_, cache) = caches.get_mut(&Arc::as_ptr(provider))?;
        cache.find(token)
    }

    pub fn insert(&self, provider: &Arc<CacheSettings>, token: &str, verified: &Rc<VerifiedToken>) {
        if token.len() > provider.largest {
            return;
        }
        let mut caches = self.0.borrow_mut();
        let place = Arc::as_ptr(provider);
        if !caches.contains_key(&place) {
            // Drops those of providers that are not configured any more.
            caches.retain(|_, (of, _)| Arc::strong_count(of) > 1);
        }
        let fresh = || (provider.clone(), Recent::new(provider.entries));
        let (_, cache) = caches.entry(place).or_insert_with(fresh);
        cache.insert(token, verified.clone());
    }

    pub fn remove(&self, provider: &Arc<CacheSettings>, token: &str) {
        let mut caches = self.0.borrow_mut();
        if let Some((_, cache)) = caches.get_mut(&Arc::as_ptr(provider)) {
            cache.remove(token);
        }
    }
}

/// The most recently used tokens, in two generations: a full younger one becomes the older, whose tokens
/// are then forgotten unless they are used again. At least half of what it holds are the last used.
struct Recent {
    /// Of a generation.
    most: usize,
    younger: HashMap<Box<str>, Rc<VerifiedToken>>,
    older: HashMap<Box<str>, Rc<VerifiedToken>>,
}

impl Recent {
    fn new(entries: usize) -> Self {
        Self {
            most: entries.div_ceil(2),
            younger: HashMap::new(),
            older: HashMap::new(),
        }
    }

    fn find(&mut self, token: &str) -> Option<Rc<VerifiedToken>> {
        if let Some(found) = self.younger.get(token) {
            return Some(found.clone());
        }
        let (text, found) = self.older.remove_entry(token)?;
        self.put(text, found.clone());
        Some(found)
    }

    fn insert(&mut self, token: &str, verified: Rc<VerifiedToken>) {
        self.older.remove(token);
        self.put(token.into(), verified);
    }

    fn remove(&mut self, token: &str) {
        self.younger.remove(token);
        self.older.remove(token);
    }

    fn put(&mut self, token: Box<str>, verified: Rc<VerifiedToken>) {
        if self.younger.len() >= self.most && !self.younger.contains_key(&token) {
            self.older = std::mem::take(&mut self.younger);
        }
        self.younger.insert(token, verified);
    }
}

#[cfg(test)]
impl TokenCaches {
    /// How many tokens are kept for a provider.
    pub fn len(&self, provider: &Arc<CacheSettings>) -> usize {
        let caches = self.0.borrow();
        let cache = caches.get(&Arc::as_ptr(provider));
        cache.map_or(0, |(_, cache)| cache.younger.len() + cache.older.len())
    }
}
