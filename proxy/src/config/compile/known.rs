//! The compiler's indices of published resources beside the snapshot, so that a change finds what
//! it is for without a search: clusters by EDS service name, addresses by the workload's name, what
//! refers to a resource by that resource's name.

use std::collections::hash_map::Entry;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::hash::Hash;
use std::net::IpAddr;
use std::sync::Arc;

use crate::config::Name;
use crate::config::cluster::Discovery;
use crate::config::listener::ListenerKey;
use crate::snapshot::{Listener, RouteConfig, RouteLink};
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

/// Which published route configurations and listeners refer to what.
#[derive(Default)]
pub struct Referrers {
    routes_to_clusters: ByTarget<Name>,
    /// Those of inline routes among them.
    listeners_to_clusters: ByTarget<Name>,
    listeners_to_routes: ByTarget<Name>,
    listeners_at: ByTarget<ListenerKey>,
}

impl Referrers {
    /// A route configuration is in the place of its previous version; `None`: it is new, or gone.
    pub fn replace_routes(
        &mut self,
        name: &Name,
        before: Option<&Arc<RouteConfig>>,
        now: Option<&Arc<RouteConfig>>,
    ) {
        if let (Some(before), Some(now)) = (before, now)
            && Arc::ptr_eq(&before.table, &now.table)
        {
            return;
        }
        let clusters = |routes: Option<&Arc<RouteConfig>>| {
            let links = routes.into_iter().flat_map(|routes| routes.clusters.iter());
            links.map(|link| link.name.clone()).collect()
        };
        self.routes_to_clusters
            .replace(name, clusters(before), clusters(now));
    }

    /// As [`Referrers::replace_routes`], for a listener.
    pub fn replace_listener(
        &mut self,
        name: &Name,
        before: Option<&Arc<Listener>>,
        now: Option<&Arc<Listener>>,
    ) {
        if let (Some(before), Some(now)) = (before, now)
            && Arc::ptr_eq(&before.def, &now.def)
        {
            return;
        }
        let [before, now] = [before, now].map(ListenerTargets::of);
        self.listeners_to_clusters
            .replace(name, before.clusters, now.clusters);
        self.listeners_to_routes
            .replace(name, before.routes, now.routes);
        self.listeners_at.replace(name, before.sockets, now.sockets);
    }

    /// Route configurations that refer to one of `clusters`.
    pub fn routes_to<'a>(&'a self, clusters: &'a HashSet<Name>) -> impl Iterator<Item = &'a Name> {
        self.routes_to_clusters.of(clusters)
    }

    /// Listeners that refer to one of `clusters` or of `routes`.
    pub fn listeners_to<'a>(
        &'a self,
        clusters: &'a HashSet<Name>,
        routes: &'a HashSet<Name>,
    ) -> impl Iterator<Item = &'a Name> {
        let to_clusters = self.listeners_to_clusters.of(clusters);
        to_clusters.chain(self.listeners_to_routes.of(routes))
    }

    /// Listeners with one of `sockets` among their addresses, whether or not they serve it.
    pub fn listeners_at<'a>(
        &'a self,
        sockets: &'a HashSet<ListenerKey>,
    ) -> impl Iterator<Item = &'a Name> {
        self.listeners_at.of(sockets)
    }
}

/// What a listener refers to, and its sockets.
#[derive(Default)]
struct ListenerTargets {
    clusters: Vec<Name>,
    routes: Vec<Name>,
    sockets: Vec<ListenerKey>,
}

impl ListenerTargets {
    fn of(listener: Option<&Arc<Listener>>) -> Self {
        let Some(listener) = listener else {
            return Self::default();
        };
        let mut targets = Self::default();
        targets.sockets.extend(listener.def.keys());
        let own = listener.clusters.iter().map(|link| link.name.clone());
        targets.clusters.extend(own);
        for link in &listener.routes {
            match link {
                RouteLink::Inline(routes) => {
                    let inline = routes.clusters.iter().map(|link| link.name.clone());
                    targets.clusters.extend(inline);
                }
                RouteLink::Named(link) => targets.routes.push(link.name.clone()),
            }
        }
        targets
    }
}

/// Names of referrers by what they refer to.
struct ByTarget<K>(HashMap<K, HashSet<Name>>);

impl<K> Default for ByTarget<K> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<K: Eq + Hash> ByTarget<K> {
    fn replace(&mut self, referrer: &Name, before: Vec<K>, now: Vec<K>) {
        for target in before {
            if let Entry::Occupied(mut referrers) = self.0.entry(target) {
                referrers.get_mut().remove(referrer);
                if referrers.get().is_empty() {
                    referrers.remove();
                }
            }
        }
        for target in now {
            self.0.entry(target).or_default().insert(referrer.clone());
        }
    }

    fn of<'a>(&'a self, targets: &'a HashSet<K>) -> impl Iterator<Item = &'a Name> {
        targets.iter().filter_map(|one| self.0.get(one)).flatten()
    }
}
