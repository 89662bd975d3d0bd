//! Validated resources → compiler → next snapshot → store; answers to the data path.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::cache::{Cache, Change, DemandResult, Now, Validate, Validated};
use super::client::Apply;
use super::resource_type::{Key, ResourceType};
use crate::config::cidr::Cidr;
use crate::config::compile::{Compiled, Compiler, References, SnapshotStep, name};
use crate::config::demand::{OnDemandRequest, OnDemandResource, OnDemandResponse};
use crate::config::name::NameRecords;
use crate::health::FirstResults;
use crate::snapshot::Store;
use crate::upstream::dns::{self, Resolver};

/// An on-demand resource unused for so long is evicted.
const IDLE: Duration = Duration::from_secs(1800);

/// What is done with addresses that the control plane does not have.
#[derive(Clone, Debug, Default)]
pub struct Egress {
    /// They may be passed through; else they are refused.
    pub passthrough: bool,
    /// Where every address is the mesh's own: never passed through unknown.
    pub mesh: Vec<Cidr>,
}

/// An accepted resource.
#[derive(Clone)]
pub enum Accepted {
    Compiled(Compiled),
    Name(Arc<NameRecords>),
}

/// See the module. Lives on the control thread, the only writer of the store.
pub struct Applier {
    compiler: Compiler,
    store: Arc<Store>,
    /// The bootstrap's own resources, which dynamic ones do not replace.
    statics: HashSet<Key>,
    /// Static listeners that wait for the first configuration.
    held: Vec<SnapshotStep>,
    egress: Egress,
    resolver: Resolver,
    /// By which the first results of health checks are waited for.
    checks: Option<FirstResults>,
    names: HashMap<String, Arc<NameRecords>>,
    /// Connections of on-demand listeners when last looked at, and since when unchanged.
    usage: HashMap<Key, (u64, Instant)>,
}

/// Names in `references` as keys.
pub(crate) fn keys(references: References) -> Vec<Key> {
    let References {
        routes,
        clusters,
        endpoints,
        secrets,
        initial_fetch_timeout: _,
    } = references;
    let of = |kind: ResourceType, names: std::collections::BTreeSet<crate::config::Name>| {
        names.into_iter().map(move |name| Key::new(kind, &*name))
    };
    of(ResourceType::Route, routes)
        .chain(of(ResourceType::Cluster, clusters))
        .chain(of(ResourceType::Endpoint, endpoints))
        .chain(of(ResourceType::Secret, secrets))
        .collect()
}

impl Applier {
    pub fn new(
        compiler: Compiler,
        store: Arc<Store>,
        statics: HashSet<Key>,
        held: Vec<SnapshotStep>,
        egress: Egress,
        resolver: Resolver,
    ) -> Self {
        Applier {
            compiler,
            store,
            statics,
            held,
            egress,
            resolver,
            checks: None,
            names: HashMap::new(),
            usage: HashMap::new(),
        }
    }

    /// Has the first listeners wait for the first results of active health checks.
    #[must_use]
    pub fn after_checks(mut self, checks: FirstResults) -> Self {
        self.checks = Some(checks);
        self
    }

    fn compile(
        &self,
        kind: ResourceType,
        name: &str,
        body: &Bytes,
    ) -> Result<Validated<Accepted>, String> {
        let compiled = self
            .compiler
            .compile(kind.type_url(), body, &self.store.load())
            .map_err(|error| error.to_string())?;
        let references = compiled.references();
        let initial_fetch_timeout = references.initial_fetch_timeout;
        let mut refs = keys(references);
        // Static resources of the bootstrap are not subscribed to.
        refs.retain(|key| !self.statics.contains(key));
        Ok(Validated {
            name: match &compiled {
                // A workload has as many names as addresses; it was asked for by one of them.
                Compiled::Workload(_, addresses, _) if answers_to(name, addresses) => {
                    name.to_owned()
                }
                compiled => compiled.name().to_string(),
            },
            refs,
            initial_fetch_timeout,
            value: Accepted::Compiled(compiled),
        })
    }

    /// An address of the mesh must not be taken for one outside of it.
    fn unknown_listener(&self, address: IpAddr, outcome: DemandResult) -> OnDemandResponse {
        let in_mesh = self.egress.mesh.iter().any(|range| range.contains(address));
        match outcome {
            _ if in_mesh || !self.egress.passthrough => OnDemandResponse::Unavailable,
            DemandResult::Absent => OnDemandResponse::Absent,
            // Whether an address is outside the mesh is known only where the mesh's ranges are
            // configured.
            _ if self.egress.mesh.is_empty() => OnDemandResponse::Unavailable,
            _ => OnDemandResponse::Absent,
        }
    }

    /// The step to the next snapshot that a change makes.
    fn step(&mut self, change: Change<Accepted>) -> Option<SnapshotStep> {
        match change {
            Change::Upsert(key, Accepted::Compiled(Compiled::Workload(_, addresses, workload))) => {
                let name = key.name.as_str().into();
                Some(SnapshotStep::Set(Compiled::Workload(
                    name, addresses, workload,
                )))
            }
            Change::Upsert(_, Accepted::Compiled(compiled)) => Some(SnapshotStep::Set(compiled)),
            Change::Upsert(key, Accepted::Name(records)) => {
                self.names.insert(key.name, records);
                None
            }
            Change::Remove(key) if key.kind == ResourceType::Name => {
                self.names.remove(&key.name);
                None
            }
            Change::Remove(key) => Some(SnapshotStep::Remove(
                key.kind.type_url(),
                key.name.as_str().into(),
            )),
        }
    }
}

fn answers_to(name: &str, addresses: &[IpAddr]) -> bool {
    name.parse()
        .is_ok_and(|address| addresses.contains(&address))
}

fn validate_name(body: &[u8]) -> Result<Validated<Accepted>, String> {
    let (host, records) = name::name(body)?;
    Ok(Validated {
        name: host,
        value: Accepted::Name(Arc::new(records)),
        refs: Vec::new(),
        initial_fetch_timeout: None,
    })
}

impl Validate for Applier {
    type Value = Accepted;

    fn validate(
        &mut self,
        kind: ResourceType,
        name: &str,
        body: &Bytes,
    ) -> Result<Validated<Accepted>, String> {
        let validated = match kind {
            ResourceType::Name => validate_name(body),
            kind => self.compile(kind, name, body),
        }?;
        if self
            .statics
            .contains(&Key::new(kind, validated.name.as_str()))
        {
            return Err("name: the bootstrap has a static resource of this name".to_owned());
        }
        Ok(validated)
    }
}

impl Apply for Applier {
    fn initialised(&mut self) -> bool {
        let held = self.held.clone();
        let published = !held.is_empty() && self.compiler.publish(&self.store, held);
        // Cleared only now: if publishing panics, it is tried again.
        self.held.clear();
        published
    }

    fn warm(&self, changes: &[Change<Accepted>], first: bool) -> impl Future<Output = ()> + Send {
        let current = self.store.load();
        let clusters: Vec<_> = changes
            .iter()
            .filter_map(|change| match change {
                Change::Upsert(_, Accepted::Compiled(Compiled::Cluster(cluster))) => {
                    let previous = current.clusters.get(&cluster.name).cloned();
                    Some((cluster.clone(), previous))
                }
                _ => None,
            })
            .collect();
        let limit = if first { dns::FIRST } else { dns::LATER };
        let resolver = self.resolver.clone();
        async move { resolver.warm(clusters, limit).await }
    }

    fn awaits_checks(&self, changes: &[Change<Accepted>]) -> bool {
        let warms = |change: &Change<Accepted>| match change {
            Change::Upsert(_, Accepted::Compiled(Compiled::Cluster(new))) => new.is_warming(),
            _ => false,
        };
        let published = self.checks.as_ref().is_some_and(FirstResults::are_awaited);
        published || changes.iter().any(warms)
    }

    async fn checked(&self) {
        if let Some(checks) = &self.checks {
            checks.wait(dns::FIRST).await;
        }
    }

    async fn listening(&self) {
        self.store.all_applied().await;
    }

    fn publish(&mut self, changes: Vec<Change<Accepted>>) -> bool {
        let steps: Vec<SnapshotStep> = changes
            .into_iter()
            .filter_map(|change| self.step(change))
            .collect();
        let listeners = steps.iter().any(SnapshotStep::is_of_socket);
        if !steps.is_empty() {
            self.compiler.publish(&self.store, steps);
        }
        listeners
    }

    fn key(&self, wanted: &OnDemandRequest) -> Key {
        match &wanted.what {
            OnDemandResource::Listener(address) => {
                Key::new(ResourceType::Listener, format!("outbound/{address}"))
            }
            OnDemandResource::Workload(address) => {
                Key::new(ResourceType::Workload, address.to_string())
            }
            OnDemandResource::Name(name) => Key::new(ResourceType::Name, name.as_str()),
        }
    }

    fn answer(&self, wanted: OnDemandRequest, outcome: DemandResult) {
        let answer = match (&wanted.what, outcome) {
            (OnDemandResource::Name(name), DemandResult::Found) => match self.names.get(name) {
                Some(records) => OnDemandResponse::Name(records.clone()),
                None => OnDemandResponse::Absent,
            },
            (_, DemandResult::Found) => OnDemandResponse::Found,
            (OnDemandResource::Listener(address), outcome) => {
                self.unknown_listener(address.ip(), outcome)
            }
            (_, DemandResult::Absent) => OnDemandResponse::Absent,
            (_, DemandResult::Unavailable) => OnDemandResponse::Unavailable,
        };
        // The connection that asked may be gone.
        let _ = wanted.answer.send(answer);
    }

    fn idle(&mut self, cache: &Cache<Accepted>, now: Now) -> Vec<Key> {
        let Some(before) = now.instant.checked_sub(IDLE) else {
            return Vec::new();
        };
        let mut idle = cache.idle_on_demand(ResourceType::Name, before);
        idle.extend(cache.idle_on_demand(ResourceType::Workload, before));
        let listeners = cache.idle_on_demand(ResourceType::Listener, before);
        self.usage.retain(|key, _| listeners.contains(key));
        let snapshot = self.store.load();
        for key in listeners {
            let Some(listener) = snapshot.listeners.get(key.name.as_str()) else {
                continue;
            };
            let metrics = &listener.def.metrics;
            let count = metrics.connections.get();
            let fresh = (count, now.instant);
            let seen = self.usage.entry(key.clone()).or_insert(fresh);
            if seen.0 != count || metrics.active.get() > 0 {
                *seen = fresh;
            } else if seen.1 <= before {
                idle.push(key);
            }
        }
        idle
    }
}
