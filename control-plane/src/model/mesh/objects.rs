//! All declared objects, with the index over them.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use super::change::Origin;
use super::index::{Facet, Index};
use super::join;
use crate::model::manifest::object::{Key, Kind, ObjectId, Target};
use crate::model::manifest::read::Object;
use crate::model::manifest::workload::Workload;

/// See the module.
#[derive(Debug, Default)]
pub struct Objects {
    by_id: BTreeMap<Arc<ObjectId>, (Object, Origin)>,
    index: Index,
    /// Addresses that services claim.
    vips: HashMap<Key, Vec<IpAddr>>,
}

impl Objects {
    pub fn index(&self) -> &Index {
        &self.index
    }

    pub fn get(&self, id: &ObjectId) -> Option<&(Object, Origin)> {
        self.by_id.get(id)
    }

    pub fn object(&self, kind: Kind, key: &Key) -> Option<&Object> {
        let key = key.clone();
        self.get(&ObjectId { kind, key }).map(|(object, _)| object)
    }

    /// Addresses that a service claims.
    pub fn vips(&self, service: &Key) -> &[IpAddr] {
        self.vips.get(service).map_or(&[], Vec::as_slice)
    }

    /// Takes in an object of which there is none yet; `vips`: the addresses it claims as a service.
    pub fn insert(
        &mut self,
        id: &Arc<ObjectId>,
        object: Object,
        origin: Origin,
        vips: Vec<IpAddr>,
    ) {
        self.index.add(id, &object, &vips);
        if id.kind == Kind::Service {
            self.vips.insert(id.key.clone(), vips);
        }
        self.by_id.insert(Arc::clone(id), (object, origin));
    }

    pub fn remove(&mut self, id: &ObjectId) {
        if let Some((object, _)) = self.by_id.remove(id) {
            let vips = match id.kind {
                Kind::Service => self.vips.remove(&id.key).unwrap_or_default(),
                _ => Vec::new(),
            };
            self.index.remove(id, &object, &vips);
        }
    }

    /// An object stands elsewhere now.
    pub fn moved(&mut self, id: &ObjectId, to: Origin) {
        if let Some((_, origin)) = self.by_id.get_mut(id) {
            *origin = to;
        }
    }

    /// Workloads of a namespace.
    pub fn workloads<'a>(&'a self, namespace: &'a str) -> impl Iterator<Item = &'a Key> {
        let first = ObjectId {
            kind: Kind::Workload,
            key: Key::new(namespace, ""),
        };
        let all = self.by_id.range(first..).map(|(id, _)| id);
        all.take_while(move |id| id.kind == Kind::Workload && id.key.namespace == namespace)
            .map(|id| &id.key)
    }

    /// Workloads of a namespace that have all of these labels, in order; without labels, all.
    pub fn with_labels<'a>(
        &'a self,
        namespace: &'a str,
        labels: &BTreeMap<String, String>,
    ) -> impl Iterator<Item = &'a Key> + use<'a> {
        let all = labels.is_empty().then(|| self.workloads(namespace));
        let some = self.index.with_labels(namespace, labels);
        all.into_iter().flatten().chain(some)
    }

    /// Policies of a kind that select a workload by its labels.
    pub fn selecting<'a>(
        &'a self,
        kind: Kind,
        workload: &'a Workload,
    ) -> impl Iterator<Item = &'a Arc<ObjectId>> {
        let all = Facet::Selecting(kind, workload.meta.namespace.clone());
        let all = self.index.find(&all);
        all.filter(move |id| {
            self.get(id)
                .is_some_and(|(object, _)| selects(object, workload))
        })
    }

    /// Policies of a kind for a workload, by its name or its labels, by precedence. `None`: there are
    /// none.
    pub fn policies_of<T>(
        &self,
        kind: Kind,
        workload: &Key,
        of: impl Fn(&Object) -> Option<T>,
    ) -> Option<Vec<T>> {
        let by_name = Facet::OfWorkload(kind, workload.clone());
        let by_name = self.index.find(&by_name).filter_map(|id| self.get(id));
        let own = match self.object(Kind::Workload, workload) {
            Some(Object::Workload(own)) => Some(own),
            _ => None,
        };
        let by_labels = own.into_iter().flat_map(|own| self.selecting(kind, own));
        let by_labels = by_labels.filter_map(|id| self.get(id));
        let found = by_name.chain(by_labels).map(|(object, _)| object);
        by_precedence(found.collect(), of)
    }

    /// Ids of a kind.
    pub fn of_kind(&self, kind: Kind) -> impl Iterator<Item = &Arc<ObjectId>> {
        let first = ObjectId {
            kind,
            key: Key::new("", ""),
        };
        let all = self.by_id.range(first..).map(|(id, _)| id);
        all.take_while(move |id| id.kind == kind)
    }

    /// Services with an EndpointSlice that has one of these addresses.
    pub fn services_at(&self, addresses: &[IpAddr]) -> BTreeSet<&Key> {
        let slices = addresses
            .iter()
            .flat_map(|ip| self.index.find(&Facet::Endpoint(*ip)));
        let service = |id: &Arc<ObjectId>| match self.get(id) {
            Some((Object::Slice(slice), _)) => slice.service.as_ref(),
            _ => None,
        };
        slices.filter_map(service).collect()
    }

    /// Objects under a facet, by precedence. `None`: there are none.
    pub fn all<T>(&self, facet: &Facet, of: impl Fn(&Object) -> Option<T>) -> Option<Vec<T>> {
        let found = self.index.find(facet).filter_map(|id| self.get(id));
        by_precedence(found.map(|(object, _)| object).collect(), of)
    }

    /// Of the objects that a facet finds, the one that counts.
    pub fn winner<T>(&self, facet: &Facet, of: impl Fn(&Object) -> Option<T>) -> Option<T> {
        self.all(facet, of)?.into_iter().next()
    }
}

/// Whether one of a policy's targets is workloads with labels that this one has.
fn selects(policy: &Object, workload: &Workload) -> bool {
    targets(policy).iter().any(|target| match target {
        Target::Labels(labels) => join::has_labels(workload, labels),
        Target::Workload(_) | Target::Service { .. } => false,
    })
}

/// Of a policy; others have none.
fn targets(policy: &Object) -> &[Target] {
    match policy {
        Object::Authorization(it) => &it.targets,
        Object::Mesh(it) => &it.targets,
        Object::Backend(it) => &it.targets,
        Object::BackendTls(it) => &it.targets,
        Object::Service(_)
        | Object::Slice(_)
        | Object::Workload(_)
        | Object::Route(_)
        | Object::Grant(_)
        | Object::ConfigMap(_) => &[],
    }
}

fn by_precedence<T>(mut found: Vec<&Object>, of: impl Fn(&Object) -> Option<T>) -> Option<Vec<T>> {
    found.sort_by(|a, b| a.meta().precedence().cmp(&b.meta().precedence()));
    let found: Vec<_> = found.into_iter().filter_map(of).collect();
    (!found.is_empty()).then_some(found)
}
