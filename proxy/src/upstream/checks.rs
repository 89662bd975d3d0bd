//! The active health checks of one cluster, as its picks and the checker share them. The checker
//! itself is [`crate::health`].

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use tokio::sync::Notify;

use crate::metrics::resource::HealthCheckMetrics;

/// See the module. Carried over while a cluster of the name has health checks.
pub struct ClusterChecks {
    pub metrics: HealthCheckMetrics,
    /// First results are awaited.
    warming: AtomicBool,
    /// An endpoint reported that it is to have no more requests.
    reported: AtomicBool,
    /// Wakes the checker; one for all clusters.
    changes: Arc<Notify>,
}

impl ClusterChecks {
    /// `warming`: there is nothing to pick before the endpoints have been checked.
    pub fn new(metrics: HealthCheckMetrics, changes: Arc<Notify>, warming: bool) -> Self {
        Self {
            metrics,
            warming: AtomicBool::new(warming),
            reported: AtomicBool::new(false),
            changes,
        }
    }

    /// Notified when the checker has something to look at.
    pub fn changes(&self) -> &Arc<Notify> {
        &self.changes
    }

    /// Whether a new cluster's first results are still awaited.
    pub fn is_warming(&self) -> bool {
        self.warming.load(Relaxed)
    }

    /// The first results are there, or were waited for long enough.
    pub fn set_warm(&self) {
        self.warming.store(false, Relaxed);
    }

    /// The cluster has other endpoints.
    pub fn endpoints_changed(&self) {
        self.changes.notify_one();
    }

    /// One of its endpoints reported.
    pub fn report(&self) {
        self.reported.store(true, Relaxed);
        self.changes.notify_one();
    }

    /// Whether endpoints have reported since this was last asked.
    pub fn take_reports(&self) -> bool {
        self.reported.swap(false, Relaxed)
    }
}
