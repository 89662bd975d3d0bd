//! The next state of the mesh from the last one and a delta. One writer.
//!
//! Objects come and go ([`Builder::apply`]), which gathers what that concerns; then only that is made
//! anew, in the order in which one thing follows from another: addresses, policies, services,
//! workloads, conditions. What is made anew is the same function of the objects as in a first state.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use super::affected::{Affected, Changed};
use super::attach;
use super::backend_tls;
use super::backend_tls_status;
use super::change::{ObjectDelta, Origin};
use super::conditions::ConditionContext;
use super::cover;
use super::endpoints::{EndpointsBy, Slices};
use super::holders::Holders;
use super::hostnames;
use super::index::Facet;
use super::join;
use super::leaving::Leaving;
use super::objects::Objects;
use super::policies;
use super::ports;
use super::route_status;
use super::status::ObjectStatus;
use super::vip::{VipError, Vips};
use super::{Mesh, MeshOptions, ServiceEntry, WorkloadEntry};
use crate::incumbents::{Incumbents, IncumbentsError};
use crate::model::manifest::object::{Key, Kind, ObjectId};
use crate::model::manifest::read::Object;
use crate::model::manifest::service::Service;

/// Holds the objects and builds states of them.
#[derive(Debug)]
pub struct Builder {
    vips: Vips,
    holders: Holders,
    objects: Objects,
    leaving: Leaving,
    mesh: Arc<Mesh>,
}

impl Builder {
    pub fn new(options: MeshOptions, vips: Vips) -> Self {
        Builder {
            vips,
            holders: Holders::default(),
            objects: Objects::default(),
            leaving: Leaving::default(),
            mesh: Arc::new(Mesh {
                options: Arc::new(options),
                ..Mesh::default()
            }),
        }
    }

    /// Takes over from an earlier run which object has an address that several claim.
    pub fn remember(mut self, incumbents: Incumbents) -> Self {
        self.holders = Holders::new(incumbents);
        self
    }

    /// The last state.
    pub fn mesh(&self) -> &Arc<Mesh> {
        &self.mesh
    }

    /// Takes the differences of a source. Gives the new state and where it may differ from the
    /// last.
    pub fn apply(&mut self, delta: ObjectDelta) -> (Arc<Mesh>, Changed) {
        let mut affected = Affected::default();
        for id in delta.removed {
            if id.kind == Kind::Service {
                self.vips.release(&id.key);
            }
            self.replace(&Arc::new(id), None, &mut affected);
        }
        // First all that keep their addresses, then those that get one.
        for (object, _) in &delta.set {
            if let Object::Service(service) = object {
                self.vips.keep(&service.meta.key());
            }
        }
        for (object, origin) in delta.set {
            let id = Arc::new(object.id());
            self.replace(&id, Some((object, origin)), &mut affected);
        }
        self.advance(affected)
    }

    /// Removes what was kept of earlier states and is old enough. `None` when that changes nothing.
    pub fn settle(&mut self) -> Option<(Arc<Mesh>, Changed)> {
        let forgotten = self.leaving.age();
        if forgotten.is_empty() {
            return None;
        }
        let mut affected = Affected::default();
        affected.changed.services.extend(forgotten);
        Some(self.advance(affected))
    }

    /// Keeps newly allotted addresses over a restart.
    ///
    /// # Errors
    /// See [`Vips::save`].
    pub fn save(&mut self) -> Result<(), VipError> {
        self.vips.save()
    }

    /// Writes which object has an address that several claim, for the next start.
    ///
    /// # Errors
    /// See [`Holders::save`].
    pub fn save_holders(&mut self) -> Result<(), IncumbentsError> {
        self.holders.save()
    }

    /// Puts an object in the place of the one with its id, or removes that.
    fn replace(
        &mut self,
        id: &Arc<ObjectId>,
        next: Option<(Object, Origin)>,
        affected: &mut Affected,
    ) {
        if let (Some((before, _)), Some((after, origin))) = (self.objects.get(id), &next)
            && before == after
        {
            affected.changed.statuses.insert(Arc::clone(id));
            self.objects.moved(id, origin.clone());
            return;
        }
        affected.note(&self.objects, id);
        self.objects.remove(id);
        if let Some((object, origin)) = next {
            let vips = match &object {
                Object::Service(service) => addresses(service, &mut self.vips),
                _ => Vec::new(),
            };
            self.objects.insert(id, object, origin, vips);
            affected.note(&self.objects, id);
        }
    }

    /// Rebuilds the entries that are affected.
    fn advance(&mut self, mut affected: Affected) -> (Arc<Mesh>, Changed) {
        let mut next = Mesh::clone(&self.mesh);
        self.holders.place(&self.objects, &mut next, &mut affected);
        self.place_policies(&mut next, &mut affected);
        self.take_workloads(&mut next, &affected.changed.workloads);
        let workloads = &affected.changed.workloads;
        hostnames::place(self.objects.index(), (&self.mesh, &mut next), workloads);
        for key in affected.changed.services.clone() {
            self.make_service(&mut next, &key, &mut affected);
        }
        for key in affected.changed.workloads.clone() {
            self.make_workload(&mut next, &key);
            let kind = Kind::Workload;
            let id = Arc::new(ObjectId { kind, key });
            affected.changed.statuses.insert(id);
        }
        for facet in &affected.policies {
            if let Facet::OfService(Kind::AuthorizationPolicy, key) = facet {
                let both = [&*self.mesh, &next].map(|mesh| mesh.service(key));
                for entry in both.into_iter().flatten() {
                    let covered = cover::covered(&self.objects, entry);
                    affected.changed.authorized.extend(covered);
                }
            }
        }
        affected.mtls_changed(&self.objects, &next);
        let mut changed = affected.changed;
        changed.statuses.retain(|id| {
            let status = self.status(&next, id);
            next.statuses.replace(ObjectId::clone(id), status)
        });
        self.mesh = Arc::new(next);
        (Arc::clone(&self.mesh), changed)
    }

    fn place_policies(&self, next: &mut Mesh, affected: &mut Affected) {
        for namespace in std::mem::take(&mut affected.grants) {
            let facet = Facet::Grant(namespace.clone());
            let grants = self.objects.all(&facet, |object| match object {
                Object::Grant(it) => Some(Arc::clone(it)),
                _ => None,
            });
            if next.grants.replace(namespace.clone(), grants) {
                affected.granted(&self.objects, &namespace);
            }
        }
        let options = Arc::clone(&next.options);
        for facet in affected.policies.clone() {
            if policies::place(&self.objects, next, &facet) {
                affected.policies_changed(&self.objects, &facet, &options.root_namespace);
            } else {
                affected.policies.remove(&facet);
            }
        }
    }

    /// Changed workloads with their earlier declarations: services compare the two.
    fn take_workloads(&self, next: &mut Mesh, keys: &BTreeSet<Key>) {
        for key in keys {
            let Some(Object::Workload(workload)) = self.objects.object(Kind::Workload, key) else {
                next.workloads.remove(key);
                continue;
            };
            let before = self.mesh.workloads.get(key);
            if before.is_none_or(|before| before.workload != *workload) {
                let entry = WorkloadEntry {
                    workload: Arc::clone(workload),
                    services: before.map_or_else(Vec::new, |before| before.services.clone()),
                    covered_by: before.map_or_else(Vec::new, |before| before.covered_by.clone()),
                    ports: before.map_or_else(BTreeMap::new, |before| before.ports.clone()),
                };
                next.workloads.insert(key.clone(), Arc::new(entry));
            }
        }
    }

    fn make_service(&mut self, next: &mut Mesh, key: &Key, affected: &mut Affected) {
        let before = self.mesh.service(key).cloned();
        let after = self.service_entry(next, key, before.as_deref());
        let id = ObjectId {
            kind: Kind::Service,
            key: key.clone(),
        };
        affected.changed.statuses.insert(Arc::new(id));
        affected.tls_policies(&self.objects, key);
        if before.as_deref() == after.as_ref() {
            return;
        }
        let (old, found) = (before.as_deref(), after.as_ref());
        let concerned = cover::concerned(&self.objects, (&self.mesh, old), (next, found));
        affected.changed.workloads.extend(concerned);
        let alike = old
            .zip(found)
            .is_some_and(|(old, it)| old.has_same_ports(it));
        if !alike {
            affected.referrers(&self.objects, key);
        }
        let host = self.host(key);
        if after.is_none() {
            self.leaving.forget(key);
        }
        let namespace = &key.namespace;
        let count = next.namespaces.get(namespace).copied().unwrap_or(0);
        let count = count + usize::from(after.is_some()) - usize::from(before.is_some());
        let there = (count > 0).then_some(count);
        next.namespaces.set(namespace.clone(), there);
        next.by_host.set(host, after.is_some().then(|| key.clone()));
        next.services.set(key.clone(), after.map(Arc::new));
    }

    fn service_entry(
        &mut self,
        next: &Mesh,
        key: &Key,
        before: Option<&ServiceEntry>,
    ) -> Option<ServiceEntry> {
        let service = match self.objects.object(Kind::Service, key) {
            Some(Object::Service(service)) => Arc::clone(service),
            _ => return None,
        };
        let routes = self
            .objects
            .all(&Facet::Parent(key.clone()), |object| match object {
                Object::Route(it) => Some(Arc::clone(it)),
                _ => None,
            });
        let policy = Facet::OfService(Kind::BackendPolicy, key.clone());
        let policy = self.objects.winner(&policy, |object| match object {
            Object::Backend(it) => Some(Arc::clone(it)),
            _ => None,
        });
        let (slices, members) = self.members(next, &service);
        let claimed = self.objects.vips(key).iter().copied();
        let mut entry = ServiceEntry {
            host: self.host(key),
            vips: claimed
                .filter(|ip| next.by_vip.get(ip) == Some(key))
                .collect(),
            ports: attach::ports(&service, &routes.unwrap_or_default()),
            by_source: next.by_source(&members),
            members,
            slices,
            leaving: BTreeSet::new(),
            policy,
            service,
        };
        backend_tls::place(&self.objects, key, &mut entry.ports);
        let showed = before.map(|before| self.mesh.identities(before));
        let shows = next.identities(&entry);
        entry.leaving = self.leaving.note(key, &showed.unwrap_or_default(), &shows);
        Some(entry)
    }

    /// A service's endpoints come from its slices or from its selector, never from both.
    fn members(&self, next: &Mesh, service: &Service) -> (Option<Slices>, Vec<Key>) {
        let of = Facet::SliceOf(service.meta.key());
        let slices = self.objects.all(&of, |object| match object {
            Object::Slice(it) => Some(Arc::clone(it)),
            _ => None,
        });
        let slices = slices.unwrap_or_default();
        let by_selector = self.mesh.options.endpoints == EndpointsBy::SlicesOrSelector;
        if by_selector && slices.is_empty() && !service.selector.is_empty() {
            return (None, self.objects.index().members(service));
        }
        let (slices, members) = Slices::new(slices, service.headless, next);
        (Some(slices), members)
    }

    fn make_workload(&self, next: &mut Mesh, key: &Key) {
        let Some(Object::Workload(workload)) = self.objects.object(Kind::Workload, key) else {
            return;
        };
        let mut services = self.objects.index().selecting(&workload.meta);
        services.extend(self.objects.services_at(&workload.addresses));
        let services = services.into_iter().filter_map(|key| next.service(key));
        let (mut serving, mut covering) = (Vec::new(), Vec::new());
        for entry in services {
            let is_member = entry.has_member(key);
            // What another namespace says of its ports does not count.
            let own = entry.service.meta.namespace == key.namespace;
            if is_member {
                serving.push(entry.key());
            }
            if own && (is_member || join::selects(&entry.service, workload)) {
                covering.push(&**entry);
            }
        }
        let entry = WorkloadEntry {
            workload: Arc::clone(workload),
            services: serving,
            covered_by: covering.iter().map(|entry| entry.key()).collect(),
            ports: ports::declared(workload, covering.into_iter()),
        };
        if next
            .workloads
            .get(key)
            .is_none_or(|before| **before != entry)
        {
            next.workloads.insert(key.clone(), Arc::new(entry));
        }
    }

    fn status(&self, next: &Mesh, id: &ObjectId) -> Option<Arc<ObjectStatus>> {
        let (object, origin) = self.objects.get(id)?;
        let (conditions, parents) = match object {
            Object::Route(route) => {
                let of_route = route_status::conditions(next, route, origin);
                (of_route.sum, of_route.parents)
            }
            Object::BackendTls(policy) => {
                backend_tls_status::conditions(next, &self.objects, policy, origin)
            }
            _ => {
                let context = ConditionContext {
                    mesh: next,
                    objects: &self.objects,
                };
                (context.conditions(object), Vec::new())
            }
        };
        let status = ObjectStatus {
            id: id.clone(),
            origin: origin.clone(),
            conditions,
            parents,
        };
        Some(Arc::new(status))
    }

    fn host(&self, key: &Key) -> String {
        let domain = &self.mesh.options.cluster_domain;
        format!("{}.{}.svc.{domain}", key.name, key.namespace)
    }
}

/// Addresses that a service claims: those written, or allotted ones. None when headless.
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
