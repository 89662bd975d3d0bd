//! The Kubernetes API as a source: the objects that a folder may hold, and Pods, which are the
//! workloads of a cluster.
//!
//! - [`connect`]: kubeconfig, or a pod's service account; [`kinds`]: what is watched, in which versions
//! - `watch`: the objects of one kind, listed and watched; [`decode`]: stripped while they are decoded
//! - `pod`: a Pod into a Workload; [`lenient`]: manifests with invalid parts; `removed`: where the others
//!   stood; `named`: the ConfigMaps that policies name
//! - `state`: the objects that were reported, and what has changed since
//! - [`status`]: conditions of objects, written into their status

pub mod connect;
pub mod decode;
pub mod kinds;
pub mod lenient;
mod named;
mod pod;
mod removed;
mod state;
pub mod status;
mod watch;

use std::collections::HashMap;
use std::time::Duration;

use kube::Client;
use tokio::sync::mpsc;
use tokio::task::{self, AbortHandle, JoinSet};
use tokio::time::{Instant, timeout_at};

use self::kinds::WatchedKind;
use self::state::ClusterState;
use self::status::Statuses;
use self::watch::Event;
use super::{Observed, Source, SourceError};
use crate::model::manifest::object::Key;
use crate::model::manifest::values::Cidr;

/// When no event has come for this long, the change is taken to be complete.
const QUIET: Duration = Duration::from_millis(20);
/// How often changes are reported while events keep coming.
const LATEST: Duration = Duration::from_millis(250);
/// Events of all kinds that may be queued.
const QUEUE: usize = 1024;
/// How often the log lists the kinds that the first report waits for.
const LOG_EVERY: Duration = Duration::from_secs(10);
/// Pause before a kind is watched again whose task panicked.
const AFTER_PANIC: Duration = Duration::from_secs(1);

/// A cluster. Its first report comes when every kind was listed, however long that takes.
pub struct Cluster {
    name: String,
    machine_ranges: Vec<Cidr>,
    client: Client,
    state: ClusterState,
    events: mpsc::Receiver<Event>,
    sender: mpsc::Sender<Event>,
    tasks: JoinSet<()>,
    /// What a task watches.
    watching: HashMap<task::Id, WatchTask>,
    config_maps: HashMap<Key, AbortHandle>,
    complete: bool,
}

#[derive(Clone, Debug)]
enum WatchTask {
    Kind(WatchedKind),
    ConfigMap(Key),
}

impl Cluster {
    /// Begins to list every kind. `name`: of the cluster, in logs.
    pub fn new(client: Client, name: impl Into<String>) -> Self {
        let (sender, events) = mpsc::channel(QUEUE);
        let mut cluster = Cluster {
            name: name.into(),
            machine_ranges: Vec::new(),
            client,
            state: ClusterState::default(),
            events,
            sender,
            tasks: JoinSet::new(),
            watching: HashMap::new(),
            config_maps: HashMap::new(),
            complete: false,
        };
        for watched in WatchedKind::all() {
            cluster.watch(watched, Duration::ZERO);
        }
        cluster
    }

    /// The ranges in which Workloads that are no Pods may have addresses; none without this.
    #[must_use]
    pub fn machines_in(mut self, ranges: Vec<Cidr>) -> Self {
        self.machine_ranges = ranges;
        self
    }

    pub fn machine_ranges(&self) -> &[Cidr] {
        &self.machine_ranges
    }

    /// What its objects' status says.
    pub fn statuses(&self) -> Statuses {
        self.state.statuses.clone()
    }

    pub fn client(&self) -> Client {
        self.client.clone()
    }

    fn watch(&mut self, watched: WatchedKind, after: Duration) {
        let (client, sender) = (self.client.clone(), self.sender.clone());
        let task = self.tasks.spawn(async move {
            tokio::time::sleep(after).await;
            watch::follow(client, watched, sender).await;
        });
        self.watching.insert(task.id(), WatchTask::Kind(watched));
    }

    fn watch_config_map(&mut self, key: Key, after: Duration) {
        let (client, sender) = (self.client.clone(), self.sender.clone());
        let of = key.clone();
        let task = self.tasks.spawn(async move {
            tokio::time::sleep(after).await;
            watch::follow_config_map(client, of, sender).await;
        });
        let watching = WatchTask::ConfigMap(key.clone());
        self.watching.insert(task.id(), watching);
        self.config_maps.insert(key, task);
    }

    /// Takes in an event; watches the ConfigMaps that are named then, and no other.
    fn take_in(&mut self, event: Event) {
        self.state.take_in(event);
        let Some(named) = self.state.named.changed() else {
            return;
        };
        self.config_maps.retain(|key, task| {
            let stays = named.contains(key);
            if !stays {
                self.watching.remove(&task.id());
                task.abort();
            }
            stays
        });
        for key in named {
            if !self.config_maps.contains_key(&key) {
                self.watch_config_map(key, Duration::ZERO);
            }
        }
    }

    /// The next event; a kind whose task ended is watched again.
    async fn event(&mut self) -> Result<Event, SourceError> {
        loop {
            let ended = tokio::select! {
                event = self.events.recv() => return event.ok_or(SourceError::Panicked),
                Some(ended) = self.tasks.join_next_with_id() => ended,
            };
            let id = match &ended {
                Ok((id, ())) => *id,
                Err(error) => error.id(),
            };
            match self.watching.remove(&id) {
                Some(WatchTask::Kind(watched)) => {
                    tracing::error!(kind = %watched, "its watch ended; everything of it is listed again");
                    self.watch(watched, AFTER_PANIC);
                }
                Some(WatchTask::ConfigMap(key)) => {
                    tracing::error!(config_map = %key, "its watch ended; it is read again");
                    self.watch_config_map(key, AFTER_PANIC);
                }
                None => {}
            }
        }
    }

    async fn until_complete(&mut self) -> Result<(), SourceError> {
        let mut log_at = Instant::now() + LOG_EVERY;
        while !self.complete {
            match timeout_at(log_at, self.event()).await {
                Ok(event) => self.take_in(event?),
                Err(_) => {
                    let missing = self.state.missing();
                    let mut missing: Vec<_> = missing.iter().map(WatchedKind::to_string).collect();
                    if !self.state.named.are_looked_for() {
                        missing.push("the configmaps that policies name".to_owned());
                    }
                    tracing::warn!(
                        cluster = self.name,
                        "waiting for the API server to list {}",
                        missing.join(", ")
                    );
                    log_at = Instant::now() + LOG_EVERY;
                }
            }
            // Policies without the certificates that they name would make calls fail.
            let looked_for = self.state.named.are_looked_for();
            self.complete = looked_for && self.state.missing().is_empty();
        }
        Ok(())
    }
}

impl Source for Cluster {
    async fn next(&mut self) -> Result<Observed, SourceError> {
        if !self.complete {
            self.until_complete().await?;
            return Ok(self.state.report());
        }
        loop {
            let event = self.event().await?;
            self.take_in(event);
            let latest = Instant::now() + LATEST;
            while Instant::now() < latest {
                let quiet = Instant::now() + QUIET;
                match timeout_at(quiet.min(latest), self.event()).await {
                    Ok(event) => self.take_in(event?),
                    Err(_) => break,
                }
            }
            let observed = self.state.report();
            if !observed.is_empty() {
                return Ok(observed);
            }
        }
    }

    fn name(&self) -> String {
        self.name.clone()
    }
}
