//! Whatever objects come, change and go, in whatever order: the mesh, its resources and what a change
//! touches are as if all were built from scratch, and as a naive reading of the objects has it.

#![allow(clippy::unwrap_used)] // tests: a failed unwrap is a failed test

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;

use anyam_control::ads::resources::{Scope, View};
use anyam_control::model::mesh::ServiceEntry;
use anyam_control::model::mesh::affected::Changed;
use anyam_control::model::mesh::builder::Builder;
use anyam_control::model::mesh::change::{ObjectDelta, Origin};
use anyam_control::model::mesh::vip::Vips;
use anyam_control::model::{Key, Mesh, MeshOptions, Object, ObjectId};
use anyam_control::source::{Observed, yaml};
use anyam_control::translate::Translator;
use anyam_control::translate::touched::touched;
use anyam_control::translate::view::State;
use proptest::prelude::*;
use prost::Message;
use xds_proto::envoy::config::core::v3::address::Address;
use xds_proto::envoy::config::core::v3::socket_address::PortSpecifier;
use xds_proto::envoy::config::endpoint::v3::ClusterLoadAssignment;
use xds_proto::envoy::config::endpoint::v3::lb_endpoint::HostIdentifier;
use xds_proto::type_url;

mod manifests;
mod oracle;
use manifests::{Slot, object, slot};

const KINDS: [&str; 6] = [
    type_url::LISTENER,
    type_url::ROUTE,
    type_url::CLUSTER,
    type_url::ENDPOINT,
    type_url::WORKLOAD,
    type_url::NAME,
];

/// The root namespace.
const ROOT: &str = "mesh";

type Declared = BTreeMap<Slot, (Object, Origin)>;

/// With ranges, in which the addresses of one namespace's Workloads are not.
fn builder() -> Builder {
    let ranges = ["10.0.0.0/16", "10.9.0.0/16", "fd00::/16"];
    let options = MeshOptions {
        root_namespace: ROOT.to_owned(),
        machine_ranges: Some(ranges.map(|range| range.parse().unwrap()).into()),
        ..MeshOptions::default()
    };
    Builder::new(options, Vips::new())
}

fn whole(declared: &Declared) -> ObjectDelta {
    ObjectDelta {
        set: declared.values().cloned().collect(),
        removed: Vec::new(),
    }
}

fn observed(delta: ObjectDelta) -> Observed {
    Observed {
        delta,
        errors: None,
    }
}

fn keys<V>(old: impl Iterator<Item = V>, new: impl Iterator<Item = V>) -> BTreeSet<V>
where
    V: Ord,
{
    old.chain(new).collect()
}

/// What may differ between two states, found by comparing all of them.
fn compared(old: &Mesh, new: &Mesh, objects: &Declared) -> Changed {
    let mut changed = Changed {
        services: keys(old.services.keys().cloned(), new.services.keys().cloned()),
        workloads: keys(old.workloads.keys().cloned(), new.workloads.keys().cloned()),
        ..Changed::default()
    };
    let ports = |entry: Option<&Arc<ServiceEntry>>| {
        entry.map(|entry| {
            let ports = entry.ports.iter();
            let one = ports.map(|p| {
                let declared = (p.number, p.name.clone(), p.protocol, p.target.clone());
                (declared, p.tls.is_some())
            });
            one.collect::<Vec<_>>()
        })
    };
    let reshaped = |key: &Key| {
        let both = [old, new].map(|mesh| ports(mesh.service(key)));
        both[0] != both[1]
    };
    let granted = |namespace: &str| old.grants.get(namespace) != new.grants.get(namespace);
    for (object, _) in objects.values() {
        let Object::Route(route) = object else {
            continue;
        };
        let again = route
            .rules
            .iter()
            .flat_map(|rule| rule.destinations())
            .any(|to| {
                let crosses = to.namespace != route.meta.namespace && granted(&to.namespace);
                crosses || reshaped(&Key::new(&to.namespace, &to.name))
            });
        if again {
            let parents = route.parents.iter();
            let parents = parents.map(|parent| Key::new(&parent.namespace, &parent.name));
            changed.routed.extend(parents);
        }
    }
    let (was, is) = (&old.policies, &new.policies);
    changed.everything = was.by_namespace != is.by_namespace;
    for key in keys(was.by_workload.keys(), is.by_workload.keys()) {
        if was.by_workload.get(key) != is.by_workload.get(key) {
            changed.governed.insert(key.clone());
        }
    }
    let (was, is) = (&old.authorization, &new.authorization);
    for key in keys(was.by_workload.keys(), is.by_workload.keys()) {
        if was.by_workload.get(key) != is.by_workload.get(key) {
            changed.authorized.insert(key.clone());
        }
    }
    for key in keys(was.by_service.keys(), is.by_service.keys()) {
        if was.by_service.get(key) != is.by_service.get(key) {
            let both = [old, new].map(|mesh| mesh.service(key));
            let members = both.into_iter().flatten().flat_map(|it| it.members.clone());
            changed.authorized.extend(members);
            let workloads = [old, new].into_iter().flat_map(|it| it.workloads.iter());
            let covered = workloads.filter(|(_, entry)| entry.covered_by.contains(key));
            changed
                .authorized
                .extend(covered.map(|(key, _)| key.clone()));
        }
    }
    for namespace in keys(was.by_namespace.keys(), is.by_namespace.keys()) {
        if was.by_namespace.get(namespace) != is.by_namespace.get(namespace) {
            changed.all_authorized |= namespace == ROOT;
            let all = new
                .workloads
                .keys()
                .filter(|key| key.namespace == *namespace);
            changed.authorized.extend(all.cloned());
        }
    }
    changed
}

fn scopes() -> Vec<Scope> {
    let scope = |(namespace, workload, anyam): (&str, &str, bool)| Scope {
        namespace: namespace.into(),
        workload: workload.into(),
        anyam,
        ..Scope::default()
    };
    [("a", "w0", true), ("b", "w1", true), ("a", "w1", false)]
        .map(scope)
        .into()
}

/// All resources of some scopes, and some of undeclared ports.
fn resources(state: &State) -> BTreeMap<(usize, &'static str, String), String> {
    let mut all = BTreeMap::new();
    for (index, scope) in scopes().iter().enumerate() {
        for kind in KINDS {
            let undeclared = match kind {
                type_url::LISTENER => Some("outbound/10.0.0.1:6000".to_owned()),
                type_url::CLUSTER => Some("outbound|6000|tcp|10.1.0.1".to_owned()),
                _ => None,
            };
            let more = undeclared.and_then(|name| state.get(kind, &name, scope));
            for resource in state.list(kind, scope).into_iter().chain(more) {
                let key = (index, kind, resource.name.to_string());
                all.insert(key, resource.version.to_string());
            }
        }
    }
    all
}

/// Endpoints of all services, by `namespace/service:port`, as a caller of IPv4 gets them.
fn endpoints(state: &State) -> BTreeMap<String, BTreeSet<SocketAddr>> {
    let mut all = BTreeMap::new();
    for (key, service) in state.mesh.services.iter() {
        for port in &service.ports {
            let name = format!("outbound|{}||{}", port.number, service.host);
            let made = state.get(type_url::ENDPOINT, &name, &Scope::default());
            let made = ClusterLoadAssignment::decode(made.unwrap().body).unwrap();
            let endpoints = made.endpoints.iter().flat_map(|it| &it.lb_endpoints);
            let addresses = endpoints.map(|it| {
                let Some(HostIdentifier::Endpoint(endpoint)) = &it.host_identifier else {
                    panic!("{it:?}");
                };
                let address = endpoint.address.as_ref().and_then(|it| it.address.as_ref());
                let Some(Address::SocketAddress(at)) = address else {
                    panic!("{endpoint:?}");
                };
                let Some(PortSpecifier::PortValue(number)) = at.port_specifier else {
                    panic!("{at:?}");
                };
                SocketAddr::new(at.address.parse().unwrap(), number.try_into().unwrap())
            });
            all.insert(format!("{key}:{}", port.number), addresses.collect());
        }
    }
    all
}

/// All members that left are removed.
fn settled(builder: &mut Builder) -> Arc<Mesh> {
    while builder.settle().is_some() {}
    while builder.settle().is_some() {}
    Arc::clone(builder.mesh())
}

type Step = Vec<(Slot, Option<u8>)>;

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let one = (slot(), prop::option::weighted(0.75, any::<u8>()));
    prop::collection::vec(prop::collection::vec(one, 1..5), 1..12)
}

/// Takes a step; what of it is a difference.
fn take(declared: &mut Declared, step: &Step) -> ObjectDelta {
    let mut differs: BTreeMap<ObjectId, Option<(Object, Origin)>> = BTreeMap::new();
    for (slot, version) in step {
        let next = version.map(|version| object(*slot, version));
        let before = match &next {
            Some(next) => declared.insert(*slot, next.clone()),
            None => declared.remove(slot),
        };
        if let Some((object, _)) = before.as_ref().or(next.as_ref()) {
            differs.insert(object.id(), next);
        }
    }
    let mut delta = ObjectDelta::default();
    for (id, next) in differs {
        match next {
            Some(next) => delta.set.push(next),
            None => delta.removed.push(id),
        }
    }
    delta
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn deltas_come_to_what_a_rebuild_comes_to(
        start in prop::collection::vec((slot(), any::<u8>()), 0..40),
        steps in steps(),
    ) {
        let mut declared = Declared::new();
        for (slot, version) in start {
            declared.insert(slot, object(slot, version));
        }
        let mut builder = builder();
        builder.apply(whole(&declared));
        for step in &steps {
            let before = settled(&mut builder);
            let (after, changed) = builder.apply(take(&mut declared, step));
            let found = compared(&before, &after, &declared);
            prop_assert_eq!(
                touched(&before, &after, &changed),
                touched(&before, &after, &found),
                "{:?}", step
            );
            for (id, status) in after.statuses.iter() {
                let differs = before.statuses.get(id) != Some(status);
                prop_assert_eq!(changed.statuses.contains(id), differs, "{}", id);
            }
            let now = settled(&mut builder);
            let mut fresh = self::builder();
            fresh.apply(whole(&declared));
            prop_assert_eq!(&*now, &**fresh.mesh(), "{:?}", step);
        }
    }
}

proptest! {
    // Each step makes all resources twice.
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn a_state_after_deltas_serves_what_a_rebuild_serves(
        start in prop::collection::vec((slot(), any::<u8>()), 0..40),
        steps in steps(),
    ) {
        let mut declared = Declared::new();
        for (slot, version) in start {
            declared.insert(slot, object(slot, version));
        }
        let translator = Translator::new(builder());
        translator.apply(observed(whole(&declared)));
        for step in &steps {
            // What is served is kept; what a change touches has to go.
            resources(&translator.state());
            translator.apply(observed(take(&mut declared, step)));
            for _ in 0..3 {
                translator.settle();
            }
            let fresh = Translator::new(builder());
            fresh.apply(observed(whole(&declared)));
            prop_assert_eq!(resources(&translator.state()), resources(&fresh.state()), "{:?}", step);
            let state = translator.state();
            let found = oracle::found(&state.mesh, endpoints(&state));
            prop_assert_eq!(found, oracle::expected(&declared), "{:?}", step);
        }
    }
}

/// Without an age, what is in service stays there; an older object takes it over.
#[test]
fn an_address_stays_with_the_one_in_service_unless_an_older_one_claims_it() {
    let service = |name: &str, created: &str| {
        let text = format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{ name: {name}, namespace: a{created} }}\n\
             spec: {{ clusterIP: 10.0.0.1, ports: [{{ port: 80 }}] }}\n"
        );
        let object = yaml::parse("mesh.yaml", &text).unwrap().remove(0).object;
        let origin = Origin::File {
            file: "mesh.yaml".into(),
            line: 1,
        };
        ObjectDelta {
            set: vec![(object, origin)],
            removed: Vec::new(),
        }
    };
    let mut builder = builder();
    let mut holder = |delta: ObjectDelta| {
        let (mesh, _) = builder.apply(delta);
        let key = mesh.by_vip.get(&std::net::IpAddr::from([10, 0, 0, 1]));
        key.map(|key| key.name.clone()).unwrap_or_default()
    };
    assert_eq!(holder(service("m", "")), "m");
    assert_eq!(holder(service("b", "")), "m");
    assert_eq!(
        holder(service(
            "z",
            ", creationTimestamp: \"2026-01-02T00:00:00Z\""
        )),
        "z"
    );
    assert_eq!(
        holder(service(
            "y",
            ", creationTimestamp: \"2026-01-02T00:00:00Z\""
        )),
        "z"
    );
    assert_eq!(
        holder(service(
            "x",
            ", creationTimestamp: \"2026-01-01T00:00:00Z\""
        )),
        "x"
    );
}
