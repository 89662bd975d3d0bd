//! How many downstream connections may be open: of one listener, or of the whole process.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use smallvec::SmallVec;

/// A bound shared by all workers.
#[derive(Debug)]
pub struct ConnectionLimit {
    most: u64,
    open: AtomicU64,
}

/// One connection's place. Given back when dropped.
#[derive(Debug)]
pub struct ConnectionPermit(Arc<ConnectionLimit>);

impl ConnectionLimit {
    pub fn new(most: u64) -> Arc<Self> {
        Arc::new(Self {
            most,
            open: AtomicU64::new(0),
        })
    }

    /// `None`: as many as may be are open.
    pub fn enter(self: &Arc<Self>) -> Option<ConnectionPermit> {
        // Counted first, so that workers that come at once never overstep.
        let before = self.open.fetch_add(1, Relaxed);
        let pass = ConnectionPermit(self.clone());
        (before < self.most).then_some(pass)
    }
}

/// Of the listener's own bound and that of the process.
pub type Passes = SmallVec<[ConnectionPermit; 2]>;

/// A place by each of `gates`; `None`: one of them lets nobody in.
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
}
