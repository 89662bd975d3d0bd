//! Limits of open connections: those of one listener, of the whole process, or those to upstreams
//! for one listener.
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

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use smallvec::SmallVec;

/// A bound shared by all workers.
#[derive(Debug)]
pub struct ConnectionLimit {
    most: u64,
    open: AtomicU64,
    /// Idle connections are closed near the bound.
    closes_idle: bool,
}

/// One connection's permit. Released when dropped.
#[derive(Debug)]
pub struct ConnectionPermit(Arc<ConnectionLimit>);

impl ConnectionLimit {
    pub fn new(most: u64) -> Arc<Self> {
        Arc::new(Self {
            most,
            open: AtomicU64::new(0),
            closes_idle: false,
        })
    }

    /// A limit near which idle connections are closed.
    pub fn closing_idle(most: u64) -> Arc<Self> {
        Arc::new(Self {
            most,
            open: AtomicU64::new(0),
            closes_idle: true,
        })
    }

    pub fn closes_idle(&self) -> bool {
        self.closes_idle
    }

    /// Nine tenths of the bound are open, and idle connections may be closed.
    pub fn is_nearly_full(&self) -> bool {
        self.closes_idle && self.open.load(Relaxed) >= self.most.saturating_sub(self.most / 10)
    }

    /// Whether as many connections are open as may be.
    pub fn is_full(&self) -> bool {
        self.open.load(Relaxed) >= self.most
    }

    /// `None`: the limit is reached.
    pub fn acquire(self: &Arc<Self>) -> Option<ConnectionPermit> {
        // Counted first, so that concurrent workers never exceed the limit.
        let before = self.open.fetch_add(1, Relaxed);
        let permit = ConnectionPermit(self.clone());
        (before < self.most).then_some(permit)
    }
}

impl ConnectionPermit {
    /// The limit that the permit counts towards.
    pub fn limit(&self) -> &Arc<ConnectionLimit> {
        &self.0
    }
}

/// Permits of the listener's own limit and of the process's.
pub type ConnectionPermits = SmallVec<[ConnectionPermit; 2]>;

/// A permit of each of `limits`; `None`: one of them is at its bound.
pub fn acquire_all(limits: &[Arc<ConnectionLimit>]) -> Option<ConnectionPermits> {
    limits.iter().map(ConnectionLimit::acquire).collect()
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_released_permit_can_be_acquired() {
        let limit = ConnectionLimit::new(2);
        let first = limit.acquire();
        let second = limit.acquire();
        assert!(first.is_some() && second.is_some());
        assert!(limit.acquire().is_none());
        drop(first);
        assert!(limit.acquire().is_some());
    }

    #[test]
    fn nearly_full_at_nine_tenths() {
        let limit = ConnectionLimit::closing_idle(20);
        let permits: Vec<_> = (0..17).map(|_| limit.acquire()).collect();
        assert!(!limit.is_nearly_full());
        let one_more = limit.acquire();
        assert!(limit.is_nearly_full() && one_more.is_some());
        drop(permits);
        assert!(!limit.is_nearly_full());
        let other = ConnectionLimit::new(1);
        let _only = other.acquire();
        assert!(!other.is_nearly_full());
    }
}
