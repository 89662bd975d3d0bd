//! The hosts of one cluster that are checked, each by a task.

use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use tokio::task::{AbortHandle, Id, JoinError, JoinSet};

use super::check::Checked;
use super::connection::CheckDialler;
use super::host::{ClusterState, HostTask, Turns};
use crate::config::Name;
use crate::config::cluster::Transport;
use crate::config::health::HealthCheck;
use crate::upstream::checks::ClusterChecks;
use crate::upstream::cluster::Cluster;
use crate::upstream::endpoint::Endpoint;
use crate::upstream::health::HealthFlags;

/// What a cluster's first results may take beyond the time-out of its checks.
const SLACK: Duration = Duration::from_secs(1);
/// The longest that a cluster's first results are waited for.
const LONGEST_WARMING: Duration = Duration::from_secs(30);

/// The hosts' tasks, and what they are made with.
pub struct Tasks {
    pub dialler: CheckDialler,
    pub turns: Rc<Turns>,
    pub running: JoinSet<()>,
    /// Whose each task is.
    pub hosts: HashMap<Id, (Name, HostKey)>,
}

/// The address of a host's state, which stays the same over updates.
pub type HostKey = usize;

/// See the module.
pub struct CheckedCluster {
    cluster: Arc<Cluster>,
    config: Arc<HealthCheck>,
    checks: Arc<ClusterChecks>,
    state: Rc<ClusterState>,
    /// Of the endpoints that were looked at.
    version: Option<u64>,
    hosts: HashMap<HostKey, HostEntry>,
    /// When its first results are not waited for any longer.
    warm_by: Option<Instant>,
}

struct HostEntry {
    endpoint: Arc<Endpoint>,
    reported: Rc<Notify>,
    task: AbortHandle,
}

impl HostEntry {
    fn flags(&self) -> HealthFlags {
        self.endpoint.state.health.get()
    }
}

impl Drop for HostEntry {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn key(endpoint: &Endpoint) -> HostKey {
    Arc::as_ptr(&endpoint.state).addr()
}

impl CheckedCluster {
    /// `None`: it has no health checks.
    pub fn new(cluster: &Arc<Cluster>) -> Option<Self> {
        Some(Self {
            config: cluster.health.clone()?,
            checks: cluster.checks.clone()?,
            cluster: cluster.clone(),
            state: Rc::default(),
            version: None,
            hosts: HashMap::new(),
            warm_by: None,
        })
    }

    pub fn is_of(&self, cluster: &Arc<Cluster>) -> bool {
        Arc::ptr_eq(&self.cluster, cluster)
    }

    /// Notified when there is something to look at; one for all clusters.
    pub fn changes(&self) -> Arc<Notify> {
        self.checks.changes().clone()
    }

    /// When its first results are not waited for any longer; `None`: they are not, or it has no
    /// endpoints that may give them.
    pub fn warm_by(&self) -> Option<Instant> {
        self.warm_by
    }

    /// Looks at what has changed since the last round. True: its first results are no longer awaited.
    pub fn round(&mut self, name: &Name, tasks: &mut Tasks, now: Instant) -> bool {
        let mut changed = self.state.changed.take();
        if changed {
            self.cluster.refresh();
        }
        let set = self.cluster.endpoints.load_full();
        if self.version != Some(set.version) && self.is_ready() {
            self.version = Some(set.version);
            self.replace_hosts(name, tasks, set.all());
            changed = true;
        }
        if self.checks.take_reports() {
            let hosts = self.hosts.values();
            for host in hosts.filter(|host| host.flags().is_reported()) {
                host.reported.notify_one();
            }
        }
        if changed {
            self.count();
        }
        self.warm(set.ready, now)
    }

    /// Whether certificates that its transports need are there. The store notifies when they come.
    fn is_ready(&self) -> bool {
        let transports = self.cluster.transport.iter();
        transports
            .map(|entry| &entry.transport)
            .all(|transport| match transport {
                Transport::RawBuffer => true,
                Transport::Tls(context) => context.is_ready(),
            })
    }

    fn count(&self) {
        let count = |counts: fn(HealthFlags) -> bool| {
            let hosts = self.hosts.values();
            let count = hosts.filter(|host| counts(host.flags())).count();
            i64::try_from(count).unwrap_or(i64::MAX)
        };
        let metrics = &self.checks.metrics;
        metrics.healthy.set(count(|flags| !flags.is_failed()));
        metrics.degraded.set(count(HealthFlags::is_degraded));
    }

    /// A new cluster is picked from once its hosts have had a result each, or enough time. True: that
    /// is now.
    fn warm(&mut self, has_endpoints: bool, now: Instant) -> bool {
        if !self.checks.is_warming() || !has_endpoints {
            self.warm_by = None;
            return false;
        }
        let limit = self
            .config
            .timeout
            .saturating_add(self.config.jitter.initial);
        let limit = limit.saturating_add(SLACK).min(LONGEST_WARMING);
        let until = now.checked_add(limit).unwrap_or(now);
        let warm_by = *self.warm_by.get_or_insert(until);
        let mut hosts = self.hosts.values();
        let are_known = self.version.is_some() && hosts.all(|host| !host.flags().is_awaited());
        if !are_known && now < warm_by {
            return false;
        }
        self.checks.set_warm();
        self.warm_by = None;
        true
    }

    /// Ends the checks of hosts that are gone, begins those of new ones. What is checked as before
    /// goes on.
    fn replace_hosts<'a>(
        &mut self,
        name: &Name,
        tasks: &mut Tasks,
        endpoints: impl Iterator<Item = &'a Arc<Endpoint>>,
    ) {
        let mut before = std::mem::take(&mut self.hosts);
        for endpoint in endpoints.filter(|endpoint| endpoint.is_checkable()) {
            let known = before.remove(&key(endpoint));
            let known = known.filter(|known| is_checked_alike(&known.endpoint, endpoint));
            let entry = match known {
                Some(mut known) => {
                    known.endpoint = endpoint.clone();
                    known
                }
                None => self.begin(name, tasks, endpoint, false),
            };
            self.hosts.insert(key(endpoint), entry);
        }
    }

    fn begin(
        &self,
        name: &Name,
        tasks: &mut Tasks,
        endpoint: &Arc<Endpoint>,
        is_again: bool,
    ) -> HostEntry {
        let reported = Rc::new(Notify::new());
        let task = HostTask {
            checked: Checked {
                cluster: self.cluster.clone(),
                config: self.config.clone(),
                endpoint: endpoint.clone(),
                dialler: tasks.dialler.clone(),
            },
            turns: tasks.turns.clone(),
            state: self.state.clone(),
            reported: reported.clone(),
            is_again,
        };
        let timers = &tasks.dialler.dialler.timers;
        let running = timers.with_cached_clock(task.run());
        let task = tasks.running.spawn_local(running);
        tasks.hosts.insert(task.id(), (name.clone(), key(endpoint)));
        HostEntry {
            endpoint: endpoint.clone(),
            reported,
            task,
        }
    }
}

impl Tasks {
    /// A task has ended: its host is gone, or it panicked, and begins again.
    pub fn ended(
        &mut self,
        end: Result<(Id, ()), JoinError>,
        clusters: &mut HashMap<Name, CheckedCluster>,
    ) {
        let id = match &end {
            Ok((id, ())) => *id,
            Err(error) => error.id(),
        };
        let Some((name, key)) = self.hosts.remove(&id) else {
            return;
        };
        let Some(entry) = clusters.get_mut(&name) else {
            return;
        };
        let host = entry.hosts.get(&key);
        let Some(host) = host.filter(|host| host.task.id() == id) else {
            return;
        };
        let (cluster, address) = (&name, host.endpoint.address);
        tracing::error!(%cluster, %address, "a health check panicked; the host is checked again");
        let endpoint = host.endpoint.clone();
        let again = entry.begin(&name, self, &endpoint, true);
        entry.hosts.insert(key, again);
    }
}

/// Whether the checks of both are the same.
fn is_checked_alike(a: &Endpoint, b: &Endpoint) -> bool {
    (a.address, a.transport, a.tunnel_port) == (b.address, b.transport, b.tunnel_port)
        && a.check == b.check
}
