//! Compiled resources on their way into snapshots.

use std::sync::Arc;

use prost::{Message, Name};
use xds_proto::type_url;

use super::super::*;
use super::fixtures::{CLUSTER, EDS, HTTP, ROUTES};
use super::{compiler, message};
use crate::snapshot::{Snapshot, Store};
use crate::upstream::cluster::{NoEndpoint, PickFor};

/// A proxy in the making: static resources, then changes.
pub(super) struct Bench {
    pub(super) compiler: Compiler,
    pub(super) store: Store,
}

impl Bench {
    pub(super) fn new() -> Self {
        Self {
            compiler: compiler(),
            store: Store::new(Snapshot::default()),
        }
    }

    pub(super) fn take<M: Message + Name + Default>(&mut self, type_url: &str, yaml: &str) -> bool {
        let body = message::<M>(yaml).encode_to_vec();
        let current = self.store.load();
        let compiled = self.compiler.compile(type_url, &body, &current).unwrap();
        self.compiler
            .publish(&self.store, [SnapshotStep::Set(compiled)])
    }

    pub(super) fn cluster(&mut self, yaml: &str) -> bool {
        self.take::<cluster_pb::Cluster>(type_url::CLUSTER, yaml)
    }

    pub(super) fn endpoints(&mut self, yaml: &str) -> bool {
        self.take::<endpoint_pb::ClusterLoadAssignment>(type_url::ENDPOINT, yaml)
    }

    /// A workload, asked for by `name`.
    pub(super) fn peer(&mut self, name: &str, addresses: &[&str], who: &str) {
        let addresses = addresses.iter().map(|ip| ip.parse().unwrap()).collect();
        let workload = crate::config::endpoint::Workload {
            name: who.to_owned(),
            ..Default::default()
        };
        let peer = Compiled::Workload(name.into(), addresses, Arc::new(workload));
        self.compiler
            .publish(&self.store, [SnapshotStep::Set(peer)]);
    }

    pub(super) fn forget(&mut self, workload: &str) {
        let step = SnapshotStep::Remove(type_url::WORKLOAD, workload.into());
        self.compiler.publish(&self.store, [step]);
    }

    pub(super) fn linked(&self) -> Option<Arc<Cluster>> {
        let snapshot = self.store.load();
        let listener = snapshot.listeners.get("http")?.clone();
        let routes = listener.routes[0].target()?;
        routes.clusters[0].target.clone()
    }
}

#[test]
fn an_endpoint_change_touches_one_cluster_and_publishes_nothing() {
    let mut bench = Bench::new();
    for n in 0..50 {
        bench.cluster(&CLUSTER.replace("cart", &format!("cart{n}")));
    }
    bench.take::<listener_pb::Listener>(type_url::LISTENER, HTTP);
    let before = bench.store.load();
    let compiled = bench.compiler.counts.clusters.get();
    let untouched = before.clusters["cart8"].endpoints.load().version;

    assert!(!bench.endpoints(&EDS.replace("cart", "cart7")));

    let after = bench.store.load();
    assert!(Arc::ptr_eq(&before, &after));
    let counts = &bench.compiler.counts;
    assert_eq!(counts.endpoints.get(), 1);
    assert_eq!(counts.clusters.get(), compiled);
    assert_eq!(counts.relinked.get(), 0);
    assert_eq!((counts.bound.get(), counts.examined.get()), (1, 0));
    assert_eq!(after.clusters["cart7"].endpoints.load().len(), 2);
    assert_eq!(after.clusters["cart8"].endpoints.load().version, untouched);
}

#[test]
fn clusters_are_found_by_the_service_they_ask_for_now() {
    let mut bench = Bench::new();
    let named = |service: &str| {
        let config = "eds_config: {ads: {}}";
        assert!(CLUSTER.contains(config), "{CLUSTER}");
        CLUSTER.replace(config, &format!("{config}, service_name: {service}"))
    };
    bench.cluster(&named("one"));
    bench.endpoints(&EDS.replace("cart", "two"));
    let len = |bench: &Bench| bench.store.load().clusters["cart"].endpoints.load().len();
    assert_eq!(len(&bench), 0);
    // What came before the cluster asked for it waits for it.
    bench.cluster(&named("two"));
    assert_eq!(len(&bench), 2);
    bench.endpoints("{cluster_name: one, endpoints: []}");
    assert_eq!(len(&bench), 2, "of another service");
    bench.endpoints("{cluster_name: two, endpoints: []}");
    assert_eq!(len(&bench), 0);
}

/// Several clusters may name one service. Whichever comes when, each has its endpoints, with a state
/// of its own, until the assignment itself is released.
#[test]
fn an_assignment_serves_every_cluster_that_names_it() {
    let mut bench = Bench::new();
    let named = |name: &str| {
        CLUSTER
            .replacen("name: cart", &format!("name: {name}"), 1)
            .replace(
                "eds_config: {ads: {}}",
                "eds_config: {ads: {}}, service_name: shop",
            )
    };
    let addresses = |bench: &Bench, name: &str| -> Vec<String> {
        let endpoints = bench.store.load().clusters[name].endpoints.load_full();
        endpoints.all().map(|one| one.address.to_string()).collect()
    };
    let both = ["10.9.0.1:80", "10.9.0.2:80"];
    let remove = |bench: &mut Bench, kind: &'static str, name: &str| {
        let step = SnapshotStep::Remove(kind, name.into());
        bench.compiler.publish(&bench.store, [step]);
    };

    bench.cluster(&named("one"));
    bench.endpoints(&EDS.replace("cart", "shop"));
    bench.cluster(&named("two"));
    assert_eq!(addresses(&bench, "one"), both);
    assert_eq!(addresses(&bench, "two"), both);
    let clusters = bench.store.load().clusters.clone();
    let state = |name: &str| {
        clusters[name]
            .endpoints
            .load()
            .all()
            .next()
            .unwrap()
            .state
            .clone()
    };
    assert!(!Arc::ptr_eq(&state("one"), &state("two")));

    remove(&mut bench, type_url::CLUSTER, "one");
    assert_eq!(addresses(&bench, "two"), both);
    remove(&mut bench, type_url::CLUSTER, "two");
    bench.cluster(&named("three"));
    assert_eq!(addresses(&bench, "three"), both);
    bench.cluster(&named("four"));
    bench.endpoints("{cluster_name: shop, endpoints: []}");
    assert!(addresses(&bench, "three").is_empty() && addresses(&bench, "four").is_empty());

    // Once it is released, a cluster that comes later waits for another.
    bench.endpoints(&EDS.replace("cart", "shop"));
    remove(&mut bench, type_url::ENDPOINT, "shop");
    assert_eq!(addresses(&bench, "three"), both);
    bench.cluster(&named("five"));
    assert!(!bench.store.load().clusters["five"].endpoints.load().ready);
}

#[test]
fn an_address_is_removed_with_the_last_resource_that_has_it() {
    let mut bench = Bench::new();
    let both = ["10.1.0.1", "fd00::1"];
    let known = |bench: &Bench| {
        let snapshot = bench.store.load();
        let mut all: Vec<_> = snapshot.workloads.keys().map(ToString::to_string).collect();
        all.sort();
        all
    };
    // Subscribed to by one of its addresses: all of them are removed together.
    bench.peer("10.1.0.1", &both, "a");
    assert_eq!(known(&bench), both);
    bench.forget("10.1.0.1");
    assert!(known(&bench).is_empty());
    // Subscribed to by both: one of them is released.
    bench.peer("10.1.0.1", &both, "a");
    bench.peer("fd00::1", &both, "a");
    bench.forget("10.1.0.1");
    assert_eq!(known(&bench), both);
    // Its addresses change: the old one is removed.
    bench.peer("fd00::1", &["fd00::1", "10.1.0.2"], "a");
    assert_eq!(known(&bench), ["10.1.0.2", "fd00::1"]);
    // Another workload has one of its addresses.
    bench.peer("10.1.0.2", &["10.1.0.2"], "b");
    bench.forget("fd00::1");
    assert_eq!(known(&bench), ["10.1.0.2"]);
    let snapshot = bench.store.load();
    let address = "10.1.0.2".parse().unwrap();
    assert_eq!(
        snapshot
            .workloads
            .get::<std::net::IpAddr>(&address)
            .unwrap()
            .name,
        "b"
    );
    bench.forget("10.1.0.2");
    assert!(known(&bench).is_empty());
}

#[test]
fn a_changed_cluster_relinks_only_what_refers_to_it_and_keeps_its_state() {
    let mut bench = Bench::new();
    bench.take::<listener_pb::Listener>(type_url::LISTENER, HTTP);
    bench.take::<route_pb::RouteConfiguration>(type_url::ROUTE, ROUTES);
    assert!(bench.linked().is_none());
    bench.cluster(CLUSTER);
    bench.endpoints(EDS);
    let first = bench.linked().unwrap();
    let busy = first.endpoints.load().all().next().unwrap().state.begin();
    let permit = first.limits.try_request();
    let before = bench.store.load();

    bench.cluster(&CLUSTER.replace("max_connections: 7", "max_connections: 9"));

    let second = bench.linked().unwrap();
    let after = bench.store.load();
    assert!(!Arc::ptr_eq(&first, &second));
    assert!(Arc::ptr_eq(
        &before.listeners["http"].def,
        &after.listeners["http"].def
    ));
    assert!(Arc::ptr_eq(&before.routes["shop"], &after.routes["shop"]));
    assert_eq!(second.limits.thresholds().connections, 9);
    assert_eq!(second.limits.active_requests(), 1);
    assert_eq!(
        second.endpoints.load().all().next().unwrap().state.active(),
        1
    );
    // The transport did not change: connections may be shared.
    assert_eq!(first.id, second.id);
    bench.cluster(&CLUSTER.replace("anyam-h2", "anyam-tcp"));
    assert_ne!(bench.linked().unwrap().id, first.id);
    drop((busy, permit));
}

#[test]
fn endpoints_may_come_before_their_cluster() {
    let mut bench = Bench::new();
    bench.endpoints(EDS);
    bench.cluster(CLUSTER);
    let snapshot = bench.store.load();
    let cluster = &snapshot.clusters["cart"];
    let mut random = fastrand::Rng::with_seed(3);
    let picked = cluster.pick(PickFor::default(), &mut random).unwrap();
    assert!(picked.endpoint.address.to_string().starts_with("10.9.0."));
    let transports: Vec<_> = cluster
        .endpoints
        .load()
        .all()
        .map(|e| e.transport)
        .collect();
    assert_eq!(transports, [Some(0), Some(1)]);
    let workload = cluster
        .endpoints
        .load()
        .all()
        .next()
        .unwrap()
        .workload
        .clone()
        .unwrap();
    assert_eq!((&*workload.name, &*workload.namespace), ("cart-1", "shop"));
}

#[test]
fn a_cluster_without_endpoints_says_why() {
    let mut bench = Bench::new();
    bench.cluster(CLUSTER);
    let snapshot = bench.store.load();
    let mut random = fastrand::Rng::with_seed(3);
    let pick = |random: &mut _| {
        snapshot.clusters["cart"]
            .pick(PickFor::default(), random)
            .err()
    };
    assert_eq!(pick(&mut random), Some(NoEndpoint::Warming));
    bench.endpoints("{cluster_name: cart, endpoints: []}");
    assert_eq!(pick(&mut random), Some(NoEndpoint::Unhealthy));
}

#[test]
fn removal_unlinks() {
    let mut bench = Bench::new();
    bench.cluster(CLUSTER);
    bench.take::<listener_pb::Listener>(type_url::LISTENER, HTTP);
    assert!(bench.linked().is_some());
    bench.compiler.publish(
        &bench.store,
        [SnapshotStep::Remove(type_url::CLUSTER, "cart".into())],
    );
    assert!(bench.linked().is_none());
    bench.compiler.publish(
        &bench.store,
        [SnapshotStep::Remove(type_url::LISTENER, "http".into())],
    );
    assert!(bench.store.load().by_socket.is_empty());
}

/// Two listeners at one address: the later one serves it, and the other again once that is gone.
#[test]
fn a_shared_address_returns_to_the_remaining_listener() {
    let mut bench = Bench::new();
    let serving = |bench: &Bench| {
        let snapshot = bench.store.load();
        let names = snapshot.by_socket.values();
        let names: Vec<_> = names.map(|one| one.def.name.to_string()).collect();
        names
    };
    bench.take::<listener_pb::Listener>(type_url::LISTENER, HTTP);
    let other = HTTP.replacen("name: http", "name: other", 1);
    assert_ne!(other, HTTP);
    bench.take::<listener_pb::Listener>(type_url::LISTENER, &other);
    assert_eq!(serving(&bench), ["other"]);
    // Both are linked to the cluster again, and keep what they serve.
    for _ in 0..10 {
        bench.cluster(CLUSTER);
        assert_eq!(serving(&bench), ["other"]);
    }
    for (gone, left) in [("other", &["http"][..]), ("http", &[])] {
        let step = SnapshotStep::Remove(type_url::LISTENER, gone.into());
        bench.compiler.publish(&bench.store, [step]);
        assert_eq!(serving(&bench), left);
    }
}

/// A slot exists as long as a cluster's context holds it, or its secret is there.
#[test]
fn slots_of_secrets_that_nothing_refers_to_are_forgotten() {
    let mut bench = Bench::new();
    bench.cluster(CLUSTER);
    let secrets = Arc::clone(bench.compiler.secrets());
    let slot = Arc::downgrade(&secrets.bundle("ROOTCA"));
    let other = SnapshotStep::Remove(type_url::CLUSTER, "other".into());
    bench.compiler.publish(&bench.store, [other]);
    assert!(slot.upgrade().is_some());
    let gone = SnapshotStep::Remove(type_url::CLUSTER, "cart".into());
    bench.compiler.publish(&bench.store, [gone]);
    assert!(slot.upgrade().is_none());
}

#[test]
fn references_name_what_to_subscribe_to() {
    let bench = Bench::new();
    let body = message::<cluster_pb::Cluster>(CLUSTER).encode_to_vec();
    let compiled = bench
        .compiler
        .compile(type_url::CLUSTER, &body, &bench.store.load())
        .unwrap();
    let references = compiled.references();
    assert!(references.endpoints.contains("cart"));
    assert!(references.secrets.is_empty());
    let body = message::<route_pb::RouteConfiguration>(ROUTES).encode_to_vec();
    let compiled = bench
        .compiler
        .compile(type_url::ROUTE, &body, &bench.store.load())
        .unwrap();
    assert!(compiled.references().clusters.contains("cart-v2"));
}
