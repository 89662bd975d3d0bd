//! Periodic work for clusters, on the control thread: DNS resolution, outlier detection intervals,
//! the end of ejections, weights of new endpoints, tables of clusters that balance by hash, and what
//! depends on the local cluster. One task serves each cluster when it is due.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use persistent::Map;
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use super::supervisor::Supervisor;
use crate::config::Name;
use crate::config::cluster::Discovery;
use crate::snapshot::Store;
use crate::upstream::cluster::Cluster;
use crate::upstream::dns::{self, Resolver};

/// The least time between two rounds: intervals are kept to this.
const ROUND: Duration = Duration::from_millis(250);

type Clusters = Map<Name, Arc<Cluster>>;

/// When a cluster is next due.
struct Due {
    cluster: Arc<Cluster>,
    resolve: Option<Instant>,
    /// The last lookup; the next waits for it.
    resolving: Option<JoinHandle<()>>,
    sweep: Option<Instant>,
    /// Endpoints slow-start.
    ramp: Option<Instant>,
}

/// Resolves the names of clusters before listeners that lead to them open.
pub async fn warm(store: &Store, resolver: &Resolver) {
    let snapshot = store.load();
    let clusters = snapshot.clusters.values().cloned();
    resolver
        .warm(clusters.map(|cluster| (cluster, None)), dns::FIRST)
        .await;
}

/// [`run`], again after a panic.
pub async fn keep_running(store: Arc<Store>, resolver: Resolver) {
    let mut supervisor = Supervisor::new("maintenance");
    while supervisor.panicked(run(&store, &resolver)).await {}
}

/// Runs until the store's publisher is gone. Spawn it on the control thread.
pub async fn run(store: &Store, resolver: &Resolver) {
    let mut changes = store.subscribe();
    let mut due: HashMap<Name, Due> = HashMap::new();
    let mut clusters = Map::default();
    loop {
        let before = std::mem::replace(&mut clusters, store.borrow().clusters.clone());
        take_over(&mut due, &before, &clusters, Instant::now());
        drop(before);
        resolver.retain(&names(&due));
        let next = due
            .values()
            .flat_map(|d| [d.resolve, d.sweep, d.ramp])
            .flatten()
            .min();
        let kept = due.values().find(|due| due.cluster.needs_upkeep());
        let rebuild = kept.map(|due| due.cluster.rebuild.clone());
        tokio::select! {
            changed = changes.changed() => if changed.is_err() { return },
            () = sleep_until(next) => {}
            () = notified(rebuild.as_deref()) => {}
        }
        let now = Instant::now();
        for entry in due.values_mut() {
            entry.work(resolver, now);
        }
    }
}

async fn sleep_until(next: Option<Instant>) {
    match next {
        Some(next) => {
            let soonest = Instant::now() + ROUND;
            tokio::time::sleep_until(next.max(soonest).into()).await;
        }
        None => std::future::pending().await,
    }
}

/// A balance has to be computed ([`Cluster::rebuild`]).
async fn notified(rebuild: Option<&Notify>) {
    match rebuild {
        Some(rebuild) => rebuild.notified().await,
        None => std::future::pending().await,
    }
}

/// Follows the snapshot: clusters that are new or changed are due soon.
fn take_over(due: &mut HashMap<Name, Due>, before: &Clusters, clusters: &Clusters, now: Instant) {
    for (name, cluster) in clusters.changes(before) {
        let Some(cluster) = cluster else {
            due.remove(name);
            continue;
        };
        let known = due.get(name);
        if known.is_some_and(|known| Arc::ptr_eq(&known.cluster, cluster)) {
            continue;
        }
        due.remove(name);
        let resolve = matches!(cluster.discovery, Discovery::Dns { .. });
        let sweep = cluster.outlier.as_ref().map(|config| now + config.interval);
        if resolve || sweep.is_some() || cluster.needs_upkeep() {
            let entry = Due {
                cluster: cluster.clone(),
                resolve: resolve.then_some(now),
                resolving: None,
                sweep,
                ramp: None,
            };
            due.insert(name.clone(), entry);
        }
    }
}

/// The names of all DNS clusters.
fn names(due: &HashMap<Name, Due>) -> HashSet<&str> {
    let hosts = due.values().filter_map(|due| match &due.cluster.discovery {
        Discovery::Dns { hosts, .. } => Some(hosts),
        _ => None,
    });
    hosts.flatten().map(|host| &*host.host).collect()
}

impl Due {
    fn work(&mut self, resolver: &Resolver, now: Instant) {
        self.cluster.keep_current();
        self.keep_ramping(now);
        if let (Some(at), Discovery::Dns { refresh, .. }) = (self.resolve, &self.cluster.discovery)
            && at <= now
        {
            self.resolve = Some(now + *refresh);
            if self.resolving.as_ref().is_none_or(JoinHandle::is_finished) {
                let (resolver, cluster) = (resolver.clone(), self.cluster.clone());
                let lookup = async move { resolver.refresh(&cluster, None).await };
                self.resolving = Some(tokio::spawn(lookup));
            }
        }
        if let (Some(at), Some(config)) = (self.sweep, &self.cluster.outlier)
            && at <= now
        {
            self.sweep = Some(now + config.interval);
            self.cluster.sweep_outliers(now, &mut fastrand::Rng::new());
        }
    }

    /// Computes weights while endpoints slow-start, and once after that.
    fn keep_ramping(&mut self, now: Instant) {
        if self.ramp.is_some_and(|at| at <= now) {
            self.cluster.refresh();
            self.ramp = None;
        }
        let interval = self.cluster.ramp_interval();
        self.ramp = interval.map(|interval| self.ramp.unwrap_or(now + interval));
    }
}
