//! Counters of clusters and listeners, and the health checks of clusters: a name has its own once,
//! over all of its versions.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, Weak};

use super::Compiler;
use crate::metrics::resource::{ClusterMetrics, ListenerMetrics};
use crate::upstream::checks::ClusterChecks;
use crate::upstream::cluster::Cluster;

impl Compiler {
    pub(super) fn metrics_of_cluster(&self, name: &str) -> Arc<ClusterMetrics> {
        let mut metrics = self.metrics.lock().unwrap_or_else(PoisonError::into_inner);
        shared(&mut metrics.clusters, name, || {
            self.cluster_metrics.handles(name)
        })
    }

    /// The health checks of a cluster, which go on where its previous version had some. One that had
    /// none goes on serving, and a new one waits for the first results.
    pub(super) fn checks_of_cluster(
        &self,
        name: &str,
        previous: Option<&Cluster>,
    ) -> Arc<ClusterChecks> {
        let going_on = previous.and_then(|before| before.checks.clone());
        going_on.unwrap_or_else(|| {
            Arc::new(ClusterChecks::new(
                self.health_metrics.handles(name),
                self.check_changes.clone(),
                previous.is_none(),
            ))
        })
    }

    pub(super) fn metrics_of_listener(&self, name: &str) -> Arc<ListenerMetrics> {
        let mut metrics = self.metrics.lock().unwrap_or_else(PoisonError::into_inner);
        shared(&mut metrics.listeners, name, || {
            self.listener_metrics.handles(name)
        })
    }
}

#[derive(Default)]
pub(super) struct MetricsByName {
    clusters: HashMap<String, Weak<ClusterMetrics>>,
    listeners: HashMap<String, Weak<ListenerMetrics>>,
}

/// The value of `name` that is still in use, or a new one. Drops unused entries as the map grows.
fn shared<T>(known: &mut HashMap<String, Weak<T>>, name: &str, make: impl FnOnce() -> T) -> Arc<T> {
    if let Some(living) = known.get(name).and_then(Weak::upgrade) {
        return living;
    }
    if known.len() == known.capacity() {
        known.retain(|_, value| value.strong_count() > 0);
    }
    let value = Arc::new(make());
    known.insert(name.to_owned(), Arc::downgrade(&value));
    value
}
