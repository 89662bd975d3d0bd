//! Which resources a change of objects may change. Too many is only work; too few would leave
//! proxies behind.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use xds_proto::type_url;

use super::naming::{self, Carries};
use super::resource::{of_address, of_service};
use crate::ads::resources::Touched;
use crate::model::Object;
use crate::model::manifest::object::{Key, Target};
use crate::model::manifest::route;
use crate::model::mesh::change::Change;
use crate::model::mesh::{Families, Mesh, ServiceEntry, WorkloadEntry, resolve_port};

/// Ports beyond the declared ones under which workloads were asked for.
pub type Asked = HashMap<IpAddr, BTreeSet<u16>>;

const ALL_CARRIES: [Carries; 3] = [Carries::Declared, Carries::Http2, Carries::Tcp];
const OUTBOUND_KINDS: [&str; 5] = [
    type_url::LISTENER,
    type_url::ROUTE,
    type_url::CLUSTER,
    type_url::ENDPOINT,
    type_url::NAME,
];

/// What may differ between `old` and `new`, which `changes` separate.
pub fn touched(old: &Mesh, new: &Mesh, changes: &[Change], asked: &Asked) -> Touched {
    let mut work = Work {
        old,
        new,
        asked,
        names: HashMap::new(),
    };
    for change in changes {
        for object in change.before.iter().chain(&change.after) {
            match object {
                // Rare, and it holds for whole namespaces.
                Object::Mesh(_) => return Touched::All,
                Object::Service(it) => work.service(&it.meta.key()),
                Object::Workload(it) => work.workload(&it.meta.key()),
                Object::Route(it) => work.route(it),
                Object::Grant(_) => work.routed(),
                Object::Authorization(_) => work.add(type_url::LISTENER, naming::INBOUND),
                Object::Backend(it) => {
                    for target in &it.targets {
                        let Target::Service { name, .. } = target else {
                            continue;
                        };
                        work.calls(&Key::new(&it.meta.namespace, name));
                    }
                }
            }
        }
    }
    Touched::Names(work.names)
}

struct Work<'a> {
    old: &'a Mesh,
    new: &'a Mesh,
    asked: &'a Asked,
    names: HashMap<String, HashSet<Arc<str>>>,
}

impl<'a> Work<'a> {
    fn add(&mut self, kind: &str, name: impl AsRef<str>) {
        self.names
            .entry(kind.to_owned())
            .or_default()
            .insert(Arc::from(name.as_ref()));
    }

    fn add_all(&mut self, kind: &str, names: Vec<String>) {
        for name in names {
            self.add(kind, name);
        }
    }

    fn both(&self, key: &Key) -> Vec<&'a ServiceEntry> {
        let both = [self.old, self.new].into_iter();
        both.filter_map(|mesh| mesh.service(key))
            .map(|entry| &**entry)
            .collect()
    }

    /// Services that have, or had, an address that this one asks for.
    fn rivals(&self, key: &Key) -> BTreeSet<Key> {
        let asked = self
            .both(key)
            .into_iter()
            .flat_map(|it| &it.service.cluster_ips);
        let owners = asked.flat_map(|ip| [self.old, self.new].map(|mesh| mesh.by_vip.get(ip)));
        owners
            .flatten()
            .filter(|owner| *owner != key)
            .cloned()
            .collect()
    }

    /// A service: all that has its name, all routes that send to it, and its workloads' ports.
    fn service(&mut self, key: &Key) {
        let rivals = self.rivals(key);
        for key in rivals.iter().chain([key]) {
            for service in self.both(key) {
                for kind in OUTBOUND_KINDS {
                    self.add_all(kind, of_service(kind, service));
                }
            }
        }
        for mesh in [self.old, self.new] {
            for (other, port) in mesh
                .services
                .values()
                .flat_map(|it| it.ports.iter().map(move |port| (it, port)))
            {
                let mut routes = port
                    .producers
                    .iter()
                    .chain(port.consumers.values().flatten());
                if routes.any(|route| sends_to(route, key)) {
                    self.add_all(type_url::ROUTE, of_service(type_url::ROUTE, other));
                }
            }
            let Some(service) = mesh.service(key) else {
                continue;
            };
            for entry in mesh.members(service) {
                self.ports(service, entry);
            }
        }
    }

    /// What a service says of the ports of one of its workloads.
    fn ports(&mut self, service: &ServiceEntry, entry: &WorkloadEntry) {
        self.add(type_url::LISTENER, naming::INBOUND);
        for port in &service.ports {
            let Some(number) = resolve_port(&port.target, &entry.workload) else {
                continue;
            };
            self.add(type_url::CLUSTER, naming::inbound_cluster(number));
            for ip in &entry.workload.addresses {
                self.address(SocketAddr::new(*ip, number));
            }
        }
    }

    fn address(&mut self, at: SocketAddr) {
        for kind in [type_url::LISTENER, type_url::CLUSTER, type_url::ROUTE] {
            self.add_all(kind, of_address(kind, at, &ALL_CARRIES));
        }
    }

    /// Calls to a service: clusters and routes.
    fn calls(&mut self, key: &Key) {
        for service in self.both(key) {
            for kind in [type_url::CLUSTER, type_url::ROUTE] {
                self.add_all(kind, of_service(kind, service));
            }
        }
    }

    fn workload(&mut self, key: &Key) {
        let entries = [self.old, self.new].map(|mesh| mesh.workloads.get(key));
        let mut services = BTreeSet::new();
        for entry in entries.into_iter().flatten() {
            services.extend(entry.services.iter().cloned());
            for ip in &entry.workload.addresses {
                self.add(type_url::WORKLOAD, ip.to_string());
                let asked = self.asked.get(ip).into_iter().flatten();
                let ports: BTreeSet<u16> = asked.chain(entry.ports.keys()).copied().collect();
                for port in ports {
                    self.address(SocketAddr::new(*ip, port));
                }
            }
            for port in entry.ports.keys() {
                self.add(type_url::CLUSTER, naming::inbound_cluster(*port));
            }
        }
        self.add(type_url::LISTENER, naming::INBOUND);
        self.add(type_url::LISTENER, naming::OUTBOUND);
        self.add(type_url::CLUSTER, naming::INBOUND_PASSTHROUGH);
        let families =
            entries.map(|entry| entry.map(|entry| Families::of(&entry.workload.addresses)));
        if families[0] != families[1] {
            self.dual_stack();
        }
        for key in services {
            let identities = [self.old, self.new].map(|mesh| {
                mesh.service(&key)
                    .map(|service| mesh.identities(service))
                    .unwrap_or_default()
            });
            for service in self.both(&key) {
                self.add_all(type_url::ENDPOINT, of_service(type_url::ENDPOINT, service));
                if identities[0] != identities[1] {
                    self.add_all(type_url::CLUSTER, of_service(type_url::CLUSTER, service));
                }
                if service.service.headless {
                    self.add(type_url::NAME, &service.host);
                }
            }
        }
    }

    /// Endpoints that depend on what their caller can dial.
    fn dual_stack(&mut self) {
        for mesh in [self.old, self.new] {
            for service in mesh.services.values() {
                let mut members = mesh.members(service);
                let both = |entry: &Arc<WorkloadEntry>| {
                    Families::of(&entry.workload.addresses) == Families::BOTH
                };
                if members.any(both) {
                    self.add_all(type_url::ENDPOINT, of_service(type_url::ENDPOINT, service));
                }
            }
        }
    }

    /// A route: the routes of its parents; more where it says what a port carries.
    fn route(&mut self, route: &route::Route) {
        for parent in &route.parents {
            let key = Key::new(&parent.namespace, &parent.name);
            let said = |mesh: &Mesh| {
                let ports = mesh.service(&key).map(|service| &service.ports);
                let ports = ports.into_iter().flatten();
                ports
                    .map(|port| (port.number, port.protocol))
                    .collect::<Vec<_>>()
            };
            match said(self.old) == said(self.new) {
                true => {
                    for service in self.both(&key) {
                        self.add_all(type_url::ROUTE, of_service(type_url::ROUTE, service));
                    }
                }
                false => self.service(&key),
            }
        }
    }

    /// All services that have routes.
    fn routed(&mut self) {
        for mesh in [self.old, self.new] {
            for service in mesh.services.values() {
                let mut ports = service.ports.iter();
                if ports.any(|port| !port.producers.is_empty() || !port.consumers.is_empty()) {
                    self.add_all(type_url::ROUTE, of_service(type_url::ROUTE, service));
                }
            }
        }
    }
}

fn sends_to(route: &route::Route, key: &Key) -> bool {
    let mut all = route.rules.iter().flat_map(route::Rule::destinations);
    all.any(|to| to.namespace == key.namespace && to.name == key.name)
}
