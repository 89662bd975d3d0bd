//! The compiler's indices of published resources beside the snapshot, so that a change finds what
//! it is for without a search: clusters by EDS service name, addresses by the workload's name.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use crate::config::Name;
use crate::config::cluster::Discovery;
use crate::upstream::cluster::Cluster;

/// Names of clusters by EDS service name.
#[derive(Default)]
pub struct Services(HashMap<Name, BTreeSet<Name>>);

impl Services {
    /// A cluster is in the place of its previous version; `None`: it is new, or gone.
    pub fn replace(&mut self, previous: Option<&Cluster>, next: Option<&Cluster>) {
        if let Some((service, cluster)) = previous.and_then(eds)
            && let Some(clusters) = self.0.get_mut(service)
        {
            clusters.remove(cluster);
            if clusters.is_empty() {
                self.0.remove(service);
            }
        }
        if let Some((service, cluster)) = next.and_then(eds) {
            let clusters = self.0.entry(service.clone()).or_default();
            clusters.insert(cluster.clone());
        }
    }

    pub fn of(&self, service: &Name) -> impl Iterator<Item = &Name> {
        self.0.get(service).into_iter().flatten()
    }
}

fn eds(cluster: &Cluster) -> Option<(&Name, &Name)> {
    match &cluster.discovery {
        Discovery::Eds { service_name } => Some((service_name, &cluster.name)),
        _ => None,
    }
}

/// Addresses of workloads. A workload with several may have been subscribed to by each: an address
/// is removed with the last resource that has it.
#[derive(Default)]
pub struct PeerAddresses {
    by_name: HashMap<Name, Arc<[IpAddr]>>,
    /// How many resources have an address.
    counts: HashMap<IpAddr, usize>,
}

impl PeerAddresses {
    /// A resource has these addresses now. Gives those that no resource has any more.
    pub fn set(&mut self, name: Name, addresses: Arc<[IpAddr]>) -> Vec<IpAddr> {
        for address in addresses.iter() {
            *self.counts.entry(*address).or_default() += 1;
        }
        let before = self.by_name.insert(name, addresses);
        self.release(before)
    }

    /// A resource is gone. Gives the addresses that no resource has any more.
    pub fn remove(&mut self, name: &Name) -> Vec<IpAddr> {
        let before = self.by_name.remove(name);
        self.release(before)
    }

    fn release(&mut self, addresses: Option<Arc<[IpAddr]>>) -> Vec<IpAddr> {
        let mut gone = Vec::new();
        for address in addresses.iter().flat_map(|all| all.iter()) {
            if let Some(count) = self.counts.get_mut(address) {
                *count -= 1;
                if *count == 0 {
                    self.counts.remove(address);
                    gone.push(*address);
                }
            }
        }
        gone
    }
}
