//! Fetches the key sets that filters verify JSON Web Tokens by (`remote_jwks`), on the control thread.
//!
//! Each set has a task of its own, which ends with the last configuration that has it: it waits until a
//! request needs keys, or until they are to be fetched anew. An attempt dials an endpoint of the set's
//! cluster as the cluster's transport says, and sends one request. `http`: that request.
#![cfg_attr(
    not(test),
    deny(
        clippy::arithmetic_side_effects,
        clippy::expect_used,
        clippy::indexing_slicing,
        clippy::panic,
        clippy::string_slice,
        clippy::unreachable,
        clippy::unwrap_used
    )
)]

mod http;

use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout, timeout_at};

use crate::jwt::Jwks;
use crate::jwt::remote::{FetchCalls, NewRemoteKeys, RemoteKeys, RemoteSettings};
use crate::snapshot::Store;

/// Keys are fetched anew so long before `cache_duration` is over, as in Envoy.
const AHEAD: Duration = Duration::from_secs(5);
/// After a panic of a task.
const PAUSE: Duration = Duration::from_secs(1);

/// Runs for as long as the process does. Spawn it on the control thread.
pub async fn run(new: NewRemoteKeys, store: Arc<Store>) {
    let mut tasks = JoinSet::new();
    loop {
        tokio::select! {
            sets = new.take() => {
                for set in sets {
                    tasks.spawn(keep(set, store.clone()));
                }
            }
            Some(ended) = tasks.join_next() => {
                if let Ok(Some(set)) = ended {
                    tasks.spawn(keep(set, store.clone()));
                }
            }
        }
    }
}

/// Serves one set for as long as it is needed. `Some`: it panicked, and is to be served again.
async fn keep(set: Weak<RemoteKeys>, store: Arc<Store>) -> Option<Weak<RemoteKeys>> {
    use futures_util::FutureExt;
    let serving = std::panic::AssertUnwindSafe(serve(&set, &store));
    if serving.catch_unwind().await.is_ok() {
        return None;
    }
    if let Some(set) = set.upgrade() {
        // Requests do not wait for what has ended.
        set.end_fetch(None);
    }
    sleep(PAUSE).await;
    Some(set)
}

async fn serve(set: &Weak<RemoteKeys>, store: &Store) {
    let about = |set: Arc<RemoteKeys>| (set.calls().clone(), set.settings.clone());
    let Some((calls, settings)) = set.upgrade().map(about) else {
        return;
    };
    let mut next = settings.refetch.map(|_| Instant::now());
    loop {
        match wake(next, &calls).await {
            Wake::Due => {}
            Wake::Wanted => match set.upgrade() {
                Some(set) if set.still_wanted() => {}
                Some(_) => continue,
                None => return,
            },
            Wake::Ended => return,
        }
        // The set is not held meanwhile: its end ends the fetch.
        let fetched = tokio::select! {
            fetched = fetch(&settings, store) => fetched,
            () = calls.closed() => return,
        };
        let is_fetched = fetched.is_some();
        let Some(set) = set.upgrade() else {
            return;
        };
        set.end_fetch(fetched);
        next = settings.refetch.and_then(|after_failure| {
            Instant::now().checked_add(match is_fetched {
                false => after_failure,
                true if settings.cached > AHEAD => settings.cached.saturating_sub(AHEAD),
                true => settings.cached,
            })
        });
    }
}

/// Why a set's task goes on.
enum Wake {
    /// The keys are to be fetched anew.
    Due,
    /// A request needs them.
    Wanted,
    /// They are not needed any more.
    Ended,
}

async fn wake(next: Option<Instant>, calls: &FetchCalls) -> Wake {
    let wanted = match next {
        None => Some(calls.wanted().await),
        Some(next) => timeout_at(next, calls.wanted()).await.ok(),
    };
    match wanted {
        None => Wake::Due,
        Some(true) => Wake::Wanted,
        Some(false) => Wake::Ended,
    }
}

/// The keys; `None`: they could not be fetched, which is logged.
async fn fetch(settings: &RemoteSettings, store: &Store) -> Option<Jwks> {
    let mut pause = settings.retries.base;
    for left in (0..=settings.retries.most).rev() {
        let attempt = timeout(settings.timeout, http::get(settings, store)).await;
        let late = || Err(format!("no answer within {:?}", settings.timeout));
        let body = attempt.unwrap_or_else(|_| late());
        match body.and_then(|body| Jwks::parse(&body).map_err(|why| why.to_string())) {
            Ok(keys) => return Some(keys),
            Err(why) => tracing::warn!(
                cluster = &*settings.cluster,
                host = &*settings.authority,
                path = &*settings.path,
                "keys for JSON Web Tokens could not be fetched: {why}"
            ),
        }
        if left > 0 {
            sleep(pause.mul_f64(fastrand::f64())).await;
            pause = pause.saturating_mul(2).min(settings.retries.max);
        }
    }
    None
}
