//! Whatever changes, every resource that differs afterwards was announced; and a change announces
//! no more than it has to.

#![allow(clippy::unwrap_used)] // tests: a failed unwrap is a failed test

use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::path::Path;
use std::sync::Arc;

use anyam_control::ads::resources::{Marks, NodeMarks, Scope, Touched, View};
use anyam_control::model::manifest::object::Meta;
use anyam_control::model::mesh::builder::Builder;
use anyam_control::model::mesh::change::{ObjectDelta, Origin};
use anyam_control::model::mesh::vip::Vips;
use anyam_control::model::{Key, MeshOptions, Object};
use anyam_control::source::Observed;
use anyam_control::source::files::Folder;
use anyam_control::translate::Translator;
use anyam_control::translate::view::State;
use proptest::prelude::*;
use xds_proto::type_url;

const KINDS: [&str; 6] = [
    type_url::LISTENER,
    type_url::ROUTE,
    type_url::CLUSTER,
    type_url::ENDPOINT,
    type_url::WORKLOAD,
    type_url::NAME,
];

type Declared = (Object, Origin);

/// All objects of the golden cases and the demo, with different ages: where objects of one age
/// claim an address, the one that already had it keeps it, so a rebuild may have another result.
fn everything() -> Vec<Declared> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let cases = fs::read_dir(root)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let folders = cases
        .filter(|path| path.is_dir())
        .chain(["../deploy/demo".into()]);
    let mut all: Vec<Declared> = folders
        .flat_map(|folder| Folder::new(folder).changes().delta.set)
        .collect();
    let mut seen = HashSet::new();
    all.retain(|(object, _)| seen.insert(object.id()));
    all.sort_by_key(|(object, _)| object.id());
    for (index, (object, _)) in all.iter_mut().enumerate() {
        let created = format!("2026-01-01T00:{:02}:{:02}Z", index / 60, index % 60);
        meta(object).created = Some(created);
    }
    all
}

fn meta(object: &mut Object) -> &mut Meta {
    match object {
        Object::Service(it) => &mut Arc::make_mut(it).meta,
        Object::Slice(it) => &mut Arc::make_mut(it).meta,
        Object::Workload(it) => &mut Arc::make_mut(it).meta,
        Object::Route(it) => &mut Arc::make_mut(it).meta,
        Object::Grant(it) => &mut Arc::make_mut(it).meta,
        Object::BackendTls(it) => &mut Arc::make_mut(it).meta,
        Object::ConfigMap(it) => &mut Arc::make_mut(it).meta,
        Object::Authorization(it) => &mut Arc::make_mut(it).meta,
        Object::Mesh(it) => &mut Arc::make_mut(it).meta,
        Object::Backend(it) => &mut Arc::make_mut(it).meta,
    }
}

fn scopes() -> Vec<Scope> {
    [
        ("shop", "web"),
        ("shop", "catalogue-1"),
        ("a", "one"),
        ("c", "x"),
        ("shop", "db"),
    ]
    .map(|(namespace, workload)| Scope {
        namespace: namespace.into(),
        workload: workload.into(),
        anyam: true,
        ..Scope::default()
    })
    .into()
}

type Snapshot = BTreeMap<(usize, &'static str, String), String>;

fn snapshot(state: &State) -> Snapshot {
    let mut all = Snapshot::new();
    for (index, scope) in scopes().iter().enumerate() {
        for kind in KINDS {
            for resource in state.list(kind, scope) {
                let key = (index, kind, resource.name.to_string());
                all.insert(key, resource.version.to_string());
            }
        }
    }
    all
}

fn some(all: &[Declared], keep: &[bool]) -> Observed {
    let objects = all.iter().zip(keep).filter(|(_, keep)| **keep);
    let set = objects.map(|(object, _)| object.clone()).collect();
    Observed {
        delta: ObjectDelta {
            set,
            ..ObjectDelta::default()
        },
        errors: None,
    }
}

/// Subscribes to those of `all` that `keep` newly selects, and drops those that it no longer does.
fn flipped(all: &[Declared], before: &[bool], keep: &[bool]) -> Observed {
    let mut delta = ObjectDelta::default();
    for ((object, before), keep) in all.iter().zip(before).zip(keep) {
        match (before, keep) {
            (false, true) => delta.set.push(object.clone()),
            (true, false) => delta.removed.push(object.0.id()),
            _ => {}
        }
    }
    Observed {
        delta,
        errors: None,
    }
}

fn without(name: &str, all: &Observed) -> Observed {
    let ids = all.delta.set.iter().map(|(object, _)| object.id());
    Observed {
        delta: ObjectDelta {
            removed: ids.filter(|id| id.key.name == name).collect(),
            ..ObjectDelta::default()
        },
        errors: None,
    }
}

fn translator() -> Translator {
    Translator::new(Builder::new(MeshOptions::default(), Vips::new()))
}

/// Whether a client of this scope that subscribes to everything is sent a name.
fn announces(marks: &Marks, scope: &Scope, kind: &str, name: &str) -> bool {
    let own = marks
        .nodes
        .get(&Key::new(&scope.namespace, &scope.workload));
    let own = own.is_some_and(|marks| match marks {
        NodeMarks::All => true,
        NodeMarks::Names(names) => names.contains(kind, name),
    });
    own || marks.names.contains(kind, name)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn every_difference_is_announced(
        flips in prop::collection::vec(prop::collection::vec(any::<prop::sample::Index>(), 1..4), 1..6),
        start in prop::collection::vec(prop::bool::weighted(0.8), 200),
    ) {
        let all = everything();
        prop_assert!(all.len() <= start.len());
        let mut keep = start;
        let translator = translator();
        translator.apply(some(&all, &keep));
        let mut before = translator.state();
        let mut old = snapshot(&before);
        for step in flips {
            let kept = keep.clone();
            for index in step {
                let index = index.index(all.len());
                keep[index] = !keep[index];
            }
            translator.apply(flipped(&all, &kept, &keep));
            let after = translator.state();
            let new = snapshot(&after);
            let touched = after.touched_since(before.generation);
            if let Touched::Some(marks) = &touched {
                let keys: HashSet<_> = old.keys().chain(new.keys()).collect();
                for key in keys {
                    let (scope, kind, name) = key;
                    let announced = announces(marks, &scopes()[*scope], kind, name);
                    prop_assert!(announced || old.get(key) == new.get(key), "{key:?}");
                }
            }
            // What was kept from the last state equals what a rebuild makes.
            let fresh = Translator::new(Builder::new(MeshOptions::default(), Vips::new()));
            fresh.apply(some(&all, &keep));
            for ((scope, kind, name), version) in &snapshot(&fresh.state()) {
                if *kind == type_url::ENDPOINT {
                    let kept = after.get(kind, name, &scopes()[*scope]);
                    let kept = kept.map(|r| r.version.to_string());
                    prop_assert_eq!(kept.as_ref(), Some(version), "{}", name);
                }
            }
            (before, old) = (after, new);
        }
    }
}

#[test]
fn a_removed_workload_touches_its_names_and_its_services_endpoints() {
    let demo = Folder::new("../deploy/demo").changes();
    let translator = translator();
    translator.apply(demo.clone());
    let before = translator.state();
    translator.apply(without("catalogue-3", &demo));
    let after = translator.state();
    let Touched::Some(marks) = after.touched_since(before.generation) else {
        panic!("all")
    };
    let nodes: Vec<_> = marks.nodes.keys().map(ToString::to_string).collect();
    assert_eq!(
        nodes,
        ["shop/catalogue-3"],
        "no other proxy's own listeners"
    );
    let names = marks.names.0;
    let endpoints: Vec<_> = names[type_url::ENDPOINT]
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(
        endpoints,
        ["outbound|9090||catalogue.shop.svc.cluster.local"]
    );
    let service = "outbound|9090||catalogue.shop.svc.cluster.local";
    assert!(
        !names[type_url::CLUSTER].contains(service),
        "its identities are the same"
    );
    assert!(!names.contains_key(type_url::NAME));
}

/// The folder of a golden case, and what a change touches there, by type.
fn touched_by(case: &str, removed: &str) -> BTreeMap<String, Vec<String>> {
    let folder = Folder::new(format!("tests/golden/{case}")).changes();
    let translator = translator();
    translator.apply(folder.clone());
    let before = translator.state();
    translator.apply(without(removed, &folder));
    let Touched::Some(marks) = translator.state().touched_since(before.generation) else {
        panic!("all")
    };
    assert!(marks.nodes.is_empty() && marks.addresses.is_empty());
    let names = marks.names.0.into_iter().map(|(kind, names)| {
        let mut names: Vec<String> = names.iter().map(ToString::to_string).collect();
        names.sort();
        let kind = kind.rsplit('.').next().unwrap();
        (kind.to_owned(), names)
    });
    names.collect()
}

#[test]
fn a_route_of_connections_touches_its_service_s_listeners() {
    let touched = touched_by("connections", "weights");
    let ports = ["5432", "6000", "7000", "80"];
    assert_eq!(
        touched["Listener"],
        ports.map(|port| format!("outbound/10.2.0.1:{port}"))
    );
    assert!(!touched.contains_key("Cluster"), "{touched:?}");
    // A grant, by which a backend of one of them may be used.
    let touched = touched_by("connections", "from-data");
    assert!(touched["Listener"].contains(&"outbound/10.2.0.1:5432".to_owned()));
    assert!(!touched.contains_key("Cluster"), "{touched:?}");
}

#[test]
fn certificates_touch_the_clusters_that_trust_them() {
    let touched = touched_by("backend-tls", "bank-ca");
    let kinds: Vec<_> = touched.keys().collect();
    assert_eq!(kinds, ["Cluster"], "{touched:?}");
    let bank = |name: &String| name.ends_with("|bank.vault.svc.cluster.local");
    assert!(touched["Cluster"].iter().all(bank), "{touched:?}");
    assert!(touched_by("backend-tls", "no-ca").is_empty(), "it had none");
}

#[test]
fn a_route_change_touches_its_service_s_routes_alone() {
    let demo = Folder::new("../deploy/demo").changes();
    let translator = translator();
    translator.apply(demo.clone());
    let before = translator.state();
    translator.apply(without("cart-canary", &demo));
    let Touched::Some(marks) = translator.state().touched_since(before.generation) else {
        panic!("all")
    };
    assert!(marks.nodes.is_empty() && marks.addresses.is_empty());
    let names = marks.names.0;
    assert_eq!(names.len(), 1, "{names:?}");
    let routes: Vec<_> = names[type_url::ROUTE]
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(routes, ["outbound|8080||cart.shop.svc.cluster.local"]);
}
