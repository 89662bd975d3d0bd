//! Where the proxy itself is: its locality, and the cluster of which it is one endpoint, which
//! zone-aware routing compares others with.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use arc_swap::ArcSwapOption;

use crate::config::Name;
use crate::config::endpoint::HealthStatus;
use crate::upstream::endpoint::Endpoint;

/// `node.locality`, and `cluster_manager.local_cluster_name` with what is known of that cluster.
#[derive(Default)]
pub struct NodePlace {
    /// In the form of an endpoint's; `None`: not known.
    pub locality: Option<Name>,
    pub local: Option<LocalCluster>,
}

/// The local cluster. The cluster itself writes here, others read.
pub struct LocalCluster {
    pub name: Name,
    hosts: ArcSwapOption<LocalHosts>,
    version: AtomicU64,
}

/// The endpoints of the local cluster, by locality.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct LocalHosts {
    healthy: HashMap<Option<Name>, LocalShare>,
    /// Localities with endpoints, whatever their health.
    pub localities: usize,
    /// The proxy's own is one of them.
    pub has_own: bool,
    total: u64,
    usable: u64,
}

/// Healthy endpoints of one locality.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct LocalShare {
    number: u64,
    weight: u64,
}

impl NodePlace {
    /// `cluster`: the name of the local one; empty: there is none.
    pub fn new(locality: Option<Name>, cluster: &str) -> Self {
        let local = (!cluster.is_empty()).then(|| LocalCluster {
            name: cluster.into(),
            hosts: ArcSwapOption::empty(),
            version: AtomicU64::new(0),
        });
        Self { locality, local }
    }

    /// The local cluster, if this is the name of it.
    pub fn is_local(&self, name: &str) -> Option<&LocalCluster> {
        self.local.as_ref().filter(|local| *local.name == *name)
    }
}

impl LocalCluster {
    pub fn hosts(&self) -> Option<Arc<LocalHosts>> {
        self.hosts.load_full()
    }

    /// Rises with each change of [`LocalCluster::hosts`].
    pub fn version(&self) -> u64 {
        self.version.load(Relaxed)
    }

    /// True: they differ from the last ones.
    pub fn set_hosts(&self, hosts: LocalHosts) -> bool {
        let changes = self.hosts.load().as_deref() != Some(&hosts);
        if changes {
            self.hosts.store(Some(Arc::new(hosts)));
            self.version.fetch_add(1, Relaxed);
        }
        changes
    }
}

impl LocalHosts {
    /// `endpoints`: with their health. `own`: where the proxy is.
    pub fn new<'e>(
        endpoints: impl Iterator<Item = (&'e Arc<Endpoint>, HealthStatus)>,
        own: Option<&str>,
    ) -> Self {
        let mut hosts = Self::default();
        for (endpoint, status) in endpoints {
            let name = &endpoint.locality;
            hosts.has_own |= own.is_some() && name.as_deref() == own;
            hosts.total = hosts.total.saturating_add(1);
            let healthy = status == HealthStatus::Healthy;
            let usable = healthy || status == HealthStatus::Degraded;
            hosts.usable = hosts.usable.saturating_add(u64::from(usable));
            let share = hosts.healthy.entry(name.clone()).or_default();
            if healthy {
                share.number = share.number.saturating_add(1);
                share.weight = share.weight.saturating_add(endpoint.weight.into());
            }
        }
        hosts.localities = hosts.healthy.len();
        hosts
    }

    /// A locality's part of all that are healthy, in ten-thousandths.
    pub fn share(&self, locality: &Option<Name>, by_weight: bool) -> u64 {
        let count = |share: &LocalShare| match by_weight {
            true => share.weight,
            false => share.number,
        };
        let total = self
            .healthy
            .values()
            .map(count)
            .fold(0, u64::saturating_add);
        let part = self.healthy.get(locality).map_or(0, count);
        let share = part.saturating_mul(10_000).checked_div(total);
        share.unwrap_or(0)
    }

    /// Fewer than `threshold` percent are healthy or degraded.
    pub fn panics(&self, threshold: u8) -> bool {
        let share = self.usable.saturating_mul(100).checked_div(self.total);
        share.unwrap_or(0) < threshold.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_counted_by_locality() {
        let endpoint = |locality: &str, weight| {
            Arc::new(Endpoint {
                locality: Some(locality.into()),
                weight,
                ..Endpoint::at("10.0.0.1:80".parse().unwrap())
            })
        };
        let all = [
            endpoint("a", 1),
            endpoint("a", 1),
            endpoint("b", 8),
            endpoint("c", 1),
        ];
        use HealthStatus::{Degraded, Healthy, Unhealthy};
        let health = [Healthy, Unhealthy, Healthy, Degraded];
        let hosts = LocalHosts::new(all.iter().zip(health), Some("a"));
        assert!(hosts.has_own && hosts.localities == 3);
        let share = |name: &str, by_weight| hosts.share(&Some(name.into()), by_weight);
        assert_eq!((share("a", false), share("a", true)), (5000, 1111));
        assert_eq!((share("c", false), share("d", false)), (0, 0));
        assert!(hosts.panics(76) && !hosts.panics(75));
        assert!(!LocalHosts::new(all.iter().zip(health), None).has_own);
        let place = NodePlace::new(None, "local");
        let local = place.is_local("local").unwrap();
        assert!(place.is_local("other").is_none() && local.hosts().is_none());
        assert!(local.set_hosts(LocalHosts::default()) && !local.set_hosts(LocalHosts::default()));
        assert_eq!(local.version(), 1);
    }
}
