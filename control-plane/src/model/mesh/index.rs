//! Which objects refer to what: how the writer gets from a change to all that it concerns, without
//! looking at the rest of the mesh.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use crate::model::manifest::endpoint_slice::EndpointSlice;
use crate::model::manifest::object::{Key, Kind, Meta, ObjectId, Target};
use crate::model::manifest::read::Object;
use crate::model::manifest::route::{Route, Rule};
use crate::model::manifest::service::Service;

/// What an object can be found by.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Facet {
    /// Workloads that have an address.
    Address(IpAddr),
    /// Workloads that have a hostname in a headless service.
    Hostname(Key, String),
    /// Services that claim an address.
    Vip(IpAddr),
    /// EndpointSlices of a service.
    SliceOf(Key),
    /// EndpointSlices with an endpoint at an address.
    Endpoint(IpAddr),
    /// Routes attached to a service.
    Parent(Key),
    /// Routes that send to a service.
    Backend(Key),
    /// Routes of other namespaces that send to one.
    Crossing(String),
    /// Policies that trust the certificates of a ConfigMap.
    CaOf(Key),
    /// ReferenceGrants of a namespace.
    Grant(String),
    /// Policies of a kind whose target is a service.
    OfService(Kind, Key),
    /// Policies of a kind whose target is a workload, by its name.
    OfWorkload(Kind, Key),
    /// Policies of a kind whose targets are workloads of a namespace by labels.
    Selecting(Kind, String),
    /// Policies of a kind that hold for a namespace.
    OfNamespace(Kind, String),
}

impl Facet {
    /// Where a policy of a kind in a namespace holds.
    pub fn of_policy(kind: Kind, namespace: &str, targets: &[Target]) -> Vec<Self> {
        if targets.is_empty() {
            return vec![Facet::OfNamespace(kind, namespace.to_owned())];
        }
        let of = |target: &Target| match target {
            Target::Service { name, .. } => Facet::OfService(kind, Key::new(namespace, name)),
            Target::Workload(name) => Facet::OfWorkload(kind, Key::new(namespace, name)),
            Target::Labels(_) => Facet::Selecting(kind, namespace.to_owned()),
        };
        targets.iter().map(of).collect()
    }
}

/// A label of a workload, or of a service's selector, in a namespace.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Label {
    namespace: String,
    name: String,
    value: String,
}

/// See the module. Ids are shared with the objects they stand for.
#[derive(Debug, Default)]
pub struct Index {
    by_facet: HashMap<Facet, BTreeSet<Arc<ObjectId>>>,
    labelled: HashMap<Label, BTreeSet<Key>>,
    /// Services by one label of their selector: the one that fewest had when the service came.
    selecting: HashMap<Label, BTreeSet<Key>>,
    chosen: HashMap<Key, Label>,
}

impl Index {
    /// Takes in an object; `vips` are the addresses it claims as a service.
    pub fn add(&mut self, id: &Arc<ObjectId>, object: &Object, vips: &[IpAddr]) {
        for facet in facets(object, vips) {
            let ids = self.by_facet.entry(facet).or_default();
            ids.insert(Arc::clone(id));
        }
        match object {
            Object::Workload(workload) => {
                for label in labels(&workload.meta) {
                    let keys = self.labelled.entry(label).or_default();
                    keys.insert(id.key.clone());
                }
            }
            Object::Service(service) => {
                let count = |label: &Label| self.selecting.get(label).map_or(0, BTreeSet::len);
                if let Some(label) = selector(service).min_by_key(count) {
                    let keys = self.selecting.entry(label.clone()).or_default();
                    keys.insert(id.key.clone());
                    self.chosen.insert(id.key.clone(), label);
                }
            }
            _ => {}
        }
    }

    /// Lets go of an object that was taken in so.
    pub fn remove(&mut self, id: &ObjectId, object: &Object, vips: &[IpAddr]) {
        for facet in facets(object, vips) {
            take(&mut self.by_facet, &facet, id);
        }
        match object {
            Object::Workload(workload) => {
                for label in labels(&workload.meta) {
                    take(&mut self.labelled, &label, &id.key);
                }
            }
            Object::Service(_) => {
                if let Some(label) = self.chosen.remove(&id.key) {
                    take(&mut self.selecting, &label, &id.key);
                }
            }
            _ => {}
        }
    }

    pub fn find<'a>(&'a self, facet: &Facet) -> impl Iterator<Item = &'a Arc<ObjectId>> + use<'a> {
        self.by_facet.get(facet).into_iter().flatten()
    }

    /// Services that may select a workload: all that do, and some more.
    pub fn selecting(&self, workload: &Meta) -> BTreeSet<&Key> {
        let keys = |label: Label| self.selecting.get(&label);
        labels(workload).filter_map(keys).flatten().collect()
    }

    /// Workloads that a service selects, in order.
    pub fn members(&self, service: &Service) -> Vec<Key> {
        let all = self.with_labels(&service.meta.namespace, &service.selector);
        all.cloned().collect()
    }

    /// Workloads of a namespace that have all of these labels, in order; none without labels.
    pub fn with_labels<'a>(
        &'a self,
        namespace: &str,
        labels: &BTreeMap<String, String>,
    ) -> impl Iterator<Item = &'a Key> + use<'a> {
        let sets = labels.iter().map(|(name, value)| {
            self.labelled.get(&Label {
                namespace: namespace.to_owned(),
                name: name.clone(),
                value: value.clone(),
            })
        });
        let sets: Option<Vec<&BTreeSet<Key>>> = sets.collect();
        let mut sets = sets.unwrap_or_default();
        sets.sort_by_key(|set| std::cmp::Reverse(set.len()));
        let fewest = sets.pop().into_iter().flatten();
        fewest.filter(move |key| sets.iter().all(|set| set.contains(*key)))
    }
}

/// Empty sets are not kept.
fn take<F, T, Q>(map: &mut HashMap<F, BTreeSet<T>>, facet: &F, one: &Q)
where
    F: std::hash::Hash + Eq,
    T: Ord + std::borrow::Borrow<Q>,
    Q: Ord + ?Sized,
{
    if let Some(all) = map.get_mut(facet) {
        all.remove(one);
        if all.is_empty() {
            map.remove(facet);
        }
    }
}

fn labels(meta: &Meta) -> impl Iterator<Item = Label> {
    meta.labels.iter().map(|(name, value)| Label {
        namespace: meta.namespace.clone(),
        name: name.clone(),
        value: value.clone(),
    })
}

fn selector(service: &Service) -> impl Iterator<Item = Label> {
    service.selector.iter().map(|(name, value)| Label {
        namespace: service.meta.namespace.clone(),
        name: name.clone(),
        value: value.clone(),
    })
}

fn facets(object: &Object, vips: &[IpAddr]) -> Vec<Facet> {
    match object {
        Object::Service(_) => vips.iter().copied().map(Facet::Vip).collect(),
        Object::Slice(it) => slice(it),
        Object::Workload(it) => {
            let own = it.addresses.iter().filter(|_| !it.host_network);
            let addresses = own.copied();
            let hostname = it.hostname_in_service();
            let hostname = hostname.map(|(service, name)| Facet::Hostname(service, name));
            addresses.map(Facet::Address).chain(hostname).collect()
        }
        Object::Route(it) => route(it),
        Object::Grant(it) => vec![Facet::Grant(it.meta.namespace.clone())],
        Object::BackendTls(it) => {
            let namespace = &it.meta.namespace;
            let mut all = Facet::of_policy(Kind::BackendTlsPolicy, namespace, &it.targets);
            let maps = it.config_maps();
            all.extend(maps.map(|name| Facet::CaOf(Key::new(namespace, name))));
            all
        }
        Object::ConfigMap(_) => Vec::new(),
        Object::Authorization(it) => {
            Facet::of_policy(Kind::AuthorizationPolicy, &it.meta.namespace, &it.targets)
        }
        Object::Mesh(it) => Facet::of_policy(Kind::MeshPolicy, &it.meta.namespace, &it.targets),
        Object::Backend(it) => {
            Facet::of_policy(Kind::BackendPolicy, &it.meta.namespace, &it.targets)
        }
    }
}

fn slice(slice: &EndpointSlice) -> Vec<Facet> {
    let Some(service) = &slice.service else {
        return Vec::new();
    };
    let addresses = slice.endpoints.iter().map(|it| Facet::Endpoint(it.address));
    addresses.chain([Facet::SliceOf(service.clone())]).collect()
}

fn route(route: &Route) -> Vec<Facet> {
    let parents = route.parents.iter().filter(|parent| parent.service);
    let mut all: Vec<_> = parents
        .map(|parent| Facet::Parent(Key::new(&parent.namespace, &parent.name)))
        .collect();
    for to in route.rules.iter().flat_map(Rule::destinations) {
        all.push(Facet::Backend(Key::new(&to.namespace, &to.name)));
        if to.namespace != route.meta.namespace {
            all.push(Facet::Crossing(to.namespace.clone()));
        }
    }
    all
}
