//! A key set that is fetched (`remote_jwks`), between the requests that need it, on any worker, and the
//! task on the control thread that fetches it.
//!
//! There is one fetch at a time, whose end wakes all that wait for it. Keys that have expired stay known:
//! a token that was verified by them is not verified again while no other keys have come.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use tokio::sync::{Notify, watch};

use super::jwks::Jwks;
use super::status::JwtStatus;
use crate::metrics::JwtAuthnMetrics;

/// Requests that wait for one key set, on all workers.
const MOST_WAITING: usize = 1024;

/// envoy.extensions.filters.http.jwt_authn.v3.RemoteJwks.
#[derive(Debug)]
pub struct RemoteSettings {
    pub cluster: Arc<str>,
    /// `http` or `https`, of the URI; how the cluster is dialled says its transport.
    pub scheme: &'static str,
    /// Host, and port if there is one.
    pub authority: Box<str>,
    /// With the query.
    pub path: Box<str>,
    /// Of an attempt.
    pub timeout: Duration,
    /// How long fetched keys are used.
    pub cached: Duration,
    pub retries: FetchRetries,
    /// `async_fetch`: keys are fetched before they are needed, and after a failure again in this time.
    pub refetch: Option<Duration>,
}

/// How a failed fetch is tried again.
#[derive(Clone, Copy, Debug, Default)]
pub struct FetchRetries {
    pub most: u32,
    pub base: Duration,
    pub max: Duration,
}

impl RemoteSettings {
    /// The longest that a fetch takes, retries included.
    pub fn longest(&self) -> Duration {
        let attempts = self.retries.most.saturating_add(1);
        let pauses = self.retries.max.saturating_mul(self.retries.most);
        self.timeout.saturating_mul(attempts).saturating_add(pauses)
    }
}

struct FetchedKeys {
    keys: Arc<Jwks>,
    /// `None`: `async_fetch` keeps them fresh, and they do not expire.
    expires: Option<Instant>,
}

/// See the module. Dropping it ends its fetching.
pub struct RemoteKeys {
    pub settings: Arc<RemoteSettings>,
    pub metrics: Arc<JwtAuthnMetrics>,
    current: ArcSwapOption<FetchedKeys>,
    /// What the last fetch gave.
    ended: watch::Sender<Option<Arc<Jwks>>>,
    waiting: AtomicUsize,
    calls: Arc<FetchCalls>,
}

/// What a fetching task is woken for.
#[derive(Default)]
pub struct FetchCalls {
    is_wanted: AtomicBool,
    is_closed: AtomicBool,
    wake: Notify,
}

impl FetchCalls {
    /// Waits until keys are wanted. False: they are not needed any more.
    pub async fn wanted(&self) -> bool {
        loop {
            if self.is_closed.load(Relaxed) {
                return false;
            }
            if self.is_wanted.load(Relaxed) {
                return true;
            }
            self.wake.notified().await;
        }
    }

    /// Waits until the keys are not needed any more.
    pub async fn closed(&self) {
        while !self.is_closed.load(Relaxed) {
            self.wake.notified().await;
        }
    }
}

impl RemoteKeys {
    pub fn new(settings: RemoteSettings, metrics: Arc<JwtAuthnMetrics>) -> Self {
        Self {
            settings: Arc::new(settings),
            metrics,
            current: ArcSwapOption::empty(),
            ended: watch::Sender::new(None),
            waiting: AtomicUsize::new(0),
            calls: Arc::default(),
        }
    }

    /// The keys, if they have not expired.
    pub fn fresh(&self) -> Option<Arc<Jwks>> {
        let current = self.current.load();
        let current = current.as_ref()?;
        let is_over = |at: Instant| at <= Instant::now();
        let expired = current.expires.is_some_and(is_over);
        (!expired).then(|| current.keys.clone())
    }

    /// Whether `keys` are those that were fetched last.
    pub fn are_last(&self, keys: &Arc<Jwks>) -> bool {
        let current = self.current.load();
        current
            .as_ref()
            .is_some_and(|last| Arc::ptr_eq(&last.keys, keys))
    }

    /// Waits for the end of a fetch, which begins unless there is one; the caller bounds how long. Gives
    /// the keys, for this once also when they have expired since.
    ///
    /// # Errors
    /// When the fetch failed, or too many requests wait for it.
    pub async fn fetched(&self) -> Result<Arc<Jwks>, JwtStatus> {
        let _waiting = WaitingRequest::begin(&self.waiting).ok_or(JwtStatus::FetchFailed)?;
        let mut ended = self.ended.subscribe();
        if let Some(keys) = self.fresh() {
            return Ok(keys);
        }
        self.calls.is_wanted.store(true, Relaxed);
        self.calls.wake.notify_one();
        ended.changed().await.map_err(|_| JwtStatus::FetchFailed)?;
        let keys = ended.borrow().clone();
        keys.ok_or(JwtStatus::FetchFailed)
    }

    /// A fetch has ended, with this key set or none. The same set again is the same keys.
    pub fn end_fetch(&self, keys: Option<Jwks>) {
        let keys = keys.map(|keys| self.replace(keys));
        match keys {
            Some(_) => self.metrics.jwks_fetch_success.inc(),
            None => self.metrics.jwks_fetch_failed.inc(),
        }
        self.calls.is_wanted.store(false, Relaxed);
        self.ended.send_replace(keys);
    }

    fn replace(&self, keys: Jwks) -> Arc<Jwks> {
        let before = self.current.load_full();
        let same = before.filter(|before| before.keys.is_same(&keys));
        let keys = same.map_or_else(|| Arc::new(keys), |same| same.keys.clone());
        let lasts = self
            .settings
            .refetch
            .is_none()
            .then_some(self.settings.cached);
        let expires = lasts.and_then(|lasts| Instant::now().checked_add(lasts));
        let fetched = FetchedKeys {
            keys: keys.clone(),
            expires,
        };
        self.current.store(Some(Arc::new(fetched)));
        keys
    }

    /// Whether a request that called for keys still needs them: a fetch may have ended since.
    pub fn still_wanted(&self) -> bool {
        self.calls.is_wanted.store(false, Relaxed);
        self.fresh().is_none()
    }

    pub fn calls(&self) -> &Arc<FetchCalls> {
        &self.calls
    }
}

impl Drop for RemoteKeys {
    fn drop(&mut self) {
        self.calls.is_closed.store(true, Relaxed);
        self.calls.wake.notify_one();
    }
}

/// One of the requests that wait.
struct WaitingRequest<'a>(&'a AtomicUsize);

impl<'a> WaitingRequest<'a> {
    /// `None`: there are as many as may be.
    fn begin(waiting: &'a AtomicUsize) -> Option<Self> {
        let counted = waiting.fetch_update(Relaxed, Relaxed, |count| {
            (count < MOST_WAITING).then(|| count.saturating_add(1))
        });
        counted.ok().map(|_| Self(waiting))
    }
}

impl Drop for WaitingRequest<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

/// Key sets that compiled and whose fetching has not begun: from the compiler to the fetching task.
#[derive(Clone, Default)]
pub struct NewRemoteKeys(Arc<NewList>);

#[derive(Default)]
struct NewList {
    list: Mutex<Vec<Weak<RemoteKeys>>>,
    added: Notify,
}

impl NewRemoteKeys {
    pub fn add(&self, keys: &Arc<RemoteKeys>) {
        let list = self.0.list.lock();
        let mut list = list.unwrap_or_else(PoisonError::into_inner);
        // Of configurations that were rejected after all.
        list.retain(|known| known.strong_count() > 0);
        list.push(Arc::downgrade(keys));
        self.0.added.notify_one();
    }

    /// Waits until there are some, and takes them.
    pub async fn take(&self) -> Vec<Weak<RemoteKeys>> {
        loop {
            let list = self.0.list.lock();
            let taken = std::mem::take(&mut *list.unwrap_or_else(PoisonError::into_inner));
            if !taken.is_empty() {
                return taken;
            }
            self.0.added.notified().await;
        }
    }
}
