//! The next snapshot: the last one, what changed, and fresh links where something that changed is
//! referred to. Everything else is shared with the last one.
//!
//! Endpoints are not part of it: they are swapped behind their cluster's own pointer, and a change
//! of endpoints alone publishes nothing. A table of the snapshot is copied when something in it
//! changes, not before.

use std::collections::{HashMap, HashSet};
use std::hash::Hash;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use prometheus::IntCounter;
use xds_proto::type_url;

use super::endpoint::Assignment;
use super::relink::{refers, relink_listener, relink_routes};
use super::resource::Compiled;
use super::step::SnapshotStep;
use super::support::At;
use super::{Compiler, Name};
use crate::config::cluster::Discovery;
use crate::config::endpoint::Workload;
use crate::config::listener::ListenerKey;
use crate::config::secret::Secret;
use crate::snapshot::Listener;
use crate::snapshot::RouteConfig;
use crate::snapshot::{RouteLink, Snapshot, Store};
use crate::upstream::cluster::Cluster;
use crate::upstream::endpoint::EndpointSet;
use crate::upstream::endpoints::{bind, rebind};

impl Compiler {
    /// Applies `steps` together and publishes the next snapshot, if it differs: a change of
    /// endpoints alone replaces them behind their clusters. True: published.
    pub fn publish(
        &mut self,
        store: &Store,
        steps: impl IntoIterator<Item = SnapshotStep>,
    ) -> bool {
        let before = store.load();
        let (mut endpoints, mut others) = (Vec::new(), Vec::new());
        for step in steps {
            match step {
                SnapshotStep::Set(Compiled::Endpoints(name, assignment)) => {
                    endpoints.push((name, assignment));
                }
                other => others.push(other),
            }
        }
        if others.is_empty() {
            self.set_all_endpoints(&before.clusters, endpoints);
            return false;
        }
        let removes = others
            .iter()
            .any(|step| matches!(step, SnapshotStep::Remove(..)));
        let mut next = Draft::of(&before, self.counts.copied.clone());
        for step in others {
            match step {
                SnapshotStep::Set(Compiled::Cluster(new)) => self.set_cluster(&mut next, new),
                SnapshotStep::Set(Compiled::Secret(secret)) => {
                    self.secrets.set(&secret);
                    next.set_secret(secret);
                }
                SnapshotStep::Set(Compiled::Workload(name, addresses, workload)) => {
                    let gone = self.peers.set(name, Arc::clone(&addresses));
                    next.set_workload(&gone, &addresses, &workload);
                }
                SnapshotStep::Set(other) => next.set(other),
                SnapshotStep::Remove(kind, name) => self.remove(&mut next, kind, &name),
            }
        }
        // Last, so that an assignment finds its cluster in whichever order they came.
        self.set_all_endpoints(&next.snapshot.clusters, endpoints);
        self.relink(&mut next);
        let published = next.publish(store, self.drain_time);
        if removes {
            drop(before);
            let snapshot = store.load();
            let secrets = &self.secrets;
            secrets.forget_unused(|name| snapshot.secrets.contains_key(name));
        }
        published
    }

    fn set_cluster(&mut self, next: &mut Draft, cluster: Arc<Cluster>) {
        let previous = next.snapshot.clusters.get(&cluster.name).cloned();
        cluster.limits.set_thresholds(cluster.thresholds);
        self.first_endpoints(&cluster, previous.as_deref());
        self.services.replace(previous.as_deref(), Some(&cluster));
        next.set_cluster(cluster);
    }

    fn remove(&mut self, next: &mut Draft, kind: &str, name: &Name) {
        match kind {
            type_url::LISTENER => next.remove_listener(name),
            type_url::CLUSTER => {
                let previous = next.snapshot.clusters.get(name).cloned();
                self.services.replace(previous.as_deref(), None);
                next.remove_cluster(name);
            }
            type_url::ROUTE => next.remove_route(name),
            // TLS contexts keep their certificates: a lost stream must not end TLS.
            type_url::SECRET => next.remove_secret(name),
            // As Envoy: an assignment that is taken away leaves the endpoints as they are.
            type_url::ENDPOINT => drop(self.waiting.remove(name)),
            type_url::WORKLOAD => next.remove_workloads(&self.peers.remove(name)),
            _ => {}
        }
    }

    /// Endpoints that a new version of a cluster starts with.
    fn first_endpoints(&mut self, cluster: &Cluster, previous: Option<&Cluster>) {
        let empty = Arc::new(EndpointSet::default());
        let before = previous.map_or(empty, |previous| previous.endpoints.load_full());
        match &cluster.discovery {
            Discovery::Static {
                hosts,
                overprovisioning,
            } => {
                // Checked when the cluster compiled.
                let addresses = hosts.iter().filter_map(|host| {
                    Some(((host.host.parse::<IpAddr>().ok()?, host.port).into(), host))
                });
                cluster.set_endpoints(bind(cluster, addresses, &before), *overprovisioning);
            }
            Discovery::Eds { service_name } => {
                if let Some(assignment) = self.waiting.remove(service_name) {
                    bind_assignment(cluster, &assignment, &before);
                } else if before.ready && previous.is_some_and(|p| has_service(p, service_name)) {
                    cluster.set_endpoints(rebind(cluster, &before), before.overprovisioning);
                }
            }
            // Its names were resolved before it takes over.
            Discovery::Dns { .. } if cluster.endpoints.load().ready => {}
            Discovery::Dns { .. } => {
                let known = previous.is_some_and(|p| matches!(p.discovery, Discovery::Dns { .. }));
                if known && before.ready {
                    cluster.set_endpoints(rebind(cluster, &before), before.overprovisioning);
                }
            }
            Discovery::OriginalDst { .. } => {}
        }
    }

    fn set_all_endpoints(
        &mut self,
        clusters: &HashMap<Name, Arc<Cluster>>,
        assignments: Vec<(Name, Arc<Assignment>)>,
    ) {
        for (name, assignment) in assignments {
            let mut wanted = false;
            for cluster in self
                .services
                .of(&name)
                .filter_map(|name| clusters.get(name))
            {
                self.counts.bound.inc();
                bind_assignment(cluster, &assignment, &cluster.endpoints.load());
                wanted = true;
            }
            if !wanted {
                self.waiting.insert(name, assignment);
            }
        }
    }

    /// Fresh links for what refers to something that changed.
    fn relink(&self, next: &mut Draft) {
        if next.clusters.is_empty() && next.routes.is_empty() {
            return;
        }
        let stale = |(name, routes): (&Name, &Arc<RouteConfig>)| {
            refers(&routes.clusters, &next.clusters).then(|| name.clone())
        };
        let stale: Vec<Name> = next.snapshot.routes.iter().filter_map(stale).collect();
        for name in stale {
            let fresh = relink_routes(&next.snapshot.routes[&name], &next.snapshot.clusters);
            self.counts.relinked.inc();
            next.set_routes(name, fresh);
        }
        let listeners = next.snapshot.listeners.values();
        let stale: Vec<_> = listeners.filter(|l| next.concerns(l)).cloned().collect();
        for listener in stale {
            self.counts.relinked.inc();
            next.set_listener(Arc::new(relink_listener(&listener, &next.snapshot)));
        }
    }
}

/// The snapshot under construction, and what has changed in it.
struct Draft {
    snapshot: Snapshot,
    copied: IntCounter,
    clusters: HashSet<Name>,
    routes: HashSet<Name>,
    /// Sockets that a listener no longer has.
    vacated: HashSet<ListenerKey>,
    touched: bool,
}

impl Draft {
    fn of(before: &Snapshot, copied: IntCounter) -> Self {
        Self {
            snapshot: Snapshot {
                generation: before.generation + 1,
                listeners: Arc::clone(&before.listeners),
                by_socket: Arc::clone(&before.by_socket),
                removed: Arc::clone(&before.removed),
                routes: Arc::clone(&before.routes),
                clusters: Arc::clone(&before.clusters),
                secrets: Arc::clone(&before.secrets),
                workloads: Arc::clone(&before.workloads),
            },
            copied,
            clusters: HashSet::new(),
            routes: HashSet::new(),
            vacated: HashSet::new(),
            touched: false,
        }
    }

    fn publish(mut self, store: &Store, drain_time: Duration) -> bool {
        self.reassign_sockets();
        let changed = self.touched || !self.clusters.is_empty() || !self.routes.is_empty();
        if changed {
            let (before, next) = (store.load(), &mut self.snapshot);
            if !Arc::ptr_eq(&before.listeners, &next.listeners) {
                let (old, new, now) = (&before.listeners, &next.listeners, Instant::now());
                next.removed = Arc::new(before.removed.after(old, new, now, drain_time));
            }
            store.publish(self.snapshot);
        }
        changed
    }

    /// Inserts `resource`. Its links are made here once; they are made again only when a target
    /// changes.
    fn set(&mut self, resource: Compiled) {
        match resource {
            Compiled::Routes(routes) => {
                let routes = relink_routes(&routes, &self.snapshot.clusters);
                self.set_routes(routes.table.name.clone(), routes);
            }
            Compiled::Listener(listener) => {
                self.set_listener(Arc::new(relink_listener(&listener, &self.snapshot)));
            }
            Compiled::Workload(..)
            | Compiled::Cluster(_)
            | Compiled::Endpoints(..)
            | Compiled::Secret(_) => {}
        }
    }

    fn set_routes(&mut self, name: Name, routes: RouteConfig) {
        self.routes.insert(name.clone());
        own(&mut self.snapshot.routes, &self.copied).insert(name, Arc::new(routes));
    }

    fn remove_route(&mut self, name: &Name) {
        if self.snapshot.routes.contains_key(name) {
            own(&mut self.snapshot.routes, &self.copied).remove(name);
            self.routes.insert(name.clone());
        }
    }

    fn set_cluster(&mut self, cluster: Arc<Cluster>) {
        self.clusters.insert(cluster.name.clone());
        own(&mut self.snapshot.clusters, &self.copied).insert(cluster.name.clone(), cluster);
    }

    fn remove_cluster(&mut self, name: &Name) {
        if self.snapshot.clusters.contains_key(name) {
            own(&mut self.snapshot.clusters, &self.copied).remove(name);
            self.clusters.insert(name.clone());
        }
    }

    fn set_secret(&mut self, secret: Arc<Secret>) {
        self.touched = true;
        own(&mut self.snapshot.secrets, &self.copied).insert(secret.name.clone(), secret);
    }

    fn remove_secret(&mut self, name: &Name) {
        if self.snapshot.secrets.contains_key(name) {
            self.touched = true;
            own(&mut self.snapshot.secrets, &self.copied).remove(name);
        }
    }

    fn set_workload(&mut self, gone: &[IpAddr], addresses: &[IpAddr], workload: &Arc<Workload>) {
        self.touched = true;
        let workloads = own(&mut self.snapshot.workloads, &self.copied);
        for address in gone {
            workloads.remove(address);
        }
        workloads.extend(addresses.iter().map(|ip| (*ip, Arc::clone(workload))));
    }

    fn remove_workloads(&mut self, gone: &[IpAddr]) {
        let known = |address: &IpAddr| self.snapshot.workloads.contains_key(address);
        if gone.iter().any(known) {
            self.touched = true;
            let workloads = own(&mut self.snapshot.workloads, &self.copied);
            workloads.retain(|address, _| !gone.contains(address));
        }
    }

    /// Whether `listener` refers to something that changed.
    fn concerns(&self, listener: &Listener) -> bool {
        refers(&listener.clusters, &self.clusters)
            || listener.routes.iter().any(|link| match link {
                RouteLink::Inline(routes) => refers(&routes.clusters, &self.clusters),
                RouteLink::Named(link) => self.routes.contains(&link.name),
            })
    }

    fn set_listener(&mut self, listener: Arc<Listener>) {
        self.touched = true;
        let def = &listener.def;
        let listeners = own(&mut self.snapshot.listeners, &self.copied);
        let before = listeners.insert(def.name.clone(), listener.clone());
        if let Some(before) = before {
            self.forget_addresses(&before);
        }
        let places = def.keys().map(|key| (key, listener.clone()));
        own(&mut self.snapshot.by_socket, &self.copied).extend(places);
    }

    fn remove_listener(&mut self, name: &Name) {
        let known = self.snapshot.listeners.get(name).cloned();
        if let Some(listener) = known {
            self.touched = true;
            own(&mut self.snapshot.listeners, &self.copied).remove(name);
            self.forget_addresses(&listener);
        }
    }

    /// A socket whose last listener was removed is given to another listener with the same address:
    /// to one that binds it before one that does not, then to the first by name. Otherwise
    /// connections to it would be accepted and not served.
    fn reassign_sockets(&mut self) {
        self.vacated
            .retain(|key| !self.snapshot.by_socket.contains_key(key));
        if self.vacated.is_empty() {
            return;
        }
        let mut next: HashMap<ListenerKey, &Arc<Listener>> = HashMap::new();
        let rank = |listener: &Listener| (!listener.def.bind_to_port, listener.def.name.clone());
        for listener in self.snapshot.listeners.values() {
            for key in listener.def.keys().filter(|key| self.vacated.contains(key)) {
                let chosen = next.entry(key).or_insert(listener);
                if rank(listener) < rank(chosen) {
                    *chosen = listener;
                }
            }
        }
        let next = next
            .into_iter()
            .map(|(key, listener)| (key, listener.clone()));
        let next: Vec<_> = next.collect();
        own(&mut self.snapshot.by_socket, &self.copied).extend(next);
    }

    fn forget_addresses(&mut self, listener: &Listener) {
        for key in listener.def.keys() {
            let known = self.snapshot.by_socket.get(&key);
            if known.is_some_and(|known| known.def.name == listener.def.name) {
                own(&mut self.snapshot.by_socket, &self.copied).remove(&key);
                self.vacated.insert(key);
            }
        }
    }
}

/// A table of the draft, copied if the last snapshot still has it.
fn own<'t, K: Clone + Eq + Hash, V: Clone>(
    table: &'t mut Arc<HashMap<K, V>>,
    copied: &IntCounter,
) -> &'t mut HashMap<K, V> {
    if Arc::get_mut(table).is_none() {
        copied.inc();
    }
    Arc::make_mut(table)
}

fn has_service(cluster: &Cluster, service: &str) -> bool {
    matches!(&cluster.discovery, Discovery::Eds { service_name } if **service_name == *service)
}

fn bind_assignment(cluster: &Cluster, assignment: &Assignment, before: &EndpointSet) {
    // The addresses were checked when the assignment compiled.
    if let Ok(hosts) = assignment.addresses(At::root("")) {
        cluster.set_endpoints(bind(cluster, hosts, before), assignment.overprovisioning);
    }
}
