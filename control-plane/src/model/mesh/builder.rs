//! The next state of the mesh from the objects of a source. One writer.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use super::attach::{Attached, resolved_refs};
use super::change::{Change, Delta, Origin};
use super::claims;
use super::join;
use super::leaving::Leaving;
use super::status::{Condition, ObjectStatus};
use super::vip::{VipError, Vips};
use super::{Mesh, MeshOptions, ServiceEntry, WorkloadEntry};
use crate::model::manifest::object::{Key, Kind, ObjectId, Target};
use crate::model::manifest::policy::{BackendPolicy, MeshPolicy};
use crate::model::manifest::read::Object;
use crate::model::manifest::route::Route;
use crate::model::manifest::service::Service;
use crate::model::manifest::workload::Workload;

/// Holds the objects and builds states of them.
#[derive(Debug)]
pub struct Builder {
    options: Arc<MeshOptions>,
    vips: Vips,
    objects: BTreeMap<ObjectId, (Object, Origin)>,
    leaving: Leaving,
    /// Addresses of services in the last state.
    served: HashMap<IpAddr, Key>,
}

impl Builder {
    pub fn new(options: MeshOptions, vips: Vips) -> Self {
        Builder {
            options: Arc::new(options),
            vips,
            objects: BTreeMap::new(),
            leaving: Leaving::default(),
            served: HashMap::new(),
        }
    }

    /// Takes what a source says differs. Gives the new state and what changed, which is empty when
    /// nothing did.
    pub fn apply(&mut self, delta: Delta) -> (Arc<Mesh>, Vec<Change>) {
        let mut changes = Vec::new();
        for id in delta.removed {
            if let Some((before, _)) = self.objects.remove(&id) {
                changes.push(Change {
                    before: Some(before),
                    after: None,
                });
            }
        }
        for (after, origin) in delta.set {
            let before = self.objects.insert(after.id(), (after.clone(), origin));
            let before = before.map(|(before, _)| before);
            if before.as_ref() != Some(&after) {
                let after = Some(after);
                changes.push(Change { before, after });
            }
        }
        (Arc::new(self.build()), changes)
    }

    /// Time has passed since the last state: what was kept of earlier ones may be forgotten. `None`
    /// when that changes nothing.
    pub fn settle(&mut self) -> Option<(Arc<Mesh>, Vec<Change>)> {
        let kind = Kind::Service;
        let of = |key| self.objects.get(&ObjectId { kind, key });
        let forgotten = self.leaving.age().into_iter().filter_map(of);
        let changes: Vec<_> = forgotten.map(|(service, _)| Change::of(service)).collect();
        (!changes.is_empty()).then(|| (Arc::new(self.build()), changes))
    }

    /// Keeps newly allotted addresses over a restart.
    ///
    /// # Errors
    /// See [`Vips::save`].
    pub fn save(&mut self) -> Result<(), VipError> {
        self.vips.save()
    }

    fn build(&mut self) -> Mesh {
        let objects = Sorted::of(self.objects.values().map(|(object, _)| object));
        let mut statuses = Statuses::default();
        let mut attached = Attached::default();
        for route in &objects.routes {
            let condition = attached.add(route, &objects.services);
            statuses.push(route.kind, route.meta.key(), condition);
        }
        let mut mesh = Mesh {
            options: self.options.clone(),
            ..Mesh::default()
        };
        for grant in objects.grants {
            mesh.grants
                .entry(grant.meta.namespace.clone())
                .or_default()
                .push(grant);
        }
        add_workloads(&mut mesh, objects.workloads, &mut statuses);
        let policies = backend_policies(&objects.backend, &objects.services, &mut statuses);
        let mut conflicts = Vec::new();
        let owners = claims::owners(&objects.services, &self.served);
        for (key, service) in &objects.services {
            let ports = service.ports.iter();
            let ports = ports
                .filter_map(|port| attached.port(service, port.number, &mut conflicts))
                .collect();
            let entry = ServiceEntry {
                host: format!(
                    "{}.{}.svc.{}",
                    key.name, key.namespace, self.options.cluster_domain
                ),
                vips: addresses(service, &mut self.vips),
                ports,
                members: Vec::new(),
                leaving: Default::default(),
                policy: policies.get(key).cloned(),
                service: service.clone(),
            };
            add_service(&mut mesh, entry, &owners, &mut statuses);
        }
        for route in conflicts {
            let message = "a GRPCRoute governs a port this route is attached to";
            let condition = Condition::no("Accepted", "Conflicted", message);
            statuses.replace(route.kind, route.meta.key(), condition);
        }
        join::services_and_workloads(&mut mesh);
        self.leaving.note(&mut mesh);
        for route in &objects.routes {
            statuses.push(route.kind, route.meta.key(), resolved_refs(&mesh, route));
        }
        add_mesh_policies(&mut mesh, objects.mesh, &mut statuses);
        for policy in &objects.authorization {
            let condition = target_condition(&mesh, &policy.meta.namespace, &policy.targets);
            statuses.push(Kind::AuthorizationPolicy, policy.meta.key(), condition);
        }
        mesh.authorization = objects.authorization;
        mesh.authorization
            .sort_by(|a, b| a.meta.precedence().cmp(&b.meta.precedence()));
        mesh.statuses = statuses.finish(&self.objects);
        self.served = mesh.by_vip.clone();
        mesh
    }
}

/// Objects by kind.
#[derive(Default)]
struct Sorted {
    services: BTreeMap<Key, Arc<Service>>,
    workloads: Vec<Arc<Workload>>,
    routes: Vec<Arc<Route>>,
    grants: Vec<Arc<crate::model::manifest::grant::ReferenceGrant>>,
    authorization: Vec<Arc<crate::model::manifest::authorization::AuthorizationPolicy>>,
    mesh: Vec<Arc<MeshPolicy>>,
    backend: Vec<Arc<BackendPolicy>>,
}

impl Sorted {
    fn of<'a>(objects: impl Iterator<Item = &'a Object>) -> Self {
        let mut sorted = Sorted::default();
        for object in objects {
            match object.clone() {
                Object::Service(it) => {
                    sorted.services.insert(it.meta.key(), it);
                }
                Object::Workload(it) => sorted.workloads.push(it),
                Object::Route(it) => sorted.routes.push(it),
                Object::Grant(it) => sorted.grants.push(it),
                Object::Authorization(it) => sorted.authorization.push(it),
                Object::Mesh(it) => sorted.mesh.push(it),
                Object::Backend(it) => sorted.backend.push(it),
            }
        }
        sorted
    }
}

#[derive(Default)]
struct Statuses(HashMap<ObjectId, Vec<Condition>>);

impl Statuses {
    fn push(&mut self, kind: Kind, key: Key, condition: Condition) {
        self.0
            .entry(ObjectId { kind, key })
            .or_default()
            .push(condition);
    }

    fn replace(&mut self, kind: Kind, key: Key, condition: Condition) {
        let conditions = self.0.entry(ObjectId { kind, key }).or_default();
        conditions.retain(|other| other.kind != condition.kind);
        conditions.push(condition);
    }

    fn finish(mut self, objects: &BTreeMap<ObjectId, (Object, Origin)>) -> Vec<ObjectStatus> {
        let status = |(id, (_, origin)): (&ObjectId, &(Object, Origin))| {
            let mut conditions = self.0.remove(id).unwrap_or_default();
            if !conditions
                .iter()
                .any(|condition| condition.kind == "Accepted")
            {
                conditions.insert(0, Condition::accepted());
            }
            ObjectStatus {
                id: id.clone(),
                origin: origin.clone(),
                conditions,
            }
        };
        objects.iter().map(status).collect()
    }
}

fn addresses(service: &Service, vips: &mut Vips) -> Vec<IpAddr> {
    match (service.headless, service.cluster_ips.is_empty()) {
        (true, _) => Vec::new(),
        (false, false) => service.cluster_ips.clone(),
        (false, true) => {
            let mut all = vips.of(&service.meta.key());
            all.retain(|ip| service.families.have(*ip));
            all
        }
    }
}

fn add_workloads(mesh: &mut Mesh, workloads: Vec<Arc<Workload>>, statuses: &mut Statuses) {
    for workload in workloads {
        let key = workload.meta.key();
        for address in &workload.addresses {
            if let Some(other) = mesh.by_ip.get(address) {
                let message = format!("{address} is already the address of Workload {other}");
                let condition = Condition::no("Accepted", "AddressConflict", message);
                statuses.replace(Kind::Workload, key.clone(), condition);
                continue;
            }
            mesh.by_ip.insert(*address, key.clone());
        }
        let ports = workload
            .ports
            .iter()
            .map(|port| (port.number, port.protocol))
            .collect();
        let entry = WorkloadEntry {
            workload,
            services: Vec::new(),
            ports,
        };
        mesh.workloads.insert(key, Arc::new(entry));
    }
}

fn add_service(
    mesh: &mut Mesh,
    mut entry: ServiceEntry,
    owners: &HashMap<IpAddr, Key>,
    statuses: &mut Statuses,
) {
    let key = entry.key();
    for vip in std::mem::take(&mut entry.vips) {
        let other = owners.get(&vip).filter(|owner| **owner != key);
        match other.or_else(|| mesh.by_vip.get(&vip)) {
            Some(other) => {
                let message = format!("{vip} is already the address of Service {other}");
                let condition = Condition::no("Accepted", "AddressConflict", message);
                statuses.replace(Kind::Service, key.clone(), condition);
            }
            None => {
                mesh.by_vip.insert(vip, key.clone());
                entry.vips.push(vip);
            }
        }
    }
    if !entry.service.left_out.is_empty() {
        let message = format!("not TCP, left out: {}", entry.service.left_out.join(", "));
        statuses.push(
            Kind::Service,
            key.clone(),
            Condition::no("AllPorts", "NotTcp", message),
        );
    }
    mesh.by_host.insert(entry.host.clone(), key.clone());
    mesh.services.insert(key, Arc::new(entry));
}

fn backend_policies(
    policies: &[Arc<BackendPolicy>],
    services: &BTreeMap<Key, Arc<Service>>,
    statuses: &mut Statuses,
) -> BTreeMap<Key, Arc<BackendPolicy>> {
    let mut sorted: Vec<_> = policies.iter().collect();
    sorted.sort_by(|a, b| a.meta.precedence().cmp(&b.meta.precedence()));
    let mut chosen: BTreeMap<Key, Arc<BackendPolicy>> = BTreeMap::new();
    for policy in sorted {
        let mut condition = Condition::accepted();
        for target in &policy.targets {
            let Target::Service { name, .. } = target else {
                continue;
            };
            let key = Key::new(&policy.meta.namespace, name);
            if !services.contains_key(&key) {
                let message = format!("there is no Service {key}");
                condition = Condition::no("Accepted", "TargetNotFound", message);
            }
            match chosen.get(&key) {
                Some(other) => {
                    let message =
                        format!("BackendPolicy {} holds for Service {key}", other.meta.key());
                    condition = Condition::no("Accepted", "Conflicted", message);
                }
                None => {
                    chosen.insert(key, policy.clone());
                }
            }
        }
        statuses.push(Kind::BackendPolicy, policy.meta.key(), condition);
    }
    chosen
}

fn add_mesh_policies(mesh: &mut Mesh, mut policies: Vec<Arc<MeshPolicy>>, statuses: &mut Statuses) {
    policies.sort_by(|a, b| a.meta.precedence().cmp(&b.meta.precedence()));
    for policy in policies {
        let namespace = &policy.meta.namespace;
        let mut condition = target_condition(mesh, namespace, &policy.targets);
        let mut conflict = |other: &Arc<MeshPolicy>| {
            let message = format!("MeshPolicy {} holds already", other.meta.key());
            condition = Condition::no("Accepted", "Conflicted", message);
        };
        if policy.targets.is_empty() {
            match mesh.policies.by_namespace.get(namespace) {
                Some(other) => conflict(other),
                None => {
                    mesh.policies
                        .by_namespace
                        .insert(namespace.clone(), policy.clone());
                }
            }
        }
        for target in &policy.targets {
            let Target::Workload(name) = target else {
                continue;
            };
            let key = Key::new(namespace, name);
            match mesh.policies.by_workload.get(&key) {
                Some(other) => conflict(other),
                None => {
                    mesh.policies.by_workload.insert(key, policy.clone());
                }
            }
        }
        statuses.push(Kind::MeshPolicy, policy.meta.key(), condition);
    }
}

fn target_condition(mesh: &Mesh, namespace: &str, targets: &[Target]) -> Condition {
    let missing = targets.iter().find_map(|target| match target {
        Target::Workload(name) => {
            let key = Key::new(namespace, name);
            (!mesh.workloads.contains_key(&key)).then(|| format!("there is no Workload {key}"))
        }
        Target::Service { name, port } => {
            let key = Key::new(namespace, name);
            match (mesh.services.get(&key), port) {
                (None, _) => Some(format!("there is no Service {key}")),
                (Some(service), Some(port)) => {
                    let known = service.ports.iter().any(|other| other.name == *port);
                    (!known).then(|| format!("Service {key} has no port named {port}"))
                }
                (Some(_), None) => None,
            }
        }
    });
    match missing {
        Some(message) => Condition::no("Accepted", "TargetNotFound", message),
        None => Condition::accepted(),
    }
}
