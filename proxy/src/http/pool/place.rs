//! Places for connections under a cluster's limit.
//!
//! The limit counts all endpoints of a cluster and all workers. So that idle connections of one
//! endpoint or worker do not starve another, idle ones are closed, and an endpoint without any
//! connection may have one beyond the limit, as in Envoy.

use std::rc::Rc;
use std::time::Instant;

use super::host::HostPool;
use super::{CheckoutTarget, Pools};
use crate::upstream::limits::Permit;

/// A connection's place under the cluster's limit, and in its endpoint's count.
pub struct Place {
    _permit: Permit,
    _of_host: Rc<()>,
}

impl HostPool {
    /// A place for one more connection; `None`: one of this endpoint's own has to come back first.
    pub(super) fn place(&self, pools: &Pools, target: &CheckoutTarget<'_>) -> Option<Place> {
        let limits = &target.cluster.limits;
        let permit = limits.try_connection().or_else(|| {
            if pools.close_idle(target.cluster.id)
                && let Some(permit) = limits.try_connection()
            {
                return Some(permit);
            }
            let has_none = Rc::strong_count(&self.places) == 1;
            has_none.then(|| limits.take_connection())
        })?;
        Some(Place {
            _permit: permit,
            _of_host: self.places.clone(),
        })
    }

    /// Since when the longest idle connection has been idle.
    pub(super) fn idle_since(&self) -> Option<Instant> {
        let exclusive = self.idle.borrow().first().map(|idle| idle.since);
        let shared = self.shared.borrow();
        let unused = shared.iter().filter(|shared| !shared.connected.is_busy());
        unused
            .map(|shared| shared.used.get())
            .chain(exclusive)
            .min()
    }

    /// Closes that connection.
    pub(super) fn close_oldest_idle(&self) -> bool {
        let Some(oldest) = self.idle_since() else {
            return false;
        };
        let mut idle = self.idle.borrow_mut();
        if idle.first().is_some_and(|idle| idle.since == oldest) {
            idle.remove(0);
            return true;
        }
        let mut shared = self.shared.borrow_mut();
        let found = shared
            .iter()
            .position(|shared| shared.used.get() == oldest && !shared.connected.is_busy());
        found.map(|at| shared.remove(at)).is_some()
    }

    /// Requests wait for one of its connections.
    pub(super) fn is_awaited(&self) -> bool {
        Rc::strong_count(&self.waiting) > 1
    }
}
