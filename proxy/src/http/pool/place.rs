//! Places of connections under the limits of their cluster and of the listener that they serve.
//!
//! A cluster's limit counts all its endpoints and all workers. So that idle connections of one
//! endpoint or worker do not starve another, idle ones are closed, and an endpoint without any
//! connection may have one beyond the limit, as in Envoy. A listener's limit counts all clusters,
//! keeps descriptors free, and is never exceeded.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use super::host::{HostPool, Idle, RETRY_INTERVAL};
use super::{CheckoutTarget, Pools};
use crate::connection_limit::{ConnectionLimit, ConnectionPermit};
use crate::http::request::error::Failure;
use crate::overload::Reaper;
use crate::upstream::cluster::Cluster;
use crate::upstream::limits::Permit;
use crate::worker::Worker;

/// A connection's place under the limits, and in its endpoint's count.
pub struct ConnectionSlot {
    _of_cluster: Option<ClusterSlot>,
    of_listener: Option<ConnectionPermit>,
}

/// A connection's place under its cluster's limit, and in its endpoint's count.
pub(crate) struct ClusterSlot {
    _permit: Permit,
    _of_host: Rc<()>,
}

impl ConnectionSlot {
    pub(crate) fn new(of_cluster: ClusterSlot, of_listener: Option<ConnectionPermit>) -> Self {
        Self {
            _of_cluster: Some(of_cluster),
            of_listener,
        }
    }

    /// Of a connection that counts towards no limit: those of health checks have their own.
    pub(crate) fn uncounted() -> Self {
        Self {
            _of_cluster: None,
            of_listener: None,
        }
    }

    fn counts_to(&self, limit: &Arc<ConnectionLimit>) -> bool {
        let permit = self.of_listener.as_ref();
        permit.is_some_and(|permit| Arc::ptr_eq(permit.limit(), limit))
    }

    /// Whether its listener's limit is reached: an idle connection then blocks waiting requests.
    pub(super) fn is_contended(&self) -> bool {
        let permit = self.of_listener.as_ref();
        permit.is_some_and(|permit| permit.limit().is_full())
    }
}

/// The listener's limit is reached, and none of this worker's connections is idle.
pub(crate) struct LimitReached;

/// A request that waits for a connection.
pub(super) struct PendingRequest {
    _permit: Permit,
    since: Instant,
}

impl Pools {
    /// Acquires a permit of a listener's limit; idle connections that count towards it are closed
    /// for it.
    ///
    /// # Errors
    /// When the limit is reached.
    pub(crate) fn permit_of(
        &self,
        limit: Option<&Arc<ConnectionLimit>>,
    ) -> Result<Option<ConnectionPermit>, LimitReached> {
        let Some(limit) = limit else {
            return Ok(None);
        };
        loop {
            if let Some(permit) = limit.acquire() {
                return Ok(Some(permit));
            }
            if !self.close_idle_of(limit) {
                return Err(LimitReached);
            }
        }
    }

    /// Closes the longest idle connection that counts towards `limit`; `false`: there is none.
    fn close_idle_of(&self, limit: &Arc<ConnectionLimit>) -> bool {
        let hosts = self.hosts.borrow();
        let idle = hosts.values().filter_map(|host| {
            let since = host.idle_since(|place| place.counts_to(limit))?;
            Some((since, host))
        });
        let oldest = idle.min_by_key(|(since, _)| *since);
        oldest.is_some_and(|(since, host)| host.close_idle(since, |place| place.counts_to(limit)))
    }
}

impl HostPool {
    /// A place for one more connection; `None`: one of this endpoint's own has to come back first.
    pub(super) fn place(
        &self,
        pools: &Pools,
        target: &CheckoutTarget<'_>,
    ) -> Option<ConnectionSlot> {
        let of_cluster = self.cluster_place(pools, target.cluster, true)?;
        let of_listener = pools.permit_of(target.limit).ok()?;
        Some(ConnectionSlot::new(of_cluster, of_listener))
    }

    /// A place for one more connection under the cluster's limit; `None`: the limit is reached, by
    /// connections in use, and this endpoint has one of them. `may_exceed`: an endpoint that has none
    /// may have one all the same.
    pub(crate) fn cluster_place(
        &self,
        pools: &Pools,
        cluster: &Cluster,
        may_exceed: bool,
    ) -> Option<ClusterSlot> {
        let limits = &cluster.limits;
        let permit = limits.try_connection().or_else(|| {
            if pools.close_idle(cluster.id)
                && let Some(permit) = limits.try_connection()
            {
                return Some(permit);
            }
            let exceeds = may_exceed && self.has_no_connection();
            exceeds.then(|| limits.take_connection())
        })?;
        Some(ClusterSlot {
            _permit: permit,
            _of_host: self.places.clone(),
        })
    }

    /// Whether no connection, in use or idle, has a place here.
    pub(super) fn has_no_connection(&self) -> bool {
        Rc::strong_count(&self.places) == 1
    }

    /// Waits until a connection may be available, under the limit of pending requests. At a
    /// listener's limit a request waits only while a connection is being established.
    pub(super) async fn wait(
        &self,
        worker: &Worker,
        target: &CheckoutTarget<'_>,
        pending: &mut Option<PendingRequest>,
    ) -> Result<(), Failure> {
        let now = worker.timers.now();
        let overflow = |which| {
            target.cluster.metrics.overflows.inc();
            Err(Failure::Overflow(which))
        };
        match pending {
            None => {
                let Some(permit) = target.cluster.limits.try_pending() else {
                    return overflow("pending requests");
                };
                *pending = Some(PendingRequest {
                    _permit: permit,
                    since: now,
                });
            }
            Some(PendingRequest { since, .. }) => {
                let is_late =
                    now.saturating_duration_since(*since) >= target.cluster.connect_timeout;
                if is_late && target.limit.is_some_and(|limit| limit.is_full()) {
                    return overflow("connections for the listener");
                }
            }
        }
        let _waiting = self.waiting.clone();
        // A change or [`RETRY_INTERVAL`], whichever comes first.
        let changed = self.changed.notified();
        let _ = worker.timers.timeout(RETRY_INTERVAL, changed).await;
        Ok(())
    }

    /// Since when the longest idle connection has been idle, of those whose place `counts`.
    pub(super) fn idle_since(&self, counts: impl Fn(&ConnectionSlot) -> bool) -> Option<Instant> {
        let exclusive = self.idle.borrow();
        let exclusive = exclusive.iter().find(|idle| counts(&idle.client.place));
        let shared = self.shared.borrow();
        let unused = shared.iter().filter(|shared| shared.is_idle(&counts));
        unused
            .map(|shared| shared.used.get())
            .chain(exclusive.map(|idle| idle.since))
            .min()
    }

    /// Closes a connection that has been idle since `since` and whose place `counts`.
    pub(super) fn close_idle(
        &self,
        since: Instant,
        counts: impl Fn(&ConnectionSlot) -> bool,
    ) -> bool {
        let mut idle = self.idle.borrow_mut();
        let found = |idle: &Idle| idle.since == since && counts(&idle.client.place);
        if let Some(at) = idle.iter().position(found) {
            idle.remove(at);
            return true;
        }
        let mut shared = self.shared.borrow_mut();
        let found = shared
            .iter()
            .position(|shared| shared.used.get() == since && shared.is_idle(&counts));
        found.map(|at| shared.remove(at)).is_some()
    }

    /// Closes this host's part of the connections that have been idle for longest.
    pub(super) fn reap(&self, reaper: &Reaper) {
        self.idle
            .borrow_mut()
            .retain(|idle| !reaper.ends(idle.since));
        self.shared
            .borrow_mut()
            .retain(|shared| shared.connected.is_busy() || !reaper.ends(shared.used.get()));
    }

    /// Whether requests wait for one of its connections.
    pub(super) fn is_awaited(&self) -> bool {
        Rc::strong_count(&self.waiting) > 1
    }
}
