//! Circuit breakers: what one cluster may have in flight, over all workers.
//!
//! A permit is taken before the work and given back when it is dropped, so that no path, however
//! it ends, leaks one. Source: Envoy's circuit breaking documentation.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use arc_swap::ArcSwap;

use crate::config::cluster::{RetryLimit, Thresholds};

/// Limits of one cluster, and the counts of what is in flight. Carried over while a cluster of the
/// name exists.
#[derive(Debug, Default)]
pub struct CircuitBreakers {
    thresholds: ArcSwap<Thresholds>,
    in_flight: [AtomicU32; 4],
}

/// What a circuit breaker counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum LimitedResource {
    Connection,
    Pending,
    Request,
    Retry,
}

/// The right to one connection, pending request, request or retry.
#[derive(Debug)]
pub struct Permit {
    limits: Arc<CircuitBreakers>,
    resource: LimitedResource,
}

impl CircuitBreakers {
    pub fn new(thresholds: Thresholds) -> Arc<Self> {
        Arc::new(Self {
            thresholds: ArcSwap::from_pointee(thresholds),
            in_flight: Default::default(),
        })
    }

    pub fn thresholds(&self) -> Thresholds {
        **self.thresholds.load()
    }

    /// Takes over new bounds; what is in flight stays.
    pub fn set_thresholds(&self, thresholds: Thresholds) {
        if self.thresholds() != thresholds {
            self.thresholds.store(Arc::new(thresholds));
        }
    }

    /// `None`: the breaker is open.
    pub fn try_connection(self: &Arc<Self>) -> Option<Permit> {
        self.take(
            LimitedResource::Connection,
            self.thresholds.load().connections,
        )
    }

    /// A permit, even beyond the limit.
    pub fn take_connection(self: &Arc<Self>) -> Permit {
        self.in_flight(LimitedResource::Connection)
            .fetch_add(1, Relaxed);
        Permit {
            limits: self.clone(),
            resource: LimitedResource::Connection,
        }
    }

    /// Whether idle connections block new ones: the limit is exceeded, or reached while requests
    /// wait.
    pub fn is_contended(&self) -> bool {
        let (open, allowed) = (
            self.active_connections(),
            self.thresholds.load().connections,
        );
        open > allowed || open == allowed && self.pending_requests() > 0
    }

    /// For a request that has to wait for a connection. `None`: the breaker is open.
    pub fn try_pending(self: &Arc<Self>) -> Option<Permit> {
        self.take(LimitedResource::Pending, self.thresholds.load().pending)
    }

    /// `None`: the breaker is open.
    pub fn try_request(self: &Arc<Self>) -> Option<Permit> {
        self.take(LimitedResource::Request, self.thresholds.load().requests)
    }

    /// `None`: the retry limit or budget is used up.
    pub fn try_retry(self: &Arc<Self>) -> Option<Permit> {
        let allowed = match self.thresholds.load().retries {
            RetryLimit::Fixed(count) => count,
            RetryLimit::Budget { percent, min } => {
                let busy = self
                    .count(LimitedResource::Request)
                    .saturating_add(self.count(LimitedResource::Pending));
                // Saturates; a share of a u32 fits.
                ((f64::from(busy) * percent / 100.0) as u32).max(min)
            }
        };
        self.take(LimitedResource::Retry, allowed)
    }

    pub fn active_connections(&self) -> u32 {
        self.count(LimitedResource::Connection)
    }

    pub fn pending_requests(&self) -> u32 {
        self.count(LimitedResource::Pending)
    }

    pub fn active_requests(&self) -> u32 {
        self.count(LimitedResource::Request)
    }

    pub fn active_retries(&self) -> u32 {
        self.count(LimitedResource::Retry)
    }

    fn in_flight(&self, resource: LimitedResource) -> &AtomicU32 {
        let [connections, pending, requests, retries] = &self.in_flight;
        match resource {
            LimitedResource::Connection => connections,
            LimitedResource::Pending => pending,
            LimitedResource::Request => requests,
            LimitedResource::Retry => retries,
        }
    }

    fn count(&self, resource: LimitedResource) -> u32 {
        self.in_flight(resource).load(Relaxed)
    }

    fn take(self: &Arc<Self>, resource: LimitedResource, allowed: u32) -> Option<Permit> {
        // Counting first and giving back costs one atomic on the good path and never oversteps.
        let before = self.in_flight(resource).fetch_add(1, Relaxed);
        let permit = Permit {
            limits: self.clone(),
            resource,
        };
        (before < allowed).then_some(permit)
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.limits.in_flight(self.resource).fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_breaker_opens_at_its_bound_and_closes_when_a_permit_returns() {
        let limits = CircuitBreakers::new(Thresholds {
            requests: 2,
            ..Thresholds::default()
        });
        let first = limits.try_request();
        let second = limits.try_request();
        assert!(first.is_some() && second.is_some());
        assert!(limits.try_request().is_none());
        assert_eq!(limits.active_requests(), 2);
        drop(first);
        assert!(limits.try_request().is_some());
    }

    #[test]
    fn new_bounds_keep_what_is_in_flight() {
        let limits = CircuitBreakers::new(Thresholds::default());
        let _permit = limits.try_connection();
        limits.set_thresholds(Thresholds {
            connections: 1,
            ..Thresholds::default()
        });
        assert!(limits.try_connection().is_none());
        assert_eq!(limits.active_connections(), 1);
    }

    proptest! {
        #[test]
        fn a_budget_never_allows_more_than_its_share(
            active in 0u32..400, percent in 0.0f64..100.0, min in 0u32..10, asked in 0usize..500,
        ) {
            let limits = CircuitBreakers::new(Thresholds {
                retries: RetryLimit::Budget { percent, min },
                ..Thresholds::default()
            });
            let requests: Vec<_> = (0..active).filter_map(|_| limits.try_request()).collect();
            let retries: Vec<_> = (0..asked).filter_map(|_| limits.try_retry()).collect();
            let share = (f64::from(active) * percent / 100.0) as usize;
            prop_assert_eq!(retries.len(), asked.min(share.max(min as usize)));
            drop((requests, retries));
            prop_assert_eq!(limits.active_retries() + limits.active_requests(), 0);
        }
    }
}
