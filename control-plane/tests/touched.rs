//! Whatever changes, every resource that differs afterwards was announced; and a change announces
//! no more than it has to.

#![allow(clippy::unwrap_used)] // tests: a failed unwrap is a failed test

use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::path::Path;

use anyam_control::ads::resources::{Scope, Touched, View};
use anyam_control::model::Options;
use anyam_control::model::builder::Builder;
use anyam_control::model::vip::Vips;
use anyam_control::source::files::{Folder, Scan};
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

/// All objects of the golden cases and the demo.
fn everything() -> Scan {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let mut all = Scan::default();
    let cases = fs::read_dir(root)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    for case in cases
        .filter(|path| path.is_dir())
        .chain(["../deploy/demo".into()])
    {
        all.objects.extend(Folder::new(case).scan().objects);
    }
    let mut seen = HashSet::new();
    all.objects.retain(|object| seen.insert(object.object.id()));
    all.objects.sort_by_key(|object| object.object.id());
    all
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

fn some(all: &Scan, keep: &[bool]) -> Scan {
    let objects = all.objects.iter().zip(keep).filter(|(_, keep)| **keep);
    Scan {
        objects: objects.map(|(object, _)| object.clone()).collect(),
        errors: Vec::new(),
    }
}

fn translator() -> Translator {
    Translator::new(Builder::new(Options::default(), Vips::new()))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn what_differs_was_announced(
        flips in prop::collection::vec(prop::collection::vec(any::<prop::sample::Index>(), 1..4), 1..6),
        start in prop::collection::vec(prop::bool::weighted(0.8), 200),
    ) {
        let all = everything();
        prop_assert!(all.objects.len() <= start.len());
        let mut keep = start;
        let translator = translator();
        translator.apply(some(&all, &keep));
        let mut before = translator.state();
        let mut old = snapshot(&before);
        for step in flips {
            for index in step {
                let index = index.index(all.objects.len());
                keep[index] = !keep[index];
            }
            translator.apply(some(&all, &keep));
            let after = translator.state();
            let new = snapshot(&after);
            let touched = after.touched_since(before.generation);
            if let Touched::Names(names) = &touched {
                let keys: HashSet<_> = old.keys().chain(new.keys()).collect();
                for key in keys {
                    let (_, kind, name) = key;
                    let announced = names.get(*kind).is_some_and(|n| n.contains(name.as_str()));
                    prop_assert!(announced || old.get(key) == new.get(key), "{key:?}");
                }
            }
            // What was kept from the state before is what would be made anew.
            let fresh = Translator::new(Builder::new(Options::default(), Vips::new()));
            fresh.apply(some(&all, &keep));
            for ((_, kind, name), version) in &snapshot(&fresh.state()) {
                if *kind == type_url::ENDPOINT {
                    let kept = after.get(kind, name, &scopes()[0]).map(|r| r.version.to_string());
                    prop_assert_eq!(kept.as_ref(), Some(version), "{}", name);
                }
            }
            (before, old) = (after, new);
        }
    }
}

#[test]
fn a_workload_that_goes_touches_its_own_names_and_its_services_endpoints() {
    let demo = Folder::new("../deploy/demo").scan();
    let translator = translator();
    translator.apply(demo.clone());
    let before = translator.state();
    let mut less = demo;
    less.objects
        .retain(|object| object.object.id().key.name != "catalogue-3");
    translator.apply(less);
    let after = translator.state();
    let Touched::Names(names) = after.touched_since(before.generation) else {
        panic!("all")
    };
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

#[test]
fn a_route_change_touches_its_service_s_routes_alone() {
    let demo = Folder::new("../deploy/demo").scan();
    let translator = translator();
    translator.apply(demo.clone());
    let before = translator.state();
    let mut less = demo;
    less.objects
        .retain(|object| object.object.id().key.name != "cart-canary");
    translator.apply(less);
    let Touched::Names(names) = translator.state().touched_since(before.generation) else {
        panic!("all")
    };
    assert_eq!(names.len(), 1, "{names:?}");
    let routes: Vec<_> = names[type_url::ROUTE]
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(routes, ["outbound|8080||cart.shop.svc.cluster.local"]);
}
