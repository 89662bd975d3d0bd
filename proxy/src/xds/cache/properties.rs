//! Whatever a server sends in whatever order: what is in force is good, complete and bounded.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::tests::{Rig, named};
use super::*;

#[derive(Clone, Debug)]
enum Step {
    Delta(ResourceType, Vec<String>, Vec<String>),
    Want(ResourceType, String),
    Evict(ResourceType, String),
    Cut,
    Open,
    Advance(u64),
}

fn name() -> impl Strategy<Value = String> {
    prop::sample::select(vec!["inbound", "a", "b", "c", "d"]).prop_map(str::to_owned)
}

fn kind() -> impl Strategy<Value = ResourceType> {
    prop::sample::select(vec![
        ResourceType::Cluster,
        ResourceType::Endpoint,
        ResourceType::Listener,
        ResourceType::Route,
    ])
}

fn body(kind: ResourceType) -> impl Strategy<Value = String> {
    let reference = match kind {
        ResourceType::Listener => vec!["r:", "c:"],
        ResourceType::Route => vec!["c:"],
        ResourceType::Cluster => vec!["e:"],
        _ => vec![],
    };
    let words: BoxedStrategy<Vec<String>> = match reference.is_empty() {
        true => Just(Vec::new()).boxed(),
        false => {
            let word = (prop::sample::select(reference), name());
            prop::collection::vec(word.prop_map(|(kind, name)| format!("{kind}{name}")), 0..3)
                .boxed()
        }
    };
    let tail = prop::sample::select(vec!["", " v2", " v3", " bad", " unpublishable"]);
    (name(), words, tail).prop_map(|(name, words, tail)| {
        let words: String = words.iter().map(|word| format!(" {word}")).collect();
        format!("{name}{words}{tail}")
    })
}

fn step() -> impl Strategy<Value = Step> {
    let delta = kind().prop_flat_map(|kind| {
        let bodies = prop::collection::vec(body(kind), 0..3);
        let removed = prop::collection::vec(name(), 0..2);
        (bodies, removed).prop_map(move |(b, r)| Step::Delta(kind, b, r))
    });
    prop_oneof![
        8 => delta,
        2 => (kind(), name()).prop_map(|(kind, name)| Step::Want(kind, name)),
        1 => (kind(), name()).prop_map(|(kind, name)| Step::Evict(kind, name)),
        1 => Just(Step::Cut),
        1 => Just(Step::Open),
        2 => (0..20u64).prop_map(Step::Advance),
    ]
}

fn run(config: Config, steps: Vec<Step>) {
    let mut rig = Rig::new(config);
    let mut force: BTreeMap<Key, String> = BTreeMap::new();
    rig.cache.connected(rig.now);
    for step in steps {
        match step {
            Step::Delta(kind, bodies, removed) if rig.cache.is_connected() => {
                let bodies: Vec<&str> = bodies.iter().map(String::as_str).collect();
                let removed: Vec<&str> = removed.iter().map(String::as_str).collect();
                rig.delta(kind, &bodies, &removed);
            }
            Step::Delta(..) => {}
            Step::Want(kind, name) => {
                let key = Key::new(kind, name);
                let outcome = rig.cache.want(&key, rig.now);
                // The answer may be ahead of the changes just taken, never the other way round.
                if outcome == Some(DemandResult::Found) {
                    let held = rig
                        .cache
                        .resources()
                        .any(|(k, s)| *k == key && s.active.is_some());
                    assert!(held);
                }
            }
            Step::Evict(kind, name) => rig.cache.evict(&Key::new(kind, name), rig.now),
            Step::Cut => rig.cache.disconnected(rig.now),
            Step::Open => {
                rig.cache.disconnected(rig.now);
                rig.cache.connected(rig.now);
            }
            Step::Advance(seconds) => rig.pass(seconds),
        }
        for change in rig.published() {
            match change {
                Change::Upsert(key, body) => {
                    assert!(!body.ends_with("bad"), "{body}");
                    force.insert(key, body);
                }
                Change::Remove(key) => assert!(force.remove(&key).is_some(), "{key} twice"),
            }
        }
        while rig.cache.next_request().is_some() {}
        for (key, outcome) in rig.cache.take_answers() {
            assert!(
                outcome != DemandResult::Found || force.contains_key(&key),
                "{key}"
            );
        }
        check(&rig, &force);
    }
}

/// The cache and a follower of its changes agree, and nothing unneeded is held.
fn check(rig: &Rig, force: &BTreeMap<Key, String>) {
    let active: BTreeMap<Key, String> = rig
        .cache
        .resources()
        .filter_map(|(key, status)| {
            let body = status.active?.1;
            Some((key.clone(), String::from_utf8(body.to_vec()).unwrap()))
        })
        .collect();
    assert_eq!(&active, force);
    for (key, entry) in &rig.cache.entries {
        let named = rig.cache.mode(key.kind) == Mode::Named;
        let needed = entry.is_pinned() || rig.cache.dependants.contains_key(key);
        assert!(needed || !named, "{key} is held and nothing refers to it");
        assert!(!named || rig.cache.is_wanted(key.kind, &key.name), "{key}");
    }
    let held: usize = rig.cache.held.values().sum();
    let newest = rig.cache.entries.values().filter(|e| e.newest().is_some());
    assert_eq!(held, newest.count());
    let on_demand: usize = rig.cache.on_demand.values().sum();
    let wanted = rig.cache.entries.values().filter(|e| e.wanted.is_some());
    assert_eq!(on_demand, wanted.count());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn by_name(steps in prop::collection::vec(step(), 1..40)) {
        run(Config { max_on_demand: 3, ..named() }, steps);
    }

    #[test]
    fn by_wildcard(steps in prop::collection::vec(step(), 1..40)) {
        run(Config::default(), steps);
    }
}
