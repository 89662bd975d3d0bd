//! An immutable state of the mesh, indexed for translation.
//!
//! - [`builder`]: the next state from the last and a [`change`], at the cost of what it concerns:
//!   [`objects`] and their [`index`] find that, [`affected`] gathers it
//! - [`attach`]: which route governs which service; [`backend`]: where it may send;
//!   [`server_names`]: which TLSRoute has which; [`backend_tls`]: the TLS of a
//!   service's apps; [`join`]: which workloads a service selects;
//!   [`cover`]: which workloads its ports and policies apply to; [`endpoints`]: where its calls go;
//!   [`ports`]: the protocols of a workload's ports, from all declarations; [`authorization`],
//!   [`policies`]: which policy applies where; [`hostnames`]: of workloads in headless services
//! - [`bypass`]: where a caller's connections reach an app without its sidecar
//! - [`leaving`]: identities that callers accept for a moment after a change; [`vip`]: allotted
//!   addresses; [`holders`]: which of several objects has an address
//! - [`status`]: conditions of objects; [`conditions`], of routes [`route_status`], of BackendTLSPolicies
//!   [`backend_tls_status`]: how they are computed

pub mod affected;
pub mod attach;
pub mod authorization;
pub mod backend;
pub mod backend_tls;
pub mod backend_tls_status;
pub mod builder;
pub mod bypass;
pub mod change;
pub mod conditions;
pub mod cover;
pub mod endpoints;
pub mod holders;
pub mod hostnames;
pub mod index;
pub mod join;
pub mod leaving;
pub mod objects;
pub mod policies;
pub mod ports;
pub mod route_status;
pub mod server_names;
pub mod status;
pub mod vip;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use persistent::Map;

use self::authorization::AuthorizationPolicies;
use self::backend_tls::BackendTls;
use self::endpoints::{EndpointsBy, Slices};
use self::status::ObjectStatus;
use super::manifest::families::Families;
use super::manifest::grant::ReferenceGrant;
use super::manifest::object::{Key, ObjectId};
use super::manifest::policy::{
    BackendPolicy, Defaults, EgressMode, EscapedSlashes, LogFormat, MeshPolicy, MtlsMode,
    ROOT_NAMESPACE,
};
use super::manifest::route::Route;
use super::manifest::service::{AppProtocol, PortRef, Service};
use super::manifest::values::Cidr;
use super::manifest::workload::Workload;

/// What holds for the whole life of the control plane.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MeshOptions {
    pub trust_domain: String,
    pub cluster_domain: String,
    /// Policies in this namespace hold for the whole mesh.
    pub root_namespace: String,
    pub endpoints: EndpointsBy,
    /// Ranges in which Workloads that are no Pods have their addresses; `None`: anywhere.
    pub machine_ranges: Option<Vec<Cidr>>,
}

impl MeshOptions {
    /// Whether callers may use an address of a workload. Otherwise a Workload of one namespace could
    /// claim an address that another namespace has.
    pub fn may_have(&self, workload: &Workload, ip: IpAddr) -> bool {
        let within = |ranges: &Vec<Cidr>| ranges.iter().any(|range| range.contains(ip));
        workload.pod || self.machine_ranges.as_ref().is_none_or(within)
    }
}

impl Default for MeshOptions {
    fn default() -> Self {
        MeshOptions {
            trust_domain: "anyam.local".to_owned(),
            cluster_domain: "cluster.local".to_owned(),
            root_namespace: ROOT_NAMESPACE.to_owned(),
            endpoints: EndpointsBy::default(),
            machine_ranges: None,
        }
    }
}

/// Everything at one instant. Never changed after it is published; a copy shares with it what stays.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Mesh {
    pub options: Arc<MeshOptions>,
    pub services: Map<Key, Arc<ServiceEntry>>,
    pub workloads: Map<Key, Arc<WorkloadEntry>>,
    pub by_host: Map<String, Key>,
    pub by_vip: Map<IpAddr, Key>,
    pub by_ip: Map<IpAddr, Key>,
    /// Workloads by the headless service that their `subdomain` names, and their `hostname` there.
    pub by_hostname: Map<(Key, String), BTreeSet<Key>>,
    /// How many services a namespace has.
    pub namespaces: Map<String, usize>,
    /// By their namespace.
    pub grants: Map<String, Vec<Arc<ReferenceGrant>>>,
    pub authorization: AuthorizationPolicies,
    pub policies: MeshPolicies,
    pub statuses: Map<ObjectId, Arc<ObjectStatus>>,
}

/// MeshPolicies by what they hold for; the one that won where several do.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct MeshPolicies {
    pub by_namespace: Map<String, Arc<MeshPolicy>>,
    pub by_workload: Map<Key, Arc<MeshPolicy>>,
}

/// A service with what belongs to it.
#[derive(Debug, PartialEq)]
pub struct ServiceEntry {
    pub service: Arc<Service>,
    /// Fully qualified.
    pub host: String,
    /// Empty when headless.
    pub vips: Vec<IpAddr>,
    pub ports: Vec<PortEntry>,
    /// Workloads among its endpoints, ready or not, in order.
    pub members: Vec<Key>,
    /// Those of them whose sidecars receive the connections of some callers only.
    pub by_source: Vec<Key>,
    /// Where its endpoints come from; `None`: from its selector.
    pub slices: Option<Slices>,
    /// SPIFFE ids of members that it had a moment ago.
    pub leaving: BTreeSet<String>,
    pub policy: Option<Arc<BackendPolicy>>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct PortEntry {
    pub name: String,
    pub number: u16,
    /// As declared, or as given by the routes attached to it.
    pub protocol: AppProtocol,
    pub target: PortRef,
    /// Routes of the service's own namespace, for all callers; by precedence.
    pub producers: Vec<Arc<Route>>,
    /// Routes of other namespaces, for callers there; by precedence.
    pub consumers: BTreeMap<String, Vec<Arc<Route>>>,
    /// What the apps behind it speak, by a BackendTLSPolicy.
    pub tls: Option<Arc<BackendTls>>,
}

impl PortEntry {
    /// Whether both declare the same port, whatever routes govern it and whatever its TLS is like.
    pub fn is_same_port(&self, other: &PortEntry) -> bool {
        let of = |it: &Self| (it.number, it.protocol, it.tls.is_some());
        of(self) == of(other) && (&self.name, &self.target) == (&other.name, &other.target)
    }

    /// Routes of a namespace on a port of a service in the namespace `own`.
    pub fn group(&self, namespace: &str, own: &str) -> &[Arc<Route>] {
        match namespace == own {
            true => &self.producers,
            false => self.consumers.get(namespace).map_or(&[], Vec::as_slice),
        }
    }

    /// The routes that govern calls from `namespace`; all of one kind, or of requests.
    fn routes_for(&self, namespace: &str) -> &[Arc<Route>] {
        self.consumers.get(namespace).unwrap_or(&self.producers)
    }

    /// Those of them that are of requests.
    pub fn request_routes_for(&self, namespace: &str) -> &[Arc<Route>] {
        let routes = self.routes_for(namespace);
        match has_connection_routes(routes) {
            true => &[],
            false => routes,
        }
    }

    /// Those of them that are of connections.
    pub fn connection_routes_for(&self, namespace: &str) -> &[Arc<Route>] {
        let routes = self.routes_for(namespace);
        match has_connection_routes(routes) {
            true => routes,
            false => &[],
        }
    }

    /// Whether calls from some namespace are governed by routes of connections.
    pub fn has_connection_routes(&self) -> bool {
        let mut groups = std::iter::once(&self.producers).chain(self.consumers.values());
        groups.any(|routes| has_connection_routes(routes))
    }
}

/// A workload with what belongs to it.
#[derive(Debug, PartialEq)]
pub struct WorkloadEntry {
    pub workload: Arc<Workload>,
    /// The services that have it among their endpoints.
    pub services: Vec<Key>,
    /// Services of its own namespace that declare its ports and whose policies hold for it: those
    /// among whose endpoints it is, and those that select it. A cluster's EndpointSlices list a pod
    /// some time after it can be called.
    pub covered_by: Vec<Key>,
    /// Declared by itself or by a service, by number.
    pub ports: BTreeMap<u16, AppProtocol>,
}

/// Of one group, whose routes are all of connections or all of requests.
fn has_connection_routes(group: &[Arc<Route>]) -> bool {
    let first = group.first();
    first.is_some_and(|route| route.kind.is_connection_route())
}

impl WorkloadEntry {
    /// What a port carries, as far as that is declared.
    pub fn protocol(&self, port: u16) -> AppProtocol {
        let declared = self.ports.get(&port).copied();
        declared.unwrap_or(AppProtocol::Undeclared)
    }
}

impl ServiceEntry {
    pub fn key(&self) -> Key {
        self.service.meta.key()
    }

    pub fn port(&self, number: u16) -> Option<&PortEntry> {
        self.ports.iter().find(|port| port.number == number)
    }
}

impl Mesh {
    pub fn service(&self, key: &Key) -> Option<&Arc<ServiceEntry>> {
        self.services.get(key)
    }

    pub fn workload(&self, namespace: &str, name: &str) -> Option<&Arc<WorkloadEntry>> {
        self.workloads.get(&Key::new(namespace, name))
    }

    pub fn service_by_host(&self, host: &str) -> Option<&Arc<ServiceEntry>> {
        self.services.get(self.by_host.get(host)?)
    }

    /// Of the addresses of a workload. `None`: it is not declared.
    pub fn families(&self, namespace: &str, workload: &str) -> Option<Families> {
        let entry = self.workload(namespace, workload)?;
        Some(Families::of(&entry.workload.addresses))
    }

    pub fn workload_by_ip(&self, ip: IpAddr) -> Option<&Arc<WorkloadEntry>> {
        self.workloads.get(self.by_ip.get(&ip)?)
    }

    /// SPIFFE ids that callers of a service accept: those of its members, and of recent members,
    /// whose endpoints proxies may still hold.
    pub fn known_as(&self, service: &ServiceEntry) -> BTreeSet<String> {
        let mut all = self.identities(service);
        all.extend(service.leaving.iter().cloned());
        all
    }

    /// SPIFFE ids under which a service may answer. Never empty: an empty list would accept
    /// any identity of the mesh.
    pub fn identities(&self, service: &ServiceEntry) -> BTreeSet<String> {
        let domain = &self.options.trust_domain;
        let mut all: BTreeSet<_> = self
            .members(service)
            .map(|entry| entry.workload.identity(domain))
            .collect();
        if all.is_empty() {
            let namespace = &service.service.meta.namespace;
            all.insert(format!("spiffe://{domain}/ns/{namespace}/sa/default"));
        }
        all
    }

    /// Policies for a workload, the most specific first.
    fn policies<'a>(
        &'a self,
        namespace: &'a str,
        workload: &'a str,
    ) -> impl Iterator<Item = &'a MeshPolicy> {
        let own = self
            .policies
            .by_workload
            .get(&Key::new(namespace, workload));
        let near = self.policies.by_namespace.get(namespace);
        let root = self.policies.by_namespace.get(&self.options.root_namespace);
        own.into_iter()
            .chain(near)
            .chain(root)
            .map(|policy| &**policy)
    }

    /// How a workload takes connections to one of its ports.
    pub fn mtls(&self, namespace: &str, workload: &str, port: u16) -> MtlsMode {
        let said = self.policies(namespace, workload).find_map(|policy| {
            let mtls = policy.spec.mtls.as_ref()?;
            let at_port = mtls.ports.iter().find(|(number, _)| number.get() == port);
            at_port.map(|(_, mode)| *mode).or(mtls.mode)
        });
        said.unwrap_or(MtlsMode::Permissive)
    }

    pub fn egress(&self, namespace: &str, workload: &str) -> EgressMode {
        self.policies(namespace, workload)
            .find_map(|policy| policy.spec.egress)
            .map_or(EgressMode::Allow, |egress| egress.mode)
    }

    pub fn access_log(&self, namespace: &str, workload: &str) -> LogFormat {
        self.policies(namespace, workload)
            .find_map(|policy| policy.spec.access_log)
            .map_or(LogFormat::Text, |log| log.format)
    }

    /// What a workload's sidecar does with `%2F` and `%5C` in paths, where a policy sets it.
    pub fn escaped_slashes(&self, namespace: &str, workload: &str) -> Option<EscapedSlashes> {
        self.policies(namespace, workload)
            .find_map(|policy| policy.spec.path_normalization)
            .map(|paths| paths.escaped_slashes)
    }

    /// Defaults for services of a namespace, the mesh's where that sets none.
    pub fn defaults(&self, namespace: &str) -> Defaults {
        let mut merged = Defaults::default();
        for policy in self.policies(namespace, "") {
            let given = &policy.spec.defaults;
            merged.connect_timeout = merged.connect_timeout.or(given.connect_timeout);
            merged.request_timeout = merged.request_timeout.or(given.request_timeout);
            merged.retry = merged.retry.or_else(|| given.retry.clone());
            merged.tcp_transport = merged.tcp_transport.or(given.tcp_transport);
            merged.outlier_detection = merged
                .outlier_detection
                .or_else(|| given.outlier_detection.clone());
        }
        merged
    }
}
