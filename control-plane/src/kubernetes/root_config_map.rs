//! The mesh's root for pods: ConfigMap `anyam-ca-root-cert`, key `ca.crt`, in every namespace whose pods
//! may be injected. Written by the leader, kept as it should be from then on.
//!
//! [`Publication`] decides, without I/O; [`publish`] watches and writes.

use std::collections::{BTreeMap, BTreeSet};
use std::pin::pin;
use std::time::Duration;

use futures_util::StreamExt;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{Patch, PatchParams, PostParams};
use kube::core::PartialObjectMeta;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client};
use tokio::time::{Instant, sleep_until};

use super::call::{CallError, DEADLINE, FailureLog, Right, call, watch_all, watch_named};
use super::{MANAGED_BY, MANAGER, from_now};

/// Of the ConfigMap; a sidecar's volume has it as a file.
const KEY: &str = "ca.crt";

const WATCH_NAMESPACES: Right = Right::new("watch", "namespaces");
const WATCH: Right = Right::new("watch", "configmaps");
const CREATE: Right = Right::new("create", "configmaps");
const PATCH: Right = Right::new("patch", "configmaps");

/// Before a namespace is tried again in which it could not be written.
const AGAIN: Duration = Duration::from_secs(15);
/// Before anything is tried again when the API server does not answer.
const PAUSE: Duration = Duration::from_secs(2);

/// What is published where.
#[derive(Clone, Debug)]
pub struct RootPublication {
    /// The ConfigMap's name.
    pub name: String,
    /// PEM.
    pub root: String,
    /// Namespaces that do not get it.
    pub excluded: Vec<String>,
}

/// What to do in a namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Write {
    Create(String),
    /// It is there, with something else in it.
    Correct(String),
}

impl Write {
    fn namespace(&self) -> &str {
        match self {
            Write::Create(namespace) | Write::Correct(namespace) => namespace,
        }
    }
}

/// Objects of a kind by namespace, as a watch reports them, each with one property.
#[derive(Default)]
struct WatchedObjects {
    all: BTreeMap<String, bool>,
    /// While a list is read: those in it.
    listing: Option<BTreeMap<String, bool>>,
    listed: bool,
}

impl WatchedObjects {
    /// `of`: an object's namespace, and what is kept of it. The namespace that it is about, if one.
    fn take_in<K>(
        &mut self,
        event: watcher::Event<K>,
        of: impl Fn(K) -> (String, bool),
    ) -> Option<String> {
        match event {
            watcher::Event::Init => self.listing = Some(BTreeMap::new()),
            watcher::Event::InitDone => {
                self.all = self.listing.take().unwrap_or_default();
                self.listed = true;
            }
            watcher::Event::InitApply(object) => {
                let (namespace, value) = of(object);
                let listing = self.listing.get_or_insert_default();
                listing.insert(namespace, value);
            }
            watcher::Event::Apply(object) => {
                let (namespace, value) = of(object);
                self.all.insert(namespace.clone(), value);
                return Some(namespace);
            }
            watcher::Event::Delete(object) => {
                let (namespace, _) = of(object);
                self.all.remove(&namespace);
                return Some(namespace);
            }
        }
        None
    }
}

/// State of the ConfigMaps in all namespaces.
struct Publication {
    wanted: RootPublication,
    /// Whether objects can be created in it: not while it is being deleted.
    namespaces: WatchedObjects,
    /// Whether the ConfigMap is as it should be.
    maps: WatchedObjects,
    /// Until when a namespace is left alone, in which it could not be written.
    failed: BTreeMap<String, Instant>,
    /// Written, and not seen yet.
    written: BTreeSet<String>,
}

impl Publication {
    fn new(wanted: RootPublication) -> Self {
        Publication {
            wanted,
            namespaces: WatchedObjects::default(),
            maps: WatchedObjects::default(),
            failed: BTreeMap::new(),
            written: BTreeSet::new(),
        }
    }

    fn namespace(&mut self, event: watcher::Event<PartialObjectMeta<Namespace>>) {
        let of = |object: PartialObjectMeta<Namespace>| {
            let meta = object.metadata;
            let writable = meta.deletion_timestamp.is_none();
            (meta.name.unwrap_or_default(), writable)
        };
        if let Some(namespace) = self.namespaces.take_in(event, of) {
            self.failed.remove(&namespace);
        }
        let Self {
            failed, namespaces, ..
        } = self;
        failed.retain(|namespace, _| namespaces.all.contains_key(namespace));
    }

    fn map(&mut self, event: watcher::Event<ConfigMap>) {
        let root = &self.wanted.root;
        let of = |object: ConfigMap| {
            let found = object.data.as_ref().and_then(|data| data.get(KEY));
            let is_right = found == Some(root);
            (object.metadata.namespace.unwrap_or_default(), is_right)
        };
        let listed = matches!(event, watcher::Event::InitDone);
        if let Some(namespace) = self.maps.take_in(event, of) {
            self.failed.remove(&namespace);
            self.written.remove(&namespace);
        }
        if listed {
            self.written.clear();
        }
    }

    /// What is to be written now. Nothing before both kinds were listed.
    fn due(&self, now: Instant) -> Option<Write> {
        if !self.namespaces.listed || !self.maps.listed {
            return None;
        }
        let wants = |(namespace, writable): (&String, &bool)| {
            let left_alone = !writable
                || self.wanted.excluded.contains(namespace)
                || self.written.contains(namespace)
                || self.failed.get(namespace).is_some_and(|until| *until > now);
            match self.maps.all.get(namespace) {
                _ if left_alone => None,
                Some(true) => None,
                Some(false) => Some(Write::Correct(namespace.clone())),
                None => Some(Write::Create(namespace.clone())),
            }
        };
        self.namespaces.all.iter().find_map(wants)
    }

    /// When something is due again that failed.
    fn next(&self, now: Instant) -> Option<Instant> {
        self.failed
            .values()
            .filter(|until| **until > now)
            .min()
            .copied()
    }
}

/// Keeps the ConfigMap in all namespaces; does not end.
pub async fn publish(client: Client, wanted: RootPublication) {
    let only = watch_named(&wanted.name);
    let namespaces: Api<PartialObjectMeta<Namespace>> = Api::all(client.clone());
    let mut namespaces = pin!(watcher(namespaces, watch_all()).default_backoff());
    let mut maps = pin!(watcher(Api::<ConfigMap>::all(client.clone()), only).default_backoff());
    let mut failures = FailureLog::new("writing the ConfigMap with the mesh's root");
    let mut watching = FailureLog::new("watching namespaces and their ConfigMaps");
    let mut state = Publication::new(wanted);
    loop {
        let mut pause = None;
        while let Some(due) = state.due(Instant::now()) {
            let namespace = due.namespace().to_owned();
            match write(&client, &state.wanted, &due).await {
                Ok(()) => {
                    state.failed.remove(&namespace);
                    state.written.insert(namespace);
                }
                Err(error) => {
                    let again = from_now(AGAIN);
                    if !error.is_answer() {
                        failures.failed(&error);
                        pause = Some(from_now(PAUSE));
                        break;
                    }
                    // What was made or deleted meanwhile will be seen.
                    let passes = error.is_conflict()
                        || error.is_not_found()
                        || error.is_of_ending_namespace();
                    if !passes {
                        failures.failed(&format!("namespace {namespace}: {error}"));
                    }
                    state.failed.insert(namespace, again);
                }
            }
        }
        if pause.is_none() && state.failed.is_empty() {
            failures.succeeded();
        }
        let next = pause.or_else(|| state.next(Instant::now()));
        let wait = async {
            match next {
                Some(next) => sleep_until(next).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = wait => {}
            event = namespaces.next() => match event {
                None => return,
                Some(event) => {
                    if let Some(event) = watched(&mut watching, WATCH_NAMESPACES, event) {
                        state.namespace(event);
                    }
                }
            },
            event = maps.next() => match event {
                None => return,
                Some(event) => {
                    if let Some(event) = watched(&mut watching, WATCH, event) {
                        state.map(event);
                    }
                }
            },
        }
    }
}

/// The event, if it is none of a failure.
fn watched<K>(
    failures: &mut FailureLog,
    right: Right,
    event: watcher::Result<watcher::Event<K>>,
) -> Option<watcher::Event<K>> {
    match event {
        Ok(event) => {
            failures.succeeded();
            Some(event)
        }
        Err(error) => {
            if let Some(error) = CallError::of_watch(right, &error) {
                failures.failed(&error);
            }
            None
        }
    }
}

async fn write(client: &Client, wanted: &RootPublication, due: &Write) -> Result<(), CallError> {
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), due.namespace());
    let data = [(KEY.to_owned(), wanted.root.clone())];
    let manager = Some(MANAGER.to_owned());
    match due {
        Write::Create(_) => {
            let map = ConfigMap {
                metadata: ObjectMeta {
                    name: Some(wanted.name.clone()),
                    labels: Some([(MANAGED_BY.to_owned(), MANAGER.to_owned())].into()),
                    ..ObjectMeta::default()
                },
                data: Some(data.into()),
                ..ConfigMap::default()
            };
            let parameters = PostParams {
                field_manager: manager,
                ..PostParams::default()
            };
            call(CREATE, DEADLINE, maps.create(&parameters, &map)).await?;
        }
        Write::Correct(_) => {
            let parameters = PatchParams {
                field_manager: manager,
                ..PatchParams::default()
            };
            let patch = Patch::Merge(serde_json::json!({"data": BTreeMap::from(data)}));
            call(
                PATCH,
                DEADLINE,
                maps.patch(&wanted.name, &parameters, &patch),
            )
            .await?;
        }
    }
    tracing::info!(
        namespace = due.namespace(),
        "ConfigMap {} has the mesh's root",
        wanted.name
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn publication() -> Publication {
        Publication::new(RootPublication {
            name: "anyam-ca-root-cert".into(),
            root: "root".into(),
            excluded: vec!["kube-system".into()],
        })
    }

    fn namespace(name: &str, ends: bool) -> PartialObjectMeta<Namespace> {
        let mut meta = serde_json::json!({"name": name});
        if ends {
            meta["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
        }
        let object = serde_json::json!({"apiVersion": "v1", "kind": "Namespace", "metadata": meta});
        serde_json::from_value(object).unwrap()
    }

    fn map(namespace: &str, root: &str) -> ConfigMap {
        let object = serde_json::json!({
            "metadata": {"name": "anyam-ca-root-cert", "namespace": namespace},
            "data": {"ca.crt": root},
        });
        serde_json::from_value(object).unwrap()
    }

    fn listed(namespaces: &[(&str, bool)], maps: &[(&str, &str)]) -> Publication {
        let mut state = publication();
        state.namespace(watcher::Event::Init);
        state.map(watcher::Event::Init);
        for (name, ends) in namespaces {
            state.namespace(watcher::Event::InitApply(namespace(name, *ends)));
        }
        for (namespace, root) in maps {
            state.map(watcher::Event::InitApply(map(namespace, root)));
        }
        state.namespace(watcher::Event::InitDone);
        assert_eq!(
            state.due(Instant::now()),
            None,
            "not before both are listed"
        );
        state.map(watcher::Event::InitDone);
        state
    }

    /// Everything that is due, as if each write succeeded.
    fn all_due(state: &mut Publication) -> Vec<Write> {
        let mut all = Vec::new();
        while let Some(due) = state.due(Instant::now()) {
            state.written.insert(due.namespace().to_owned());
            all.push(due);
        }
        all
    }

    #[test]
    fn it_is_written_where_it_is_missing_or_wrong() {
        let namespaces = [
            ("a", false),
            ("b", false),
            ("c", false),
            ("ends", true),
            ("kube-system", false),
        ];
        let mut state = listed(&namespaces, &[("b", "root"), ("c", "other")]);
        let due = all_due(&mut state);
        assert_eq!(due, [Write::Create("a".into()), Write::Correct("c".into())]);
        // Seen as it should be; then deleted, and changed.
        state.map(watcher::Event::Apply(map("a", "root")));
        state.map(watcher::Event::Apply(map("c", "root")));
        assert_eq!(all_due(&mut state), []);
        state.map(watcher::Event::Delete(map("a", "root")));
        state.map(watcher::Event::Apply(map("b", "")));
        let due = all_due(&mut state);
        assert_eq!(due, [Write::Create("a".into()), Write::Correct("b".into())]);
        state.namespace(watcher::Event::Apply(namespace("d", false)));
        assert_eq!(all_due(&mut state), [Write::Create("d".into())]);
    }

    #[test]
    fn a_namespace_in_which_it_cannot_be_written_is_left_alone_for_a_while() {
        let mut state = listed(&[("a", false), ("b", false)], &[]);
        let now = Instant::now();
        state.failed.insert("a".into(), now + AGAIN);
        assert_eq!(state.due(now), Some(Write::Create("b".into())));
        assert_eq!(state.next(now), Some(now + AGAIN));
        assert_eq!(state.due(now + AGAIN), Some(Write::Create("a".into())));
        // Something has changed there.
        state.namespace(watcher::Event::Apply(namespace("a", false)));
        assert_eq!(state.due(now), Some(Write::Create("a".into())));
        state.failed.insert("a".into(), now + AGAIN);
        state.namespace(watcher::Event::Delete(namespace("a", false)));
        assert_eq!(state.next(now), None);
    }

    #[test]
    fn what_a_new_list_lacks_is_gone() {
        let mut state = listed(&[("a", false)], &[("a", "root")]);
        assert_eq!(all_due(&mut state), []);
        state.map(watcher::Event::Init);
        assert_eq!(all_due(&mut state), [], "the old list holds meanwhile");
        state.map(watcher::Event::InitDone);
        assert_eq!(all_due(&mut state), [Write::Create("a".into())]);
    }
}
