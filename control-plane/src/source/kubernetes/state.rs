//! The objects of a cluster that were reported, and what has changed since.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use super::kinds::WatchedKind;
use super::named::NamedConfigMaps;
use super::status::Statuses;
use super::status::document::UnreadVersion;
use super::watch::{Decoded, Event};
use crate::model::manifest::object::Key;
use crate::model::manifest::workload::{Locality, Workload};
use crate::model::mesh::change::{ClusterDetails, LeftOut, ObjectDelta, Origin};
use crate::model::{Kind, Object, ObjectId};
use crate::source::{About, FileError, Observed};

/// See the module.
#[derive(Debug, Default)]
pub struct ClusterState {
    kinds: HashMap<WatchedKind, Keys>,
    localities: HashMap<String, Locality>,
    pods_on: HashMap<String, BTreeSet<Key>>,
    /// Pods that are workloads.
    pods: HashSet<Key>,
    /// Objects of the kind Workload: programs outside of pods.
    machines: HashMap<Key, Served>,
    served: HashMap<ObjectId, Served>,
    /// Objects that may have changed since the last report, with their version in that report.
    reported: BTreeMap<ObjectId, Option<Served>>,
    errors: BTreeMap<(WatchedKind, Key), Vec<FileError>>,
    errors_differ: bool,
    /// What objects say of themselves.
    pub statuses: Statuses,
    pub named: NamedConfigMaps,
}

const CONFIG_MAPS: WatchedKind = WatchedKind::Manifest(Kind::ConfigMap);

/// An object in service.
#[derive(Clone, Debug, PartialEq)]
struct Served {
    object: Object,
    details: Option<Arc<ClusterDetails>>,
}

impl Served {
    fn new(object: Object, details: ClusterDetails) -> Self {
        let says = details != ClusterDetails::default();
        Served {
            object,
            details: says.then(|| Arc::new(details)),
        }
    }

    fn pod(workload: Workload) -> Self {
        Served {
            object: Object::Workload(Arc::new(workload)),
            details: None,
        }
    }
}

/// The objects of a kind.
#[derive(Debug, Default)]
struct Keys {
    /// Whether a list was read to its end.
    listed: bool,
    known: HashSet<Key>,
    /// While a list is read: the keys in it so far.
    seen: Option<HashSet<Key>>,
}

impl ClusterState {
    /// Kinds that were not listed to the end yet.
    pub fn missing(&self) -> Vec<WatchedKind> {
        let listed = |kind: &WatchedKind| self.kinds.get(kind).is_some_and(|it| it.listed);
        WatchedKind::all().filter(|kind| !listed(kind)).collect()
    }

    pub fn take_in(&mut self, event: Event) {
        match event {
            Event::Listing(kind) => {
                self.kinds.entry(kind).or_default().seen = Some(HashSet::new());
                self.put_errors(kind, &Key::new("", ""), Vec::new());
            }
            // It was queued before the last policy that named it was gone.
            Event::Set(CONFIG_MAPS, key, _) if !self.named.contains(&key) => {}
            Event::Set(kind, key, found) => {
                let keys = self.kinds.entry(kind).or_default();
                if let Some(seen) = &mut keys.seen {
                    seen.insert(key.clone());
                }
                keys.known.insert(key.clone());
                self.set(kind, key, found);
            }
            Event::Missing(kind) => {
                let error = FileError {
                    file: kind.to_string(),
                    message: "the API server does not have them any more; their objects stay in \
                              force for a while"
                        .to_owned(),
                    ..FileError::default()
                };
                self.put_errors(kind, &Key::new("", ""), vec![error]);
            }
            Event::Looked(key) => self.named.looked_for(&key),
            Event::Gone(kind, key) => {
                self.kinds.entry(kind).or_default().known.remove(&key);
                self.remove(kind, &key);
            }
            Event::Listed(kind) => {
                let keys = self.kinds.entry(kind).or_default();
                keys.listed = true;
                let seen = keys.seen.take().unwrap_or_default();
                let gone: Vec<Key> = keys.known.difference(&seen).cloned().collect();
                keys.known = seen;
                for key in gone {
                    self.remove(kind, &key);
                }
            }
        }
    }

    /// What differs from the last report.
    pub fn report(&mut self) -> Observed {
        let mut delta = ObjectDelta::default();
        for (id, before) in std::mem::take(&mut self.reported) {
            match self.served.get(&id) {
                Some(now) if before.as_ref() == Some(now) => {}
                Some(now) => {
                    let kind = match id.kind == Kind::Workload && self.pods.contains(&id.key) {
                        true => WatchedKind::Pod.name(),
                        false => id.kind.name(),
                    };
                    let details = now.details.clone();
                    let origin = Origin::Cluster { kind, details };
                    delta.set.push((now.object.clone(), origin));
                }
                None if before.is_some() => delta.removed.push(id),
                None => {}
            }
        }
        let errors = std::mem::take(&mut self.errors_differ);
        let errors = errors.then(|| self.errors.values().flatten().cloned().collect());
        Observed { delta, errors }
    }

    fn set(&mut self, kind: WatchedKind, key: Key, found: Decoded) {
        match found {
            Decoded::Node(locality) => self.place_node(&key.name, locality),
            Decoded::Pod(Some(workload)) => self.place_pod(key, *workload),
            // The pod's address may be another's by now.
            Decoded::Pod(None) => self.remove_pod(&key),
            Decoded::Manifest {
                object,
                details,
                status,
            } => {
                let WatchedKind::Manifest(of) = kind else {
                    return;
                };
                let id = ObjectId { kind: of, key };
                self.note(kind, &id, &details.left_out, object.is_some());
                if let Some(status) = status {
                    self.statuses.report(&id, Some(status));
                    let unread = object.is_none().then(|| UnreadVersion::new(&details));
                    self.statuses.set_unread(&id, unread);
                }
                // An object that is invalid as a whole stays in service as it was last.
                if let Some(object) = object {
                    if of == Kind::BackendTlsPolicy {
                        self.name_config_maps(&id.key, Some(&object));
                    }
                    let served = Served::new(object, details);
                    match of {
                        Kind::Workload => self.place_machine(id, served),
                        _ => self.serve(id, Some(served)),
                    }
                }
            }
        }
    }

    fn remove(&mut self, kind: WatchedKind, key: &Key) {
        match kind {
            WatchedKind::Node => self.place_node(&key.name, None),
            WatchedKind::Pod => self.remove_pod(key),
            WatchedKind::Manifest(of) => {
                let key = key.clone();
                let id = ObjectId { kind: of, key };
                self.statuses.report(&id, None);
                self.put_errors(kind, &id.key, Vec::new());
                if of == Kind::BackendTlsPolicy {
                    self.name_config_maps(&id.key, None);
                }
                let machine = of == Kind::Workload;
                if machine {
                    self.machines.remove(&id.key);
                }
                if !machine || !self.pods.contains(&id.key) {
                    self.serve(id, None);
                }
            }
        }
    }

    /// A policy names other ConfigMaps than before; those that none names any more are removed.
    fn name_config_maps(&mut self, policy: &Key, object: Option<&Object>) {
        for key in self.named.set(policy, object) {
            self.remove(CONFIG_MAPS, &key);
        }
    }

    fn place_node(&mut self, node: &str, locality: Option<Locality>) {
        if self.localities.get(node) == locality.as_ref() {
            return;
        }
        match locality {
            Some(locality) => self.localities.insert(node.to_owned(), locality),
            None => self.localities.remove(node),
        };
        for key in self.pods_on.get(node).cloned().unwrap_or_default() {
            let id = workload(&key);
            if let Some(workload) = self.workload(&id) {
                let workload = Workload::clone(workload);
                self.place_pod(key, workload);
            }
        }
    }

    fn place_pod(&mut self, key: Key, mut pod: Workload) {
        if self.pods.insert(key.clone()) {
            // A pod takes precedence over a Workload of the same name.
            self.check_name(&key);
        }
        self.leave_node(&key);
        if !pod.node.is_empty() {
            let there = self.pods_on.entry(pod.node.clone()).or_default();
            there.insert(key.clone());
        }
        pod.locality = self.localities.get(&pod.node).cloned();
        self.serve(workload(&key), Some(Served::pod(pod)));
    }

    fn remove_pod(&mut self, key: &Key) {
        if !self.pods.remove(key) {
            return;
        }
        let id = workload(key);
        self.leave_node(key);
        let machine = self.machines.get(key).cloned();
        self.check_name(key);
        self.serve(id, machine);
    }

    /// Removes a pod from the index of its node, if it was on one.
    fn leave_node(&mut self, key: &Key) {
        let Some(pod) = self.workload(&workload(key)) else {
            return;
        };
        let node = pod.node.clone();
        let there = self.pods_on.get_mut(&node);
        let emptied = there.is_some_and(|there| there.remove(key) && there.is_empty());
        if emptied {
            self.pods_on.remove(&node);
        }
    }

    fn place_machine(&mut self, id: ObjectId, machine: Served) {
        self.machines.insert(id.key.clone(), machine.clone());
        match self.pods.contains(&id.key) {
            true => self.check_name(&id.key),
            false => self.serve(id, Some(machine)),
        }
    }

    fn workload(&self, id: &ObjectId) -> Option<&Workload> {
        match &self.served.get(id)?.object {
            Object::Workload(workload) => Some(workload),
            _ => None,
        }
    }

    /// Reports a Workload that has the name of a Pod.
    fn check_name(&mut self, key: &Key) {
        if !self.machines.contains_key(key) {
            return;
        }
        let id = workload(key);
        let error = FileError {
            file: id.to_string(),
            field: "metadata.name".to_owned(),
            message: format!(
                "there is a Pod {key} too, which is in service; this Workload is not used. Give it another name"
            ),
            about: Some(About::Duplicate(id)),
            ..FileError::default()
        };
        let errors = match self.pods.contains(key) {
            true => vec![error],
            false => Vec::new(),
        };
        self.put_errors(WatchedKind::Manifest(Kind::Workload), key, errors);
    }

    fn serve(&mut self, id: ObjectId, object: Option<Served>) {
        let before = match object {
            Some(object) => self.served.insert(id.clone(), object),
            None => self.served.remove(&id),
        };
        self.reported.entry(id).or_insert(before);
    }

    fn note(&mut self, kind: WatchedKind, id: &ObjectId, left_out: &[LeftOut], is_read: bool) {
        let about = match is_read {
            true => About::LeftOut(ObjectId::clone(id)),
            false => About::Unreadable(ObjectId::clone(id)),
        };
        let error = |part: &LeftOut| FileError {
            file: id.to_string(),
            field: part.field.path.clone(),
            message: match is_read {
                true => format!("{}; {}", part.field.message, part.effect),
                false => format!(
                    "{}; it cannot be used without that; its last valid version, if any, stays in force",
                    part.field.message
                ),
            },
            about: Some(about.clone()),
            ..FileError::default()
        };
        self.put_errors(kind, &id.key, left_out.iter().map(error).collect());
    }

    fn put_errors(&mut self, kind: WatchedKind, key: &Key, errors: Vec<FileError>) {
        let at = (kind, key.clone());
        let before = match errors.is_empty() {
            true => self.errors.remove(&at).unwrap_or_default(),
            false => self.errors.insert(at, errors.clone()).unwrap_or_default(),
        };
        self.errors_differ |= before != errors;
    }
}

fn workload(key: &Key) -> ObjectId {
    ObjectId {
        kind: Kind::Workload,
        key: key.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::decode::{Manifest, Pod};
    use super::super::{lenient, pod};
    use super::*;

    const SERVICES: WatchedKind = WatchedKind::Manifest(Kind::Service);
    const WORKLOADS: WatchedKind = WatchedKind::Manifest(Kind::Workload);

    fn manifest(kind: Kind, name: &str, spec: &str) -> Event {
        let text =
            format!(r#"{{"metadata": {{"name": "{name}", "namespace": "n"}}, "spec": {spec}}}"#);
        let manifest: Manifest = serde_json::from_str(&text).unwrap();
        let generation = manifest.generation;
        let (object, left_out) = lenient::read(kind, manifest.node);
        let found = Decoded::Manifest {
            object,
            details: ClusterDetails {
                generation,
                left_out,
            },
            status: None,
        };
        Event::Set(WatchedKind::Manifest(kind), Key::new("n", name), found)
    }

    fn service(name: &str, spec: &str) -> Event {
        manifest(Kind::Service, name, spec)
    }

    fn pod(name: &str, ip: &str) -> Event {
        pod_on("n1", name, ip)
    }

    fn pod_on(node: &str, name: &str, ip: &str) -> Event {
        let text = format!(
            r#"{{"metadata": {{"name": "{name}"}}, "spec": {{"nodeName": "{node}"}}, "status": {{"podIP": "{ip}"}}}}"#
        );
        let pod: Pod = serde_json::from_str(&text).unwrap();
        let workload = pod::workload(("n", name), pod).map(Box::new);
        Event::Set(
            WatchedKind::Pod,
            Key::new("n", name),
            Decoded::Pod(workload),
        )
    }

    fn zone(zone: &str) -> Event {
        let locality = Locality {
            zone: zone.to_owned(),
            ..Locality::default()
        };
        let found = Decoded::Node(Some(locality));
        Event::Set(WatchedKind::Node, Key::new("", "n1"), found)
    }

    /// The objects that a report sets, with their origins, and those that it removes.
    fn take(
        state: &mut ClusterState,
        events: impl IntoIterator<Item = Event>,
    ) -> (Vec<String>, Vec<String>) {
        for event in events {
            state.take_in(event);
        }
        let delta = state.report().delta;
        let set = delta.set.iter();
        let set = set.map(|(object, origin)| format!("{} ({origin})", object.id()));
        let removed = delta.removed.iter().map(ToString::to_string);
        (set.collect(), removed.collect())
    }

    #[test]
    fn objects_missing_from_a_later_list_are_removed_once_it_is_read() {
        let mut state = ClusterState::default();
        assert_eq!(state.missing().len(), WatchedKind::all().count());
        let ports = r#"{"ports": [{"port": 80}]}"#;
        let begin = [
            Event::Listing(SERVICES),
            service("a", ports),
            service("b", ports),
        ];
        take(&mut state, begin);
        assert!(state.missing().contains(&SERVICES), "the list is not read");
        take(&mut state, [Event::Listed(SERVICES)]);
        assert!(!state.missing().contains(&SERVICES));
        // Another list after a gap: as before but for `a`.
        let again = [Event::Listing(SERVICES), service("b", ports)];
        assert_eq!(take(&mut state, again), (vec![], vec![]));
        let (set, removed) = take(&mut state, [Event::Listed(SERVICES)]);
        assert_eq!((set, removed), (vec![], vec!["Service n/a".to_owned()]));
        // An object that comes and goes between two reports is not reported.
        let key = || Key::new("n", "c");
        let both = [service("c", ports), Event::Gone(SERVICES, key())];
        assert_eq!(take(&mut state, both), (vec![], vec![]));
    }

    #[test]
    fn a_kind_that_is_missing_is_reported_until_it_is_listed_again() {
        let mut state = ClusterState::default();
        let ports = r#"{"ports": [{"port": 80}]}"#;
        let list = || {
            [
                Event::Listing(SERVICES),
                service("a", ports),
                Event::Listed(SERVICES),
            ]
        };
        take(&mut state, list());
        for _ in 0..2 {
            state.take_in(Event::Missing(SERVICES));
        }
        let observed = state.report();
        assert!(observed.delta.is_empty());
        let errors = observed.errors.unwrap();
        assert_eq!(errors.len(), 1);
        assert!(
            errors[0]
                .to_string()
                .starts_with("services: the API server")
        );
        state.take_in(Event::Missing(SERVICES));
        assert!(state.report().is_empty());
        for event in list() {
            state.take_in(event);
        }
        assert_eq!(state.report().errors, Some(Vec::new()));
    }

    #[test]
    fn an_unreadable_object_stays_in_force_and_is_reported() {
        let mut state = ClusterState::default();
        take(&mut state, [service("a", r#"{"ports": [{"port": 80}]}"#)]);
        state.take_in(service("a", "3"));
        let observed = state.report();
        assert!(observed.delta.is_empty(), "{observed:?}");
        let errors = observed.errors.unwrap();
        assert!(
            errors[0].to_string().starts_with("Service n/a: spec: "),
            "{}",
            errors[0]
        );
        assert!(matches!(errors[0].about, Some(About::Unreadable(_))));
        state.take_in(service("a", r#"{"ports": [{"port": 81}], "x": 1}"#));
        let observed = state.report();
        assert_eq!(observed.delta.set.len(), 1);
        let errors = observed.errors.unwrap();
        assert!(
            matches!(errors[0].about, Some(About::LeftOut(_))),
            "{errors:?}"
        );
        state.take_in(Event::Gone(SERVICES, Key::new("n", "a")));
        assert_eq!(state.report().errors, Some(Vec::new()));
    }

    #[test]
    fn the_status_of_an_object_says_whether_its_newest_version_is_read() {
        let mut state = ClusterState::default();
        let id = ObjectId {
            kind: Kind::BackendPolicy,
            key: Key::new("n", "p"),
        };
        let policy = |spec: &str| {
            let mut event = manifest(Kind::BackendPolicy, "p", spec);
            if let Event::Set(_, _, Decoded::Manifest { status, .. }) = &mut event {
                *status = Some(serde_json::json!({}));
            }
            event
        };
        let valid = r#"{"targetRefs": [{"group": "", "kind": "Service", "name": "s"}], "connectTimeout": "1s"}"#;
        for (spec, is_read) in [(valid, true), ("3", false), (valid, true)] {
            state.take_in(policy(spec));
            assert_eq!(state.statuses.unread(&id).is_none(), is_read, "{spec}");
        }
    }

    /// Between two lists a pod may be deleted and made again elsewhere, under its name.
    #[test]
    fn a_pod_that_is_on_another_node_is_on_that_alone() {
        let mut state = ClusterState::default();
        take(&mut state, [pod_on("n1", "w", "10.0.0.1")]);
        take(&mut state, [pod_on("n2", "w", "10.0.0.2")]);
        let nodes: Vec<_> = state.pods_on.keys().map(String::as_str).collect();
        assert_eq!(nodes, ["n2"]);
        let gone = Event::Gone(WatchedKind::Pod, Key::new("n", "w"));
        take(&mut state, [gone]);
        assert!(state.pods_on.is_empty());
    }

    #[test]
    fn another_generation_of_the_same_is_reported() {
        let mut state = ClusterState::default();
        let of_generation = |generation: i64| {
            let Event::Set(kind, key, Decoded::Manifest { object, status, .. }) =
                service("a", r#"{"ports": [{"port": 80}]}"#)
            else {
                panic!("no manifest")
            };
            let details = ClusterDetails {
                generation: Some(generation),
                left_out: Vec::new(),
            };
            Event::Set(
                kind,
                key,
                Decoded::Manifest {
                    object,
                    details,
                    status,
                },
            )
        };
        for generation in [1, 2] {
            state.take_in(of_generation(generation));
            let delta = state.report().delta;
            assert_eq!(delta.set[0].1.generation(), Some(generation));
        }
        state.take_in(of_generation(2));
        assert!(state.report().is_empty());
    }

    #[test]
    fn a_pod_takes_its_node_s_locality_and_the_place_of_a_workload_of_its_name() {
        let mut state = ClusterState::default();
        let found = |state: &ClusterState| match state.workload(&workload(&Key::new("n", "w"))) {
            Some(it) => {
                let zone = it.locality.as_ref().map(|it| it.zone.clone());
                (it.addresses[0].to_string(), zone.unwrap_or_default())
            }
            None => Default::default(),
        };
        let pair = |ip: &str, zone: &str| (ip.to_owned(), zone.to_owned());
        take(&mut state, [pod("w", "10.0.0.1")]);
        assert_eq!(found(&state), pair("10.0.0.1", ""));
        let (set, _) = take(&mut state, [zone("z1")]);
        assert_eq!(set, ["Workload n/w (Pod in the cluster)"]);
        assert_eq!(found(&state), pair("10.0.0.1", "z1"));

        let machine = || manifest(Kind::Workload, "w", r#"{"addresses": ["10.0.0.2"]}"#);
        state.take_in(machine());
        let observed = state.report();
        assert!(observed.delta.is_empty());
        assert!(matches!(
            observed.errors.unwrap()[0].about,
            Some(About::Duplicate(_))
        ));
        let (set, _) = take(
            &mut state,
            [Event::Gone(WatchedKind::Pod, Key::new("n", "w"))],
        );
        assert_eq!(set, ["Workload n/w (Workload in the cluster)"]);
        assert_eq!(found(&state), pair("10.0.0.2", ""));
        assert!(state.errors.is_empty() && state.pods_on.is_empty());
        take(&mut state, [pod("w", "10.0.0.1")]);
        assert_eq!(found(&state), pair("10.0.0.1", "z1"));
        // The Workload goes, the pod stays.
        let (set, removed) = take(&mut state, [Event::Gone(WORKLOADS, Key::new("n", "w"))]);
        assert_eq!((set, removed), (vec![], vec![]));
        assert!(state.errors.is_empty());
    }
}
