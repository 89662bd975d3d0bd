//! Active health checks: each endpoint of a cluster that has some is asked, again and again, whether
//! it is well, and the cluster's balance follows. On the control thread; workers only read the flags.
//!
//! - [`HealthChecker`]: follows the clusters and their endpoints, with a task for each host
//! - `cluster`: the hosts of one cluster; `host`: the task of one; `session`: the state machine of results (no I/O); `event`: the event log
//! - `check`: one check; `exchange`: its request and answer by HTTP; `grpc`: those of gRPC
//! - `connection`: dialled as the cluster's own, kept for the next check
#![cfg_attr(
    not(test),
    deny(
        clippy::arithmetic_side_effects,
        clippy::expect_used,
        clippy::indexing_slicing,
        clippy::panic,
        clippy::string_slice,
        clippy::unreachable,
        clippy::unwrap_used
    )
)]

mod check;
mod cluster;
mod connection;
mod event;
mod exchange;
mod grpc;
mod host;
pub mod session;

use std::collections::HashMap;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use persistent::Map;
use tokio::sync::{Notify, Semaphore, watch};
use tokio::task::JoinSet;

use self::cluster::{CheckedCluster, Tasks};
use self::connection::CheckDialler;
use self::host::Turns;
use crate::config::Name;
use crate::dispatcher::buffer::Pool;
use crate::dispatcher::timer::{TimerFd, Timers};
use crate::snapshot::Store;
use crate::tls::{Handshaker, STEPS_PER_PASS};
use crate::upstream::cluster::Cluster;
use crate::upstream::connect::Dialler;

/// The least time between two rounds: many results make one change of a balance.
const ROUND: Duration = Duration::from_millis(10);

/// How much the checks of all clusters may hold.
#[derive(Clone, Copy, Debug)]
pub struct CheckLimits {
    /// Checks at once, each with a connection; others wait for their turn.
    pub at_once: usize,
    /// Connections that are kept for the next check; others are closed after theirs.
    pub kept: usize,
}

/// See the module. To be run on a thread whose runtime has local tasks.
pub struct HealthChecker {
    store: Arc<Store>,
    timer_fd: TimerFd,
    tasks: Tasks,
    clusters: HashMap<Name, CheckedCluster>,
    /// Changes when the first results of a cluster are no longer awaited.
    warmed: watch::Sender<()>,
}

/// The wait for the first results of new clusters.
#[derive(Clone)]
pub struct FirstResults {
    store: Arc<Store>,
    warmed: watch::Receiver<()>,
}

impl FirstResults {
    /// Whether some cluster that has endpoints waits for them.
    pub fn are_awaited(&self) -> bool {
        let snapshot = self.store.borrow();
        let mut clusters = snapshot.clusters.values();
        clusters.any(|cluster| cluster.is_warming() && cluster.endpoints.load().ready)
    }

    /// Waits until none does. False: that took longer than `limit`.
    pub async fn wait(&self, limit: Duration) -> bool {
        let mut warmed = self.warmed.clone();
        let waiting = async { while self.are_awaited() && warmed.changed().await.is_ok() {} };
        tokio::time::timeout(limit, waiting).await.is_ok()
    }
}

impl HealthChecker {
    /// # Errors
    /// When the kernel has no timer left.
    pub fn new(store: Arc<Store>, limits: CheckLimits) -> io::Result<Self> {
        let buffers = Pool::default();
        let timers = Timers::new();
        Ok(Self {
            store,
            timer_fd: TimerFd::new()?,
            tasks: Tasks {
                dialler: CheckDialler {
                    dialler: Dialler {
                        tls: Handshaker::new(buffers.clone(), STEPS_PER_PASS),
                        timers,
                    },
                    buffers,
                    places: Arc::new(Semaphore::new(limits.kept)),
                },
                turns: Rc::new(Turns {
                    checks: Semaphore::new(limits.at_once),
                    changed: Notify::new(),
                }),
                running: JoinSet::new(),
                hosts: HashMap::new(),
            },
            clusters: HashMap::new(),
            warmed: watch::channel(()).0,
        })
    }

    /// By which first results are waited for.
    pub fn first_results(&self) -> FirstResults {
        FirstResults {
            store: self.store.clone(),
            warmed: self.warmed.subscribe(),
        }
    }

    /// Checks the clusters of the store for as long as it is there. May be called again after a panic:
    /// what is known of hosts stands in their own state.
    pub async fn run(&mut self) {
        let timers = self.tasks.dialler.dialler.timers.clone();
        self.clusters.clear();
        self.tasks.running.abort_all();
        let Self {
            store,
            timer_fd,
            tasks,
            clusters,
            warmed,
        } = self;
        let following = follow(store, tasks, clusters, warmed, &timers);
        tokio::select! {
            () = timers.drive(timer_fd) => {}
            () = following => {}
        }
    }
}

async fn follow(
    store: &Store,
    tasks: &mut Tasks,
    clusters: &mut HashMap<Name, CheckedCluster>,
    warmed: &watch::Sender<()>,
    timers: &Timers,
) {
    let mut changes = store.subscribe();
    let mut known = Map::default();
    let turns = tasks.turns.clone();
    loop {
        let before = std::mem::replace(&mut known, store.borrow().clusters.clone());
        take_over(clusters, &before, &known);
        drop(before);
        let now = timers.now();
        for (name, entry) in clusters.iter_mut() {
            if entry.round(name, tasks, now) {
                warmed.send_replace(());
            }
        }
        let warm_by = clusters.values().filter_map(CheckedCluster::warm_by).min();
        let endpoints = clusters.values().next().map(CheckedCluster::changes);
        let timer = timers.timer();
        if let Some(at) = warm_by {
            timer.set_at(at);
        }
        let ended = tokio::select! {
            changed = changes.changed() => match changed {
                // What was verified by a trust bundle that is gone is verified again.
                Ok(()) => {
                    tasks.dialler.dialler.tls.reverify().await;
                    None
                }
                Err(_) => return,
            },
            ended = tasks.running.join_next_with_id(), if !tasks.running.is_empty() => ended,
            () = turns.changed.notified() => None,
            () = notified(endpoints.as_deref()) => None,
            () = timer.expired() => None,
        };
        let mut ended = ended;
        while let Some(end) = ended {
            tasks.ended(end, clusters);
            ended = tasks.running.try_join_next_with_id();
        }
        timers.sleep(ROUND).await;
    }
}

async fn notified(changes: Option<&Notify>) {
    match changes {
        Some(changes) => changes.notified().await,
        None => std::future::pending().await,
    }
}

/// Follows the snapshot: what is new or changed is checked anew.
fn take_over(
    entries: &mut HashMap<Name, CheckedCluster>,
    before: &Map<Name, Arc<Cluster>>,
    clusters: &Map<Name, Arc<Cluster>>,
) {
    for (name, cluster) in clusters.changes(before) {
        let known = entries.get(name);
        if let (Some(known), Some(cluster)) = (known, cluster)
            && known.is_of(cluster)
        {
            continue;
        }
        entries.remove(name);
        if let Some(entry) = cluster.and_then(CheckedCluster::new) {
            entries.insert(name.clone(), entry);
        }
    }
}
