//! What a change of objects concerns: gathered while objects come and go, then worked off by the
//! builder.

use std::collections::{BTreeSet, HashSet};
use std::net::IpAddr;
use std::sync::Arc;

use super::index::{Facet, Index};
use super::join;
use super::objects::Objects;
use crate::model::manifest::object::{Key, Kind, ObjectId, Target};
use crate::model::manifest::read::Object;
use crate::model::manifest::route::Route;
use crate::model::manifest::workload::Workload;

/// Kinds of policies.
const POLICIES: [Kind; 3] = [
    Kind::AuthorizationPolicy,
    Kind::MeshPolicy,
    Kind::BackendPolicy,
];

/// Where the next mesh may differ from the last one. Listing too much costs only CPU.
#[derive(Debug, Default)]
pub struct Changed {
    pub services: BTreeSet<Key>,
    pub workloads: BTreeSet<Key>,
    /// Services whose routes send to what changed, or may newly send there.
    pub routed: BTreeSet<Key>,
    /// Workloads whose own MeshPolicy changed.
    pub governed: BTreeSet<Key>,
    /// Workloads whose authorisation changed.
    pub authorized: BTreeSet<Key>,
    /// The authorisation of every workload changed.
    pub all_authorized: bool,
    /// A policy changed that may concern anything.
    pub everything: bool,
    /// Objects whose conditions, or places, changed.
    pub statuses: BTreeSet<Arc<ObjectId>>,
}

/// What is to be made anew, and with it what changed.
#[derive(Debug, Default)]
pub struct Affected {
    pub changed: Changed,
    /// Addresses that workloads have, and that services claim, before or after.
    pub addresses: BTreeSet<IpAddr>,
    pub vips: BTreeSet<IpAddr>,
    /// Namespaces whose grants changed.
    pub grants: BTreeSet<String>,
    /// Where policies changed.
    pub policies: HashSet<Facet>,
}

impl Affected {
    /// An object comes or goes, if there is such.
    pub fn note(&mut self, objects: &Objects, id: &Arc<ObjectId>) {
        let Some((object, _)) = objects.get(id) else {
            return;
        };
        let index = objects.index();
        self.changed.statuses.insert(Arc::clone(id));
        let key = &id.key;
        match object {
            Object::Service(_) => {
                self.changed.services.insert(key.clone());
                self.vips.extend(objects.vips(key));
                self.around_service(index, key);
            }
            Object::Slice(it) => self.changed.services.extend(it.service.clone()),
            Object::Workload(it) => self.workload(objects, key, it),
            Object::Route(it) => self.route(index, it),
            Object::Grant(it) => drop(self.grants.insert(it.meta.namespace.clone())),
            Object::Authorization(it) => {
                self.policy(objects, Kind::AuthorizationPolicy, key, &it.targets);
            }
            Object::Mesh(it) => self.policy(objects, Kind::MeshPolicy, key, &it.targets),
            Object::Backend(it) => {
                self.policy(objects, Kind::BackendPolicy, key, &it.targets);
                for target in &it.targets {
                    if let Target::Service { name, .. } = target {
                        let key = Key::new(&key.namespace, name);
                        self.changed.services.insert(key);
                    }
                }
            }
        }
    }

    /// Grants of a namespace changed: routes of others that send there.
    pub fn granted(&mut self, objects: &Objects, namespace: &str) {
        for route in objects.index().find(&Facet::Crossing(namespace.to_owned())) {
            self.changed.statuses.insert(Arc::clone(route));
            self.parents(objects, route);
        }
    }

    /// Conditions of what refers to a service whose ports changed, or which is new or gone, and
    /// routes that send to it.
    pub fn referrers(&mut self, objects: &Objects, service: &Key) {
        let index = objects.index();
        self.around_service(index, service);
        for route in index.find(&Facet::Backend(service.clone())) {
            self.parents(objects, route);
        }
    }

    fn around_service(&mut self, index: &Index, key: &Key) {
        let policies = POLICIES.map(|kind| Facet::OfService(kind, key.clone()));
        let others = [
            Facet::Parent(key.clone()),
            Facet::Backend(key.clone()),
            Facet::SliceOf(key.clone()),
        ];
        for facet in policies.iter().chain(&others) {
            self.changed.statuses.extend(index.find(facet).cloned());
        }
    }

    fn workload(&mut self, objects: &Objects, key: &Key, it: &Workload) {
        let index = objects.index();
        self.changed.workloads.insert(key.clone());
        if !it.host_network {
            self.addresses.extend(&it.addresses);
        }
        let served = objects.services_at(&it.addresses);
        self.changed.services.extend(served.into_iter().cloned());
        for service in index.selecting(&it.meta) {
            if let Some(Object::Service(selecting)) = objects.object(Kind::Service, service)
                && join::selects(selecting, it)
            {
                self.changed.services.insert(service.clone());
            }
        }
        for kind in POLICIES {
            let by_name = Facet::OfWorkload(kind, key.clone());
            self.changed.statuses.extend(index.find(&by_name).cloned());
            let by_labels = Facet::Selecting(kind, key.namespace.clone());
            let mut by_labels = index.find(&by_labels).peekable();
            // Which of them hold for it follows from its labels.
            if by_labels.peek().is_some() {
                self.changed.statuses.extend(by_labels.cloned());
                self.policies.insert(by_name);
            }
        }
    }

    fn route(&mut self, index: &Index, route: &Route) {
        for parent in route.parents.iter().filter(|parent| parent.service) {
            let key = Key::new(&parent.namespace, &parent.name);
            let others = index.find(&Facet::Parent(key.clone())).cloned();
            self.changed.statuses.extend(others);
            self.changed.services.insert(key);
        }
    }

    /// The services that a route is attached to.
    fn parents(&mut self, objects: &Objects, route: &ObjectId) {
        if let Some((Object::Route(route), _)) = objects.get(route) {
            let parents = route.parents.iter().filter(|parent| parent.service);
            let keys = parents.map(|parent| Key::new(&parent.namespace, &parent.name));
            self.changed.routed.extend(keys);
        }
    }

    fn policy(&mut self, objects: &Objects, kind: Kind, key: &Key, targets: &[Target]) {
        let (index, namespace) = (objects.index(), &key.namespace);
        for facet in Facet::of_policy(kind, namespace, targets) {
            self.changed.statuses.extend(index.find(&facet).cloned());
            if matches!(facet, Facet::OfWorkload(..)) {
                // Those that have it by labels.
                let others = Facet::Selecting(kind, namespace.clone());
                self.changed.statuses.extend(index.find(&others).cloned());
            }
            self.policies.insert(facet);
        }
        for target in targets {
            let Target::Labels(labels) = target else {
                continue;
            };
            for workload in objects.with_labels(namespace, labels) {
                let facet = Facet::OfWorkload(kind, workload.clone());
                self.changed.statuses.extend(index.find(&facet).cloned());
                self.policies.insert(facet);
            }
        }
    }

    /// The policies that hold somewhere changed. `root`: the root namespace.
    pub fn policies_changed(&mut self, objects: &Objects, facet: &Facet, root: &str) {
        let changed = &mut self.changed;
        match facet {
            // Rare, and it may concern anything there.
            Facet::OfNamespace(Kind::MeshPolicy, _) => changed.everything = true,
            Facet::OfWorkload(Kind::MeshPolicy, key) => drop(changed.governed.insert(key.clone())),
            Facet::OfNamespace(_, name) if name == root => changed.all_authorized = true,
            Facet::OfNamespace(_, name) => {
                changed.authorized.extend(objects.workloads(name).cloned());
            }
            Facet::OfWorkload(_, key) => drop(changed.authorized.insert(key.clone())),
            _ => {}
        }
    }
}
