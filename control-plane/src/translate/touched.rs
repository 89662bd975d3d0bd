//! Which resources a change may affect. Listing too many costs CPU; listing too few would leave
//! proxies outdated.
//!
//! Resources are derived from the entries of the mesh, so the entries that differ between two
//! states determine the resources. What only one workload's own proxy receives is marked for that
//! proxy alone.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use xds_proto::type_url;

use super::name;
use super::naming::{self, Carries};
use super::resource::{of_address, of_service};
use super::route_filters::RouteFilters;
use crate::ads::resources::{Marks, NodeMarks, Touched};
use crate::model::manifest::object::Key;
use crate::model::manifest::workload::Workload;
use crate::model::mesh::affected::Changed;
use crate::model::mesh::endpoints::{Slices, retargeted};
use crate::model::mesh::{Mesh, PortEntry, ServiceEntry, WorkloadEntry};

/// Beyond this many changed entries, comparing everything costs less than a list of what to
/// compare, which is also kept for a while.
const MAX_ENTRIES: usize = 20_000;

const OUTBOUND_KINDS: [&str; 5] = [
    type_url::LISTENER,
    type_url::ROUTE,
    type_url::CLUSTER,
    type_url::ENDPOINT,
    type_url::NAME,
];

/// What may differ between `old` and `new`, which may differ in the entries of `changed`.
pub fn touched(old: &Mesh, new: &Mesh, changed: &Changed) -> Touched {
    let entries = changed.services.len() + changed.workloads.len();
    if changed.everything || entries > MAX_ENTRIES {
        return Touched::All;
    }
    let mut work = Work {
        old,
        new,
        marks: Marks::default(),
    };
    for key in &changed.services {
        work.service(key);
    }
    for key in &changed.workloads {
        work.workload(key, false);
    }
    for key in &changed.governed {
        work.workload(key, true);
    }
    for key in &changed.routed {
        work.routed(key);
    }
    for key in &changed.authorized {
        work.own(key, type_url::LISTENER, naming::INBOUND);
    }
    if changed.all_authorized {
        work.marks.names.add(type_url::LISTENER, naming::INBOUND);
    }
    Touched::Some(work.marks)
}

struct Work<'a> {
    old: &'a Mesh,
    new: &'a Mesh,
    marks: Marks,
}

impl<'a> Work<'a> {
    fn own(&mut self, node: &Key, kind: &str, name: impl AsRef<str>) {
        let marks = self.marks.nodes.entry(node.clone());
        marks.or_default().add(kind, name);
    }

    fn services(&self, key: &Key) -> [Option<&'a Arc<ServiceEntry>>; 2] {
        [self.old, self.new].map(|mesh| mesh.service(key))
    }

    /// All names of some types that a service has.
    fn named(&mut self, key: &Key, kinds: &[&str]) {
        for mesh in [self.old, self.new] {
            let Some(service) = mesh.service(key) else {
                continue;
            };
            for kind in kinds {
                let names = of_service(mesh, kind, service);
                self.marks.names.add_all(kind, names);
            }
        }
    }

    /// Its routes send to what changed: those of connections are part of listeners.
    fn routed(&mut self, key: &Key) {
        self.named(key, &[type_url::ROUTE]);
        if self.has_connection_routes(key) {
            self.named(key, &[type_url::LISTENER]);
        }
    }

    fn has_connection_routes(&self, key: &Key) -> bool {
        let mut both = self.services(key).into_iter().flatten();
        both.any(|entry| entry.ports.iter().any(PortEntry::has_connection_routes))
    }

    fn service(&mut self, key: &Key) {
        let (old, new) = match self.services(key) {
            [None, None] => return,
            [Some(old), Some(new)] if Arc::ptr_eq(old, new) => return,
            [Some(old), Some(new)] if is_alike(old, new) => (old, new),
            _ => return self.whole_service(key),
        };
        let routes = |entry: &'a ServiceEntry| {
            let ports = entry.ports.iter();
            ports.map(|port: &PortEntry| (&port.producers, &port.consumers))
        };
        if !routes(old).eq(routes(new)) {
            self.named(key, &[type_url::ROUTE]);
            let all = routes(old).chain(routes(new));
            let all = all.flat_map(|(own, of)| own.iter().chain(of.values().flatten()));
            let of_connections = self.has_connection_routes(key);
            if of_connections || !RouteFilters::of(all).is_empty() {
                self.named(key, &[type_url::LISTENER]);
            }
        }
        let tls = |entry: &'a ServiceEntry| entry.ports.iter().map(|port| &port.tls);
        if !tls(old).eq(tls(new)) {
            self.named(key, &[type_url::CLUSTER]);
            self.governed_addresses(old, new);
        }
        if old.policy != new.policy {
            self.named(key, &[type_url::CLUSTER, type_url::ROUTE]);
            self.governed_addresses(old, new);
        }
        if old.members != new.members || old.slices != new.slices {
            self.members(key, old.service.headless);
            self.labels(old, new);
        }
        for member in retargeted((self.old, old), (self.new, new)) {
            for (mesh, service) in [(self.old, old), (self.new, new)] {
                if let Some(entry) = mesh.workloads.get(member) {
                    self.ports(service, entry);
                }
            }
        }
        if self.old.known_as(old) != self.new.known_as(new) {
            self.named(key, &[type_url::CLUSTER]);
        }
    }

    /// Addresses of the members of a headless service, a policy of which changed.
    fn governed_addresses(&mut self, old: &ServiceEntry, new: &ServiceEntry) {
        for (mesh, service) in [(self.old, old), (self.new, new)] {
            let headless = service.service.headless;
            for entry in mesh.members(service).filter(|_| headless) {
                for port in &service.ports {
                    for number in service.targets(port, &entry.workload) {
                        for ip in &entry.workload.addresses {
                            self.address(SocketAddr::new(*ip, number));
                        }
                    }
                }
            }
        }
    }

    /// What depends on the members of a service.
    fn members(&mut self, key: &Key, headless: bool) {
        self.named(key, &[type_url::ENDPOINT]);
        if headless {
            self.named(key, &[type_url::NAME]);
        }
    }

    /// Marks the DNS names of members in slices that differ.
    fn labels(&mut self, old: &ServiceEntry, new: &ServiceEntry) {
        let (was, is) = (labels(old), labels(new));
        for (label, service) in was
            .keys()
            .map(|label| (label, old))
            .chain(is.keys().map(|label| (label, new)))
        {
            if was.get(label) != is.get(label) {
                let name = name::below(label, service);
                self.marks.names.add_all(type_url::NAME, name);
            }
        }
        // One of the two has names by selector, the other by slices.
        if old.slices.is_some() != new.slices.is_some() {
            let names = name::member_names(self.old, old);
            self.marks.names.add_all(type_url::NAME, names);
            let names = name::member_names(self.new, new);
            self.marks.names.add_all(type_url::NAME, names);
        }
    }

    /// Marks the DNS name of a member, if it has one.
    fn member_name(&mut self, service: &ServiceEntry, workload: &Workload) {
        let name = name::member_name(service, workload);
        self.marks.names.add_all(type_url::NAME, name);
    }

    /// All that has a service's name, and its workloads' ports.
    fn whole_service(&mut self, key: &Key) {
        self.named(key, &OUTBOUND_KINDS);
        for mesh in [self.old, self.new] {
            let Some(service) = mesh.service(key) else {
                continue;
            };
            for entry in mesh.members(service) {
                self.ports(service, entry);
            }
            let names = name::member_names(mesh, service);
            self.marks.names.add_all(type_url::NAME, names);
            // A service's address takes precedence over a workload with the same address.
            for vip in &service.vips {
                self.addressed(*vip);
            }
        }
    }

    /// What a service declares of the ports of one of its workloads.
    fn ports(&mut self, service: &ServiceEntry, entry: &WorkloadEntry) {
        let node = entry.workload.meta.key();
        self.own(&node, type_url::LISTENER, naming::INBOUND);
        for port in &service.ports {
            for number in service.covers(port, &entry.workload) {
                self.own(&node, type_url::CLUSTER, naming::inbound_cluster(number));
                for ip in &entry.workload.addresses {
                    self.address(SocketAddr::new(*ip, number));
                }
            }
        }
    }

    fn address(&mut self, at: SocketAddr) {
        for kind in [type_url::LISTENER, type_url::CLUSTER, type_url::ROUTE] {
            let names = of_address(kind, at, &Carries::ALL);
            self.marks.names.add_all(kind, names);
        }
        // Undeclared ports are subscribed to by address.
        self.marks.addresses.insert(at.ip());
    }

    /// All that is known of an address that some workload has.
    fn addressed(&mut self, ip: IpAddr) {
        self.marks.addresses.insert(ip);
        for mesh in [self.old, self.new] {
            let entry = mesh.workload_by_ip(ip);
            for port in entry.into_iter().flat_map(|entry| entry.ports.keys()) {
                self.address(SocketAddr::new(ip, *port));
            }
        }
    }

    /// `governed`: by a policy that changed, even if nothing else did.
    fn workload(&mut self, key: &Key, governed: bool) {
        let [old, new] = [self.old, self.new].map(|mesh| mesh.workloads.get(key));
        let entries = || old.into_iter().chain(new);
        let addresses = || entries().flat_map(|entry| &entry.workload.addresses);
        let object = |entry: Option<&'a Arc<WorkloadEntry>>| entry.map(|it| &it.workload);
        let moved = addresses().any(|ip| self.old.by_ip.get(ip) != self.new.by_ip.get(ip));
        let itself = governed || moved || object(old) != object(new);
        self.redeclared(old, new);
        if !itself && old == new {
            return;
        }
        for entry in entries() {
            for port in entry.ports.keys() {
                self.own(key, type_url::CLUSTER, naming::inbound_cluster(*port));
            }
            for ip in &entry.workload.addresses {
                self.marks.addresses.insert(*ip);
                for port in entry.ports.keys() {
                    self.address(SocketAddr::new(*ip, *port));
                }
            }
        }
        self.own(key, type_url::LISTENER, naming::INBOUND);
        self.own(key, type_url::CLUSTER, naming::INBOUND_PASSTHROUGH);
        if itself {
            for ip in addresses() {
                self.marks.names.add(type_url::WORKLOAD, ip.to_string());
            }
            self.endpoints_of(old, new);
        }
        let reach = |entry: Option<&Arc<WorkloadEntry>>| {
            let workload = &entry?.workload;
            let addresses = workload.addresses.clone();
            Some((addresses, workload.locality.clone(), workload.node.clone()))
        };
        if governed || reach(old) != reach(new) {
            // Its proxy's listeners, clusters and access logs.
            self.marks.nodes.insert(key.clone(), NodeMarks::All);
        }
    }

    /// The ports of a workload as the services that cover it declare them; it need not be their
    /// endpoint.
    fn redeclared(&mut self, old: Option<&Arc<WorkloadEntry>>, new: Option<&Arc<WorkloadEntry>>) {
        let covering = old.into_iter().chain(new);
        let covering: BTreeSet<&Key> = covering.flat_map(|entry| &entry.covered_by).collect();
        for key in covering {
            // A service that was added or removed shows in the workload's entry.
            let [Some(was), Some(is)] = self.services(key) else {
                continue;
            };
            if Arc::ptr_eq(was, is) || was.has_same_ports(is) {
                continue;
            }
            for (service, entry) in [(was, old), (is, new)] {
                if let Some(entry) = entry {
                    self.ports(service, entry);
                }
            }
        }
    }

    /// Resources that list a workload as an endpoint of services.
    fn endpoints_of(&mut self, old: Option<&Arc<WorkloadEntry>>, new: Option<&Arc<WorkloadEntry>>) {
        let identity = |mesh: &Mesh, entry: Option<&Arc<WorkloadEntry>>| {
            entry.map(|entry| entry.workload.identity(&mesh.options.trust_domain))
        };
        let renamed = identity(self.old, old) != identity(self.new, new);
        let both = old.into_iter().chain(new);
        let services: BTreeSet<_> = both.flat_map(|entry| &entry.services).collect();
        for service in services {
            let entries = self.services(service);
            let headless = entries.into_iter().flatten().any(|it| it.service.headless);
            self.members(service, headless);
            for entry in entries.into_iter().flatten() {
                for member in old.into_iter().chain(new) {
                    self.member_name(entry, &member.workload);
                }
            }
            let known = |mesh: &Mesh, at: usize| entries[at].map(|entry| mesh.known_as(entry));
            if renamed && known(self.old, 0) != known(self.new, 1) {
                self.named(service, &[type_url::CLUSTER]);
            }
        }
    }
}

/// The DNS names below a headless service that has slices, with the addresses of each.
fn labels(service: &ServiceEntry) -> BTreeMap<&str, Vec<(IpAddr, bool)>> {
    let labels = service.slices.iter().flat_map(Slices::labels);
    let shown = labels.map(|(label, all)| {
        let facts = all.iter().map(|(_, it)| (it.address, it.conditions.ready));
        (label, facts.collect())
    });
    shown.collect()
}

/// Whether two states of a service differ at most in routes, policy and members.
fn is_alike(old: &ServiceEntry, new: &ServiceEntry) -> bool {
    old.service == new.service && old.vips == new.vips && old.has_same_ports(new)
}
