//! The next snapshot: the last one, what changed, and fresh links where something that changed is
//! referred to. Everything else is shared with the last one.
//!
//! Endpoints are not part of it: they are swapped behind their cluster's own pointer, and a change
//! of endpoints alone publishes nothing.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use xds_proto::envoy::config::cluster::v3 as cluster_pb;
use xds_proto::envoy::config::endpoint::v3 as endpoint_pb;
use xds_proto::envoy::config::listener::v3 as listener_pb;
use xds_proto::envoy::config::route::v3 as route_pb;
use xds_proto::envoy::extensions::transport_sockets::tls::v3 as secret_pb;
use xds_proto::type_url;

use super::endpoint::{Assignment, bind, rebind};
use super::support::{At, CompileError};
use super::{Compiler, Name};
use crate::config::cluster::{Cluster, Discovery};
use crate::config::endpoint::{EndpointSet, Workload};
use crate::config::listener::Listener;
use crate::config::route::RouteConfig;
use crate::config::snapshot::{ClusterLinks, Link, RouteLink, Snapshot, Store};

/// Resources that changed, by name; `None`: gone. Applied and published together.
#[derive(Default)]
pub struct Changes {
    pub listeners: Vec<(String, Option<listener_pb::Listener>)>,
    pub routes: Vec<(String, Option<route_pb::RouteConfiguration>)>,
    pub clusters: Vec<(String, Option<cluster_pb::Cluster>)>,
    pub endpoints: Vec<(String, Option<endpoint_pb::ClusterLoadAssignment>)>,
    pub secrets: Vec<(String, Option<secret_pb::Secret>)>,
    pub workloads: Vec<(IpAddr, Option<Workload>)>,
}

/// A resource that was not taken; the last good version of it, if any, serves on.
#[derive(Debug)]
pub struct Rejected {
    pub type_url: &'static str,
    pub name: String,
    pub error: CompileError,
}

impl std::fmt::Display for Rejected {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.name, self.error)
    }
}

/// What [`Compiler::apply`] did.
#[derive(Debug, Default)]
pub struct Outcome {
    pub rejected: Vec<Rejected>,
    /// Whether a new snapshot was published.
    pub published: bool,
}

/// Names that what is configured refers to: what to subscribe to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct References {
    pub routes: BTreeSet<Name>,
    pub clusters: BTreeSet<Name>,
    /// EDS service names.
    pub endpoints: BTreeSet<Name>,
}

impl Compiler {
    /// Compiles `changes`, links, and publishes the next snapshot if there is something new in it.
    pub fn apply(&mut self, store: &Store, changes: Changes) -> Outcome {
        let before = store.load();
        let mut outcome = Outcome::default();
        let mut next = Draft::of(&before);
        self.take_secrets(changes.secrets, &mut next, &mut outcome);
        self.take_clusters(changes.clusters, &mut next, &mut outcome);
        self.take_endpoints(changes.endpoints, &next, &mut outcome);
        self.take_routes(changes.routes, &mut next, &mut outcome);
        self.take_listeners(changes.listeners, &mut next, &mut outcome);
        for (address, workload) in changes.workloads {
            next.touched = true;
            match workload {
                Some(workload) => next.snapshot.workloads.insert(address, Arc::new(workload)),
                None => next.snapshot.workloads.remove(&address),
            };
        }
        self.relink(&mut next);
        self.promote(&mut next, |listener| is_warm(listener));
        outcome.published = next.publish(store);
        outcome
    }

    /// Lets listeners serve although routes they want have not arrived: requests that need those
    /// are answered with `NR`. For when waiting took too long.
    pub fn stop_warming(&mut self, store: &Store) -> bool {
        let before = store.load();
        let mut next = Draft::of(&before);
        self.promote(&mut next, |_| true);
        next.publish(store)
    }

    /// Names of listeners that wait for their routes.
    pub fn warming(&self) -> impl Iterator<Item = &Name> {
        self.warming.keys()
    }

    /// What the published and the warming configuration refers to.
    pub fn references(&self, snapshot: &Snapshot) -> References {
        let mut references = References::default();
        let listeners = snapshot.listeners.values().chain(self.warming.values());
        for listener in listeners {
            add_clusters(&mut references, &listener.clusters);
            for link in &listener.routes {
                match link {
                    RouteLink::Inline(routes) => add_clusters(&mut references, &routes.clusters),
                    RouteLink::Named(link) => drop(references.routes.insert(link.name.clone())),
                }
            }
        }
        for routes in snapshot.routes.values() {
            add_clusters(&mut references, &routes.clusters);
        }
        for cluster in snapshot.clusters.values() {
            if let Discovery::Eds { service_name } = &cluster.discovery {
                references.endpoints.insert(service_name.clone());
            }
        }
        references
    }

    fn take_secrets(
        &self,
        secrets: Vec<(String, Option<secret_pb::Secret>)>,
        next: &mut Draft,
        outcome: &mut Outcome,
    ) {
        for (name, m) in secrets {
            let Some(m) = m else {
                // Contexts keep what they have: a certificate is not forgotten over a lost stream.
                next.touched |= next.snapshot.secrets.remove(name.as_str()).is_some();
                continue;
            };
            match self.secret(&m) {
                Ok(secret) => {
                    self.secrets.set(&secret);
                    next.touched = true;
                    next.snapshot
                        .secrets
                        .insert(secret.name.clone(), Arc::new(secret));
                }
                Err(error) => outcome.reject(type_url::SECRET, name, error),
            }
        }
    }

    fn take_clusters(
        &mut self,
        clusters: Vec<(String, Option<cluster_pb::Cluster>)>,
        next: &mut Draft,
        outcome: &mut Outcome,
    ) {
        for (name, m) in clusters {
            let previous = next.snapshot.clusters.get(name.as_str()).cloned();
            let Some(m) = m else {
                if let Some((name, _)) = next.snapshot.clusters.remove_entry(name.as_str()) {
                    next.clusters.insert(name);
                }
                continue;
            };
            match self.cluster(&m, previous.as_deref()) {
                Ok(cluster) => {
                    self.first_endpoints(&cluster, previous.as_deref());
                    let name = cluster.name.clone();
                    next.clusters.insert(name.clone());
                    next.snapshot.clusters.insert(name, Arc::new(cluster));
                }
                Err(error) => outcome.reject(type_url::CLUSTER, name, error),
            }
        }
    }

    /// Endpoints that a new version of a cluster starts with.
    fn first_endpoints(&mut self, cluster: &Cluster, previous: Option<&Cluster>) {
        let nobody = Arc::new(EndpointSet::default());
        let before = previous.map_or(nobody, |previous| previous.endpoints.load_full());
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
                } else if before.ready && previous.is_some_and(|p| same_service(p, service_name)) {
                    cluster.set_endpoints(rebind(cluster, &before), before.overprovisioning);
                }
            }
            Discovery::Dns { .. } => {
                let known = previous.is_some_and(|p| matches!(p.discovery, Discovery::Dns { .. }));
                if known && before.ready {
                    cluster.set_endpoints(rebind(cluster, &before), before.overprovisioning);
                }
            }
            Discovery::OriginalDst { .. } => {}
        }
    }

    fn take_endpoints(
        &mut self,
        assignments: Vec<(String, Option<endpoint_pb::ClusterLoadAssignment>)>,
        next: &Draft,
        outcome: &mut Outcome,
    ) {
        for (name, m) in assignments {
            let Some(m) = m else {
                // As Envoy: an assignment that is taken away leaves the endpoints as they are.
                self.waiting.remove(name.as_str());
                continue;
            };
            let assignment = match self.assignment(&m) {
                Ok(assignment) => assignment,
                Err(error) => {
                    outcome.reject(type_url::ENDPOINT, name, error);
                    continue;
                }
            };
            let mut wanted = false;
            for cluster in next.clusters_of(&name) {
                bind_assignment(cluster, &assignment, &cluster.endpoints.load());
                wanted = true;
            }
            if !wanted {
                self.waiting.insert(name.into(), assignment);
            }
        }
    }

    fn take_routes(
        &self,
        routes: Vec<(String, Option<route_pb::RouteConfiguration>)>,
        next: &mut Draft,
        outcome: &mut Outcome,
    ) {
        for (name, m) in routes {
            let Some(m) = m else {
                if let Some((name, _)) = next.snapshot.routes.remove_entry(name.as_str()) {
                    next.routes.insert(name);
                }
                continue;
            };
            match self.route_config(&m) {
                Ok(routes) => {
                    let routes = relink_routes(&routes, &next.snapshot.clusters);
                    let name: Name = name.into();
                    next.routes.insert(name.clone());
                    next.snapshot.routes.insert(name, Arc::new(routes));
                }
                Err(error) => outcome.reject(type_url::ROUTE, name, error),
            }
        }
    }

    fn take_listeners(
        &mut self,
        listeners: Vec<(String, Option<listener_pb::Listener>)>,
        next: &mut Draft,
        outcome: &mut Outcome,
    ) {
        for (name, m) in listeners {
            let Some(m) = m else {
                self.warming.remove(name.as_str());
                next.remove_listener(&name);
                continue;
            };
            let previous = next.snapshot.listeners.get(name.as_str()).cloned();
            match self.listener(&m, previous.as_deref()) {
                Ok(listener) => {
                    // Linked here once: nothing says that what it refers to will change.
                    let listener = relink_listener(&listener, &next.snapshot);
                    self.warming
                        .insert(listener.def.name.clone(), Arc::new(listener));
                }
                Err(error) => outcome.reject(type_url::LISTENER, name, error),
            }
        }
    }

    /// Fresh links for what refers to something that changed.
    fn relink(&mut self, next: &mut Draft) {
        if next.clusters.is_empty() && next.routes.is_empty() {
            return;
        }
        let stale: Vec<Name> = next
            .snapshot
            .routes
            .iter()
            .filter(|(_, routes)| refers(&routes.clusters, &next.clusters))
            .map(|(name, _)| name.clone())
            .collect();
        for name in stale {
            let fresh = relink_routes(&next.snapshot.routes[&name], &next.snapshot.clusters);
            self.counts.relinked.fetch_add(1, Relaxed);
            next.snapshot.routes.insert(name.clone(), Arc::new(fresh));
            next.routes.insert(name);
        }
        let stale: Vec<Arc<Listener>> = next
            .snapshot
            .listeners
            .values()
            .filter(|listener| next.concerns(listener))
            .cloned()
            .collect();
        for listener in stale {
            self.counts.relinked.fetch_add(1, Relaxed);
            next.insert_listener(relink_listener(&listener, &next.snapshot));
        }
        for listener in self.warming.values_mut() {
            if next.concerns(listener) {
                *listener = Arc::new(relink_listener(listener, &next.snapshot));
            }
        }
    }

    /// Moves listeners that need not wait any longer into the snapshot.
    fn promote(&mut self, next: &mut Draft, ready: impl Fn(&Listener) -> bool) {
        self.warming.retain(|_, listener| {
            let promoted = ready(listener);
            if promoted {
                next.insert_shared(listener.clone());
            }
            !promoted
        });
    }
}

impl Outcome {
    fn reject(&mut self, type_url: &'static str, name: String, error: CompileError) {
        tracing::warn!(resource = %name, %error, "configuration refused");
        self.rejected.push(Rejected {
            type_url,
            name,
            error,
        });
    }
}

/// The snapshot in the making, and what in it is not as it was.
struct Draft {
    snapshot: Snapshot,
    clusters: HashSet<Name>,
    routes: HashSet<Name>,
    touched: bool,
}

impl Draft {
    fn of(before: &Snapshot) -> Self {
        Self {
            snapshot: Snapshot {
                generation: before.generation + 1,
                listeners: before.listeners.clone(),
                by_address: before.by_address.clone(),
                routes: before.routes.clone(),
                clusters: before.clusters.clone(),
                secrets: before.secrets.clone(),
                workloads: before.workloads.clone(),
            },
            clusters: HashSet::new(),
            routes: HashSet::new(),
            touched: false,
        }
    }

    fn publish(self, store: &Store) -> bool {
        let changed = self.touched || !self.clusters.is_empty() || !self.routes.is_empty();
        if changed {
            store.publish(self.snapshot);
        }
        changed
    }

    fn clusters_of<'s>(&'s self, service: &'s str) -> impl Iterator<Item = &'s Arc<Cluster>> {
        let clusters = self.snapshot.clusters.values();
        clusters.filter(move |cluster| same_service(cluster, service))
    }

    /// Whether `listener` refers to something that changed.
    fn concerns(&self, listener: &Listener) -> bool {
        refers(&listener.clusters, &self.clusters)
            || listener.routes.iter().any(|link| match link {
                RouteLink::Inline(routes) => refers(&routes.clusters, &self.clusters),
                RouteLink::Named(link) => self.routes.contains(&link.name),
            })
    }

    fn insert_listener(&mut self, listener: Listener) {
        self.insert_shared(Arc::new(listener));
    }

    fn insert_shared(&mut self, listener: Arc<Listener>) {
        self.touched = true;
        let def = &listener.def;
        let before = self
            .snapshot
            .listeners
            .insert(def.name.clone(), listener.clone());
        if let Some(before) = before.filter(|before| before.def.address != def.address) {
            self.forget_address(&before);
        }
        self.snapshot.by_address.insert(def.address, listener);
    }

    fn remove_listener(&mut self, name: &str) {
        if let Some(listener) = self.snapshot.listeners.remove(name) {
            self.touched = true;
            self.forget_address(&listener);
        }
    }

    fn forget_address(&mut self, listener: &Listener) {
        let address = listener.def.address;
        let known = self.snapshot.by_address.get(&address);
        if known.is_some_and(|known| known.def.name == listener.def.name) {
            self.snapshot.by_address.remove(&address);
        }
    }
}

fn same_service(cluster: &Cluster, service: &str) -> bool {
    matches!(&cluster.discovery, Discovery::Eds { service_name } if **service_name == *service)
}

fn bind_assignment(cluster: &Cluster, assignment: &Assignment, before: &EndpointSet) {
    // The addresses were checked when the assignment compiled.
    if let Ok(hosts) = assignment.addresses(At::root("")) {
        cluster.set_endpoints(bind(cluster, hosts, before), assignment.overprovisioning);
    }
}

fn is_warm(listener: &Listener) -> bool {
    listener.routes.iter().all(|link| link.target().is_some())
}

fn refers(links: &ClusterLinks, changed: &HashSet<Name>) -> bool {
    !changed.is_empty() && links.iter().any(|link| changed.contains(&link.name))
}

fn add_clusters(references: &mut References, links: &ClusterLinks) {
    references
        .clusters
        .extend(links.iter().map(|link| link.name.clone()));
}

fn relink_clusters(links: &ClusterLinks, clusters: &HashMap<Name, Arc<Cluster>>) -> ClusterLinks {
    let fresh = |link: &Link<Cluster>| Link {
        name: link.name.clone(),
        target: clusters.get(&link.name).cloned(),
    };
    links.iter().map(fresh).collect()
}

fn relink_routes(routes: &RouteConfig, clusters: &HashMap<Name, Arc<Cluster>>) -> RouteConfig {
    RouteConfig {
        table: routes.table.clone(),
        clusters: relink_clusters(&routes.clusters, clusters),
    }
}

fn relink_listener(listener: &Listener, snapshot: &Snapshot) -> Listener {
    let route = |link: &RouteLink| match link {
        RouteLink::Inline(routes) => {
            RouteLink::Inline(Arc::new(relink_routes(routes, &snapshot.clusters)))
        }
        RouteLink::Named(link) => RouteLink::Named(Link {
            name: link.name.clone(),
            target: snapshot.routes.get(&link.name).cloned(),
        }),
    };
    Listener {
        def: listener.def.clone(),
        clusters: relink_clusters(&listener.clusters, &snapshot.clusters),
        routes: listener.routes.iter().map(route).collect(),
    }
}
