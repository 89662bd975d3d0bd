//! An immutable state of the mesh, indexed for translation.
//!
//! - [`builder`]: the next state from the last, and the [`change`]s between
//! - [`attach`]: which route governs which service; [`join`]: which workloads a service selects
//! - [`ports`]: what is declared of a workload's ports together; [`claims`]: who has an address that
//!   several services ask for
//! - [`leaving`]: identities that outlive a change for a moment; [`vip`]: allotted addresses
//! - [`status`]: conditions of objects

pub mod attach;
pub mod builder;
pub mod change;
pub mod claims;
pub mod join;
pub mod leaving;
pub mod ports;
pub mod status;
pub mod vip;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use super::manifest::authorization::AuthorizationPolicy;
use super::manifest::grant::ReferenceGrant;
use super::manifest::object::{Key, Target};
use super::manifest::policy::{
    BackendPolicy, Defaults, EgressMode, EscapedSlashes, LogFormat, MeshPolicy, MtlsMode,
    ROOT_NAMESPACE,
};
use super::manifest::route::{Destination, Route};
use super::manifest::service::{AppProtocol, PortRef, Service};
use super::manifest::workload::Workload;
use super::mesh::status::ObjectStatus;

/// What holds for the whole life of the control plane.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MeshOptions {
    pub trust_domain: String,
    pub cluster_domain: String,
}

impl Default for MeshOptions {
    fn default() -> Self {
        MeshOptions {
            trust_domain: "anyam.local".to_owned(),
            cluster_domain: "cluster.local".to_owned(),
        }
    }
}

/// Families of addresses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Families {
    pub v4: bool,
    pub v6: bool,
}

impl Families {
    pub const V4: Self = Families {
        v4: true,
        v6: false,
    };
    pub const BOTH: Self = Families { v4: true, v6: true };

    pub fn of(addresses: &[IpAddr]) -> Self {
        Families {
            v4: addresses.iter().any(IpAddr::is_ipv4),
            v6: addresses.iter().any(IpAddr::is_ipv6),
        }
    }

    pub fn have(self, ip: IpAddr) -> bool {
        if ip.is_ipv4() { self.v4 } else { self.v6 }
    }
}

/// Everything at one instant. Never changed after it is built.
#[derive(Debug, Default)]
pub struct Mesh {
    pub options: Arc<MeshOptions>,
    pub services: BTreeMap<Key, Arc<ServiceEntry>>,
    pub workloads: BTreeMap<Key, Arc<WorkloadEntry>>,
    pub by_host: HashMap<String, Key>,
    pub by_vip: HashMap<IpAddr, Key>,
    pub by_ip: HashMap<IpAddr, Key>,
    /// By their namespace.
    pub grants: BTreeMap<String, Vec<Arc<ReferenceGrant>>>,
    /// Sorted by precedence.
    pub authorization: Vec<Arc<AuthorizationPolicy>>,
    pub policies: MeshPolicies,
    pub statuses: Vec<ObjectStatus>,
}

/// MeshPolicies by what they hold for; the one that won where several do.
#[derive(Debug, Default)]
pub struct MeshPolicies {
    pub by_namespace: BTreeMap<String, Arc<MeshPolicy>>,
    pub by_workload: BTreeMap<Key, Arc<MeshPolicy>>,
}

/// A service with what belongs to it.
#[derive(Debug)]
pub struct ServiceEntry {
    pub service: Arc<Service>,
    /// Fully qualified.
    pub host: String,
    /// Empty when headless.
    pub vips: Vec<IpAddr>,
    pub ports: Vec<PortEntry>,
    /// Workloads it selects, ready or not.
    pub members: Vec<Key>,
    /// SPIFFE ids of members that it selected a moment ago.
    pub leaving: BTreeSet<String>,
    pub policy: Option<Arc<BackendPolicy>>,
}

#[derive(Debug)]
pub struct PortEntry {
    pub name: String,
    pub number: u16,
    /// As declared, or as the routes attached to it say.
    pub protocol: AppProtocol,
    pub target: PortRef,
    /// Routes of the service's own namespace, for all callers; by precedence.
    pub producers: Vec<Arc<Route>>,
    /// Routes of other namespaces, for callers there; by precedence.
    pub consumers: BTreeMap<String, Vec<Arc<Route>>>,
}

impl PortEntry {
    /// The routes that govern calls from `namespace`.
    pub fn routes_for(&self, namespace: &str) -> &[Arc<Route>] {
        self.consumers.get(namespace).unwrap_or(&self.producers)
    }
}

/// A workload with what belongs to it.
#[derive(Debug)]
pub struct WorkloadEntry {
    pub workload: Arc<Workload>,
    /// That select it.
    pub services: Vec<Key>,
    /// Declared by itself or by a service, by number.
    pub ports: BTreeMap<u16, AppProtocol>,
}

/// Why a route's backend cannot be used; such a share answers 500.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BadBackend {
    InvalidKind,
    RefNotPermitted,
    UnsupportedProtocol,
    NotFound(String),
}

impl ServiceEntry {
    pub fn key(&self) -> Key {
        self.service.meta.key()
    }

    pub fn port(&self, number: u16) -> Option<&PortEntry> {
        self.ports.iter().find(|port| port.number == number)
    }
}

/// The port of `workload` that `target` means.
pub fn resolve_port(target: &PortRef, workload: &Workload) -> Option<u16> {
    match target {
        PortRef::Number(number) => Some(number.get()),
        PortRef::Name(name) => workload
            .ports
            .iter()
            .find(|port| port.name == *name)
            .map(|port| port.number),
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

    pub fn members<'a>(
        &'a self,
        service: &'a ServiceEntry,
    ) -> impl Iterator<Item = &'a Arc<WorkloadEntry>> {
        service
            .members
            .iter()
            .filter_map(|key| self.workloads.get(key))
    }

    /// SPIFFE ids by which callers know a service: of its members, and of those that left a moment
    /// ago, whose endpoints proxies may still hold.
    pub fn known_as(&self, service: &ServiceEntry) -> BTreeSet<String> {
        let mut all = self.identities(service);
        all.extend(service.leaving.iter().cloned());
        all
    }

    /// SPIFFE ids under which a service may answer. Never empty: an empty list would let anyone
    /// of the mesh answer.
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

    /// What a route's backend or mirror points at.
    ///
    /// # Errors
    /// See [`BadBackend`].
    pub fn backend(
        &self,
        route: &Route,
        to: &Destination,
    ) -> Result<(&Arc<ServiceEntry>, u16), BadBackend> {
        if !to.service {
            return Err(BadBackend::InvalidKind);
        }
        if to.namespace != route.meta.namespace && !self.granted(route, to) {
            return Err(BadBackend::RefNotPermitted);
        }
        let key = Key::new(&to.namespace, &to.name);
        let service = self
            .service(&key)
            .ok_or_else(|| BadBackend::NotFound(format!("there is no Service {key}")))?;
        let port = to
            .port
            .ok_or_else(|| BadBackend::NotFound(format!("Service {key} needs a port here")))?;
        match service.port(port) {
            Some(entry) if entry.protocol == AppProtocol::Tcp => {
                Err(BadBackend::UnsupportedProtocol)
            }
            Some(_) => Ok((service, port)),
            None => Err(BadBackend::NotFound(format!(
                "Service {key} has no port {port}"
            ))),
        }
    }

    fn granted(&self, route: &Route, to: &Destination) -> bool {
        // What the caller addressed itself needs nobody's leave (consumer routes, GEP-1294).
        let parent = route.parents.iter().any(|parent| {
            parent.service && parent.namespace == to.namespace && parent.name == to.name
        });
        let grants = self
            .grants
            .get(&to.namespace)
            .map(Vec::as_slice)
            .unwrap_or_default();
        let kind = route.kind.name();
        let allows =
            |grant: &Arc<ReferenceGrant>| grant.allows(kind, &route.meta.namespace, &to.name);
        parent || grants.iter().any(allows)
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
        let root = self.policies.by_namespace.get(ROOT_NAMESPACE);
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

    /// What a workload's sidecar does with `%2F` and `%5C` in paths, where a policy says so.
    pub fn escaped_slashes(&self, namespace: &str, workload: &str) -> Option<EscapedSlashes> {
        self.policies(namespace, workload)
            .find_map(|policy| policy.spec.path_normalization)
            .map(|paths| paths.escaped_slashes)
    }

    /// Defaults for services of a namespace, the mesh's where that says nothing.
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

    /// Authorisation policies that hold for a port of a workload, by precedence.
    pub fn authorization_for(
        &self,
        entry: &WorkloadEntry,
        port: Option<u16>,
    ) -> Vec<&Arc<AuthorizationPolicy>> {
        let holds = |policy: &&Arc<AuthorizationPolicy>| {
            let namespace = &policy.meta.namespace;
            let own = *namespace == entry.workload.meta.namespace;
            if policy.targets.is_empty() {
                return own || namespace == ROOT_NAMESPACE;
            }
            own && policy
                .targets
                .iter()
                .any(|target| self.hits(target, entry, port))
        };
        self.authorization.iter().filter(holds).collect()
    }

    /// A service as target means those ports of its workloads that it sends to.
    fn hits(&self, target: &Target, entry: &WorkloadEntry, port: Option<u16>) -> bool {
        let (name, section) = match target {
            Target::Workload(name) => return *name == entry.workload.meta.name,
            Target::Service { name, port } => (name, port),
        };
        let Some(number) = port else { return false };
        let key = Key::new(&entry.workload.meta.namespace, name);
        let Some(service) = self
            .services
            .get(&key)
            .filter(|_| entry.services.contains(&key))
        else {
            return false;
        };
        service.ports.iter().any(|port| {
            section.as_ref().is_none_or(|section| *section == port.name)
                && resolve_port(&port.target, &entry.workload) == Some(number)
        })
    }
}
