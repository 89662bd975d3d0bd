use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::hmac;
use serde_json::{Value as Json, json};

use super::signers::*;
use crate::jwt::remote::{FetchRetries, RemoteKeys, RemoteSettings};
use crate::jwt::{CacheSettings, Jwt, JwtStatus, TokenCaches, VerifiedToken};
use crate::metadata::{Object, Value};
use crate::metrics::registry::Registry;
use crate::metrics::resource::JwtAuthnFamilies;

fn token_of(payload: Json) -> Rc<VerifiedToken> {
    let signer = hmac_signer("HS256", hmac::HMAC_SHA256);
    let token = signer.token(json!({}), &payload);
    Rc::new(VerifiedToken {
        token: Jwt::parse(token.as_bytes()).unwrap(),
        metadata: Value::Object(Arc::new(Object::new())),
        keys: Arc::new(key_set(&[signer.jwk])),
    })
}

#[test]
fn the_most_recently_used_tokens_are_kept() {
    let caches = TokenCaches::default();
    let (small, other) = (
        Arc::new(CacheSettings::new(4, 10)),
        Arc::new(CacheSettings::new(0, 0)),
    );
    let verified = token_of(json!({}));
    for at in 0..100 {
        caches.insert(&small, &at.to_string(), &verified);
        caches.insert(&small, "hot", &verified);
        assert!(caches.find(&small, "hot").is_some());
        assert!(caches.len(&small) <= 4);
    }
    assert!(caches.find(&small, "99").is_some() && caches.find(&small, "9").is_none());
    assert!(caches.find(&other, "99").is_none());
    caches.insert(&small, "longer than ten", &verified);
    assert!(caches.find(&small, "longer than ten").is_none());
    caches.remove(&small, "hot");
    assert!(caches.find(&small, "hot").is_none());
    // Those of a provider that is gone are dropped when another is new.
    drop(small);
    caches.insert(&other, "one", &verified);
    assert_eq!(caches.len(&other), 1);
    assert_eq!(Rc::strong_count(&verified), 2);
}

fn remote(cached: Duration, refetch: Option<Duration>) -> Arc<RemoteKeys> {
    let registry = Registry::new().unwrap();
    let metrics = JwtAuthnFamilies::new(&registry).unwrap().handles("test");
    let settings = RemoteSettings {
        cluster: "keys".into(),
        scheme: "http",
        authority: "keys".into(),
        path: "/".into(),
        timeout: Duration::from_secs(1),
        cached,
        retries: FetchRetries::default(),
        refetch,
    };
    Arc::new(RemoteKeys::new(settings, Arc::new(metrics)))
}

#[tokio::test]
async fn one_fetch_serves_all_that_wait_and_its_failure_fails_them() {
    let jwk = hmac_signer("HS256", hmac::HMAC_SHA256).jwk;
    let keys = remote(Duration::from_secs(60), None);
    assert!(keys.fresh().is_none());
    let answer = async {
        assert!(keys.calls().wanted().await);
        keys.end_fetch(None);
    };
    let (one, two, ()) = tokio::join!(keys.fetched(), keys.fetched(), answer);
    assert!(matches!(one, Err(JwtStatus::FetchFailed)) && two.is_err());
    let answer = async {
        assert!(keys.calls().wanted().await);
        keys.end_fetch(Some(key_set(std::slice::from_ref(&jwk))));
    };
    let (one, two, ()) = tokio::join!(keys.fetched(), keys.fetched(), answer);
    let (one, two) = (one.unwrap(), two.unwrap());
    assert!(Arc::ptr_eq(&one, &two) && keys.are_last(&one));
    assert!(Arc::ptr_eq(&one, &keys.fresh().unwrap()));
    // The same set again is the same keys, another is not.
    keys.end_fetch(Some(key_set(std::slice::from_ref(&jwk))));
    assert!(keys.are_last(&one));
    keys.end_fetch(Some(key_set(&[jwk.clone(), jwk])));
    assert!(!keys.are_last(&one));
    let calls = keys.calls().clone();
    drop(keys);
    assert!(!calls.wanted().await);
    calls.closed().await;
}

#[tokio::test]
async fn expired_keys_are_fetched_again_and_those_kept_fresh_do_not_expire() {
    let jwk = hmac_signer("HS256", hmac::HMAC_SHA256).jwk;
    let keys = remote(Duration::ZERO, None);
    let answer = async {
        assert!(keys.calls().wanted().await);
        keys.end_fetch(Some(key_set(std::slice::from_ref(&jwk))));
    };
    let (fetched, ()) = tokio::join!(keys.fetched(), answer);
    let fetched = fetched.unwrap();
    assert!(keys.fresh().is_none() && keys.are_last(&fetched));
    let kept = remote(Duration::ZERO, Some(Duration::from_secs(1)));
    kept.end_fetch(Some(key_set(&[jwk])));
    kept.end_fetch(None);
    assert!(kept.fresh().is_some());
}
