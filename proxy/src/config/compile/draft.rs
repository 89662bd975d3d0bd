//! The next snapshot under construction: the last one, of which it shares what does not change, and
//! the names of what changed.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::known::Referrers;
use super::relink::{refers, relink_listener, relink_routes};
use super::resource::Compiled;
use super::{Counts, Name};
use crate::config::endpoint::Workload;
use crate::config::listener::ListenerKey;
use crate::config::secret::Secret;
use crate::snapshot::{Listener, RouteConfig, RouteLink, Snapshot, Store};
use crate::upstream::cluster::Cluster;

/// See the module.
pub(super) struct Draft {
    pub(super) snapshot: Snapshot,
    clusters: HashSet<Name>,
    routes: HashSet<Name>,
    listeners: HashSet<Name>,
    /// Sockets that a listener no longer has.
    vacated: HashSet<ListenerKey>,
    /// Secrets or workloads changed.
    touched: bool,
}

impl Draft {
    pub(super) fn of(before: &Snapshot) -> Self {
        Self {
            snapshot: Snapshot {
                generation: before.generation + 1,
                listeners: before.listeners.clone(),
                by_socket: before.by_socket.clone(),
                removed: Arc::clone(&before.removed),
                routes: before.routes.clone(),
                clusters: before.clusters.clone(),
                secrets: before.secrets.clone(),
                workloads: before.workloads.clone(),
            },
            clusters: HashSet::new(),
            routes: HashSet::new(),
            listeners: HashSet::new(),
            vacated: HashSet::new(),
            touched: false,
        }
    }

    /// Publishes it, if it differs from `before`. `referrers`: those of what is published.
    pub(super) fn publish(
        mut self,
        before: &Snapshot,
        store: &Store,
        referrers: &mut Referrers,
        drain_time: Duration,
    ) -> bool {
        let linked = [&self.clusters, &self.routes, &self.listeners];
        if !self.touched && linked.iter().all(|names| names.is_empty()) {
            return false;
        }
        for name in &self.routes {
            let now = self.snapshot.routes.get(name);
            referrers.replace_routes(name, before.routes.get(name), now);
        }
        for name in &self.listeners {
            let now = self.snapshot.listeners.get(name);
            referrers.replace_listener(name, before.listeners.get(name), now);
        }
        if !self.listeners.is_empty() {
            let (gone, now) = (self.removed_from(before), Instant::now());
            let is_served = |name: &Name| self.snapshot.listeners.contains_key(name);
            let removed = before.removed.after(gone, is_served, now, drain_time);
            self.snapshot.removed = Arc::new(removed);
        }
        store.publish(self.snapshot);
        true
    }

    fn removed_from<'a>(&'a self, before: &Snapshot) -> impl Iterator<Item = &'a Name> {
        let was_served = |name: &&Name| before.listeners.contains_key(*name);
        self.listeners.iter().filter(was_served)
    }

    /// Inserts `resource`. Its links are made here once; they are made again only when a target
    /// changes.
    pub(super) fn set(&mut self, resource: Compiled) {
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
        self.snapshot.routes.insert(name, Arc::new(routes));
    }

    pub(super) fn remove_route(&mut self, name: &Name) {
        if self.snapshot.routes.remove(name) {
            self.routes.insert(name.clone());
        }
    }

    pub(super) fn set_cluster(&mut self, cluster: Arc<Cluster>) {
        self.clusters.insert(cluster.name.clone());
        self.snapshot.clusters.insert(cluster.name.clone(), cluster);
    }

    pub(super) fn remove_cluster(&mut self, name: &Name) {
        if self.snapshot.clusters.remove(name) {
            self.clusters.insert(name.clone());
        }
    }

    pub(super) fn set_secret(&mut self, secret: Arc<Secret>) {
        self.touched = true;
        self.snapshot.secrets.insert(secret.name.clone(), secret);
    }

    pub(super) fn remove_secret(&mut self, name: &Name) {
        self.touched |= self.snapshot.secrets.remove(name);
    }

    pub(super) fn set_workload(
        &mut self,
        gone: &[IpAddr],
        addresses: &[IpAddr],
        workload: &Arc<Workload>,
    ) {
        self.touched = true;
        self.remove_workloads(gone);
        let entries = addresses.iter().map(|ip| (*ip, Arc::clone(workload)));
        self.snapshot.workloads.extend(entries);
    }

    pub(super) fn remove_workloads(&mut self, gone: &[IpAddr]) {
        for address in gone {
            self.touched |= self.snapshot.workloads.remove(address);
        }
    }

    fn set_listener(&mut self, listener: Arc<Listener>) {
        let def = &listener.def;
        if let Some(before) = self.snapshot.listeners.get(&def.name).cloned() {
            self.forget_addresses(&before);
        }
        let places = def.keys().map(|key| (key, listener.clone()));
        self.snapshot.by_socket.extend(places);
        self.put_listener(listener);
    }

    fn put_listener(&mut self, listener: Arc<Listener>) {
        let name = listener.def.name.clone();
        self.listeners.insert(name.clone());
        self.snapshot.listeners.insert(name, listener);
    }

    pub(super) fn remove_listener(&mut self, name: &Name) {
        let known = self.snapshot.listeners.get(name).cloned();
        if let Some(listener) = known {
            self.listeners.insert(name.clone());
            self.snapshot.listeners.remove(name);
            self.forget_addresses(&listener);
        }
    }

    fn forget_addresses(&mut self, listener: &Listener) {
        for key in listener.def.keys() {
            if self.serves(listener, &key) {
                self.snapshot.by_socket.remove(&key);
                self.vacated.insert(key);
            }
        }
    }

    /// Whether connections to a socket are the listener's, in any of its versions.
    fn serves(&self, listener: &Listener, key: &ListenerKey) -> bool {
        let serving = self.snapshot.by_socket.get(key);
        serving.is_some_and(|serving| serving.def.name == listener.def.name)
    }

    /// Fresh links for what refers to something that changed.
    pub(super) fn relink(&mut self, referrers: &Referrers, counts: &Counts) {
        if self.clusters.is_empty() && self.routes.is_empty() {
            return;
        }
        let published = referrers.routes_to(&self.clusters);
        let names: HashSet<Name> = published.chain(&self.routes).cloned().collect();
        for name in names {
            let Some(routes) = self.snapshot.routes.get(&name) else {
                continue;
            };
            counts.examined.inc();
            if refers(&routes.clusters, &self.clusters) {
                counts.relinked.inc();
                let fresh = relink_routes(routes, &self.snapshot.clusters);
                self.set_routes(name, fresh);
            }
        }
        let published = referrers.listeners_to(&self.clusters, &self.routes);
        let names: HashSet<Name> = published.chain(&self.listeners).cloned().collect();
        for name in names {
            let Some(listener) = self.snapshot.listeners.get(&name) else {
                continue;
            };
            counts.examined.inc();
            if self.concerns(listener) {
                counts.relinked.inc();
                let fresh = relink_listener(listener, &self.snapshot);
                self.renew_listener(Arc::new(fresh));
            }
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

    /// Puts a listener with fresh links in its own place: a socket that another listener with the
    /// same address serves stays with that one.
    fn renew_listener(&mut self, listener: Arc<Listener>) {
        for key in listener.def.keys() {
            if self.serves(&listener, &key) {
                self.snapshot.by_socket.insert(key, listener.clone());
            }
        }
        self.put_listener(listener);
    }

    /// A socket whose last listener was removed is given to another listener with the same address:
    /// to one that binds it before one that does not, then to the first by name. Otherwise
    /// connections to it would be accepted and not served.
    pub(super) fn reassign_sockets(&mut self, referrers: &Referrers, counts: &Counts) {
        self.vacated
            .retain(|key| !self.snapshot.by_socket.contains_key(key));
        if self.vacated.is_empty() {
            return;
        }
        let mut next: HashMap<ListenerKey, &Arc<Listener>> = HashMap::new();
        let rank = |listener: &Listener| (!listener.def.bind_to_port, listener.def.name.clone());
        let published = referrers.listeners_at(&self.vacated);
        let names: HashSet<&Name> = published.chain(&self.listeners).collect();
        for name in names {
            let Some(listener) = self.snapshot.listeners.get(name) else {
                continue;
            };
            counts.examined.inc();
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
        self.snapshot.by_socket.extend(next);
    }
}
