//! How many downstream connections may be open: of one listener, or of the whole process.
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
    makes_room: bool,
}

/// One connection's permit. Released when dropped.
#[derive(Debug)]
pub struct ConnectionPermit(Arc<ConnectionLimit>);

impl ConnectionLimit {
    pub fn new(most: u64) -> Arc<Self> {
        Arc::new(Self {
            most,
            open: AtomicU64::new(0),
            makes_room: false,
        })
    }

    /// A limit near which idle connections are closed.
    pub fn making_room(most: u64) -> Arc<Self> {
        Arc::new(Self {
            most,
            open: AtomicU64::new(0),
            makes_room: true,
        })
    }

    pub fn makes_room(&self) -> bool {
        self.makes_room
    }

    /// Nine tenths of the bound are open, and idle connections may be closed.
    pub fn wants_room(&self) -> bool {
        self.makes_room && self.open.load(Relaxed) >= self.most.saturating_sub(self.most / 10)
    }

    /// `None`: the bound is reached.
    pub fn enter(self: &Arc<Self>) -> Option<ConnectionPermit> {
        // Counted first, so that concurrent workers never exceed the bound.
        let before = self.open.fetch_add(1, Relaxed);
        let pass = ConnectionPermit(self.clone());
        (before < self.most).then_some(pass)
    }
}

/// Of the listener's own bound and that of the process.
pub type Passes = SmallVec<[ConnectionPermit; 2]>;

/// A permit of each of `gates`; `None`: one of them is at its bound.
pub fn enter_all(gates: &[Arc<ConnectionLimit>]) -> Option<Passes> {
    gates.iter().map(ConnectionLimit::enter).collect()
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
    fn a_place_that_is_given_back_can_be_had_again() {
        let gate = ConnectionLimit::new(2);
        let first = gate.enter();
        let second = gate.enter();
        assert!(first.is_some() && second.is_some());
        assert!(gate.enter().is_none());
        drop(first);
        assert!(gate.enter().is_some());
    }

    #[test]
    fn room_is_wanted_before_there_is_none() {
        let gate = ConnectionLimit::making_room(20);
        let passes: Vec<_> = (0..17).map(|_| gate.enter()).collect();
        assert!(!gate.wants_room());
        let one_more = gate.enter();
        assert!(gate.wants_room() && one_more.is_some());
        drop(passes);
        assert!(!gate.wants_room());
        let other = ConnectionLimit::new(1);
        let _only = other.enter();
        assert!(!other.wants_room());
    }
}
