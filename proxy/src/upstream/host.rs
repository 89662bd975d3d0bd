//! The state of one endpoint, carried over while its address stays. Shared by all workers.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use super::health::ActiveHealth;
use super::outlier::{Ejection, Rates};

/// Active requests, failures in a row, ejection, active health.
#[derive(Debug, Default)]
pub struct HostState {
    active: AtomicU32,
    ejected: AtomicBool,
    pub(crate) consecutive_5xx: AtomicU32,
    pub(crate) consecutive_gateway: AtomicU32,
    pub(crate) consecutive_local: AtomicU32,
    pub(super) ejection: Mutex<Ejection>,
    healthy_since: Mutex<Option<Instant>>,
    /// Shares of success, for outlier detection.
    pub rates: Rates,
    /// What active health checks found.
    pub health: ActiveHealth,
}

impl HostState {
    /// Requests (HTTP) or connections (TCP) in flight, over all workers.
    pub fn active(&self) -> u32 {
        self.active.load(Relaxed)
    }

    /// Counts a request or connection as active until the returned guard is dropped.
    pub fn begin(self: &Arc<Self>) -> Active {
        self.active.fetch_add(1, Relaxed);
        Active(self.clone())
    }

    /// Taken out of balancing by outlier detection.
    pub fn is_ejected(&self) -> bool {
        self.ejected.load(Relaxed)
    }

    pub(super) fn set_ejected(&self, ejected: bool) {
        self.ejected.store(ejected, Relaxed);
    }

    /// When it last became healthy, where endpoints slow-start; `None`: it counts as old.
    pub fn healthy_since(&self) -> Option<Instant> {
        let since = self.healthy_since.lock();
        *since.unwrap_or_else(PoisonError::into_inner)
    }

    /// It has come, or is healthy again, and slow-starts.
    pub fn begin_slow_start(&self, now: Instant) {
        let since = self.healthy_since.lock();
        *since.unwrap_or_else(PoisonError::into_inner) = Some(now);
    }

    /// Forgets failures in a row, as after an ejection ended.
    pub(super) fn reset_failures(&self) {
        self.consecutive_5xx.store(0, Relaxed);
        self.consecutive_gateway.store(0, Relaxed);
        self.consecutive_local.store(0, Relaxed);
    }
}

/// One active request on an endpoint.
#[derive(Debug)]
pub struct Active(Arc<HostState>);

impl Drop for Active {
    fn drop(&mut self) {
        self.0.active.fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn activity_ends_with_its_guard() {
        let host = Arc::new(HostState::default());
        let first = host.begin();
        let second = host.begin();
        assert_eq!(host.active(), 2);
        drop((first, second));
        assert_eq!(host.active(), 0);
    }
}
