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
            // Which of them hold for it follows from its labels; the others are not concerned.
            let mut by_labels = objects.selecting(kind, it).peekable();
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::mesh::MeshOptions;
    use crate::model::mesh::builder::Builder;
    use crate::model::mesh::change::{ObjectDelta, Origin};
    use crate::model::mesh::vip::Vips;
    use crate::source::kubernetes::{decode::Manifest, lenient};

    fn object(kind: Kind, manifest: serde_json::Value) -> Object {
        let manifest: Manifest = serde_json::from_value(manifest).unwrap();
        lenient::read(kind, manifest.node).0.unwrap()
    }

    fn workload(name: &str, labels: &serde_json::Value, host: u8) -> Object {
        let manifest = serde_json::json!({
            "metadata": {"name": name, "namespace": "shop", "labels": labels},
            "spec": {"addresses": [format!("10.0.0.{host}")]},
        });
        object(Kind::Workload, manifest)
    }

    fn policy(kind: Kind, name: &str, spec: serde_json::Value) -> Object {
        let manifest = serde_json::json!({
            "metadata": {"name": name, "namespace": "shop"}, "spec": spec,
        });
        object(kind, manifest)
    }

    fn by_label(app: &str) -> serde_json::Value {
        serde_json::json!({"selector": {"matchLabels": {"app": app}}, "rules": []})
    }

    /// A namespace may have many policies and many pods that come and go.
    #[test]
    fn a_workload_concerns_only_the_policies_that_select_it() {
        let mut objects = Objects::default();
        let web = workload("web-0", &serde_json::json!({"app": "web"}), 1);
        let mut all = vec![web.clone()];
        let apps = ["web", "db", "cart"];
        all.extend(apps.map(|app| policy(Kind::AuthorizationPolicy, app, by_label(app))));
        for object in all {
            let id = Arc::new(object.id());
            objects.insert(&id, object, Origin::cluster("test"), Vec::new());
        }
        let mut affected = Affected::default();
        affected.note(&objects, &Arc::new(web.id()));
        let named: Vec<String> = affected
            .changed
            .statuses
            .iter()
            .map(|id| id.to_string())
            .collect();
        assert_eq!(
            named,
            ["Workload shop/web-0", "AuthorizationPolicy shop/web"]
        );
        assert_eq!(affected.policies.len(), 1);
    }

    /// One that is for all workloads of its namespace is for those that come later, too.
    #[test]
    fn a_policy_whose_target_cannot_be_read_holds_for_each_workload_of_its_namespace() {
        let mut builder = Builder::new(MeshOptions::default(), Vips::new());
        let mut apply = |objects: Vec<Object>| {
            let set = objects.into_iter().map(|it| (it, Origin::cluster("test")));
            let delta = ObjectDelta {
                set: set.collect(),
                removed: Vec::new(),
            };
            builder.apply(delta).0
        };
        let labels = serde_json::json!({});
        apply(vec![workload("a", &labels, 1)]);
        let unreadable = serde_json::json!({
            "action": "Deny", "targetRefs": [{"kind": "Pod", "name": "x"}], "rules": [{}],
        });
        let holds = |mesh: &crate::model::Mesh, name: &str| {
            let entry = mesh.workload("shop", name).unwrap();
            mesh.authorization_for(entry, Some(80)).len()
        };
        let mesh = apply(vec![policy(Kind::AuthorizationPolicy, "odd", unreadable)]);
        assert_eq!(holds(&mesh, "a"), 1);
        let mesh = apply(vec![workload("b", &labels, 2)]);
        assert_eq!((holds(&mesh, "a"), holds(&mesh, "b")), (1, 1));
    }
}
