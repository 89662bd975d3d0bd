//! The next snapshot: the last one, what changed, and fresh links where something that changed is
//! referred to. Everything else is shared with the last one.
//!
//! Endpoints are not part of it: they are swapped behind their cluster's own pointer, and a change
//! of endpoints alone publishes nothing. Any other change costs what it touches and what refers to
//! that, however large the configuration is.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use persistent::Map;
use xds_proto::type_url;

use super::draft::Draft;
use super::endpoint::Assignment;
use super::resource::Compiled;
use super::step::SnapshotStep;
use super::support::At;
use super::{Compiler, Name};
use crate::config::cluster::Discovery;
use crate::snapshot::Store;
use crate::upstream::cluster::Cluster;
use crate::upstream::endpoint::EndpointSet;
use crate::upstream::endpoints::{bind, rebind};

impl Compiler {
    /// Applies `steps` together and publishes the next snapshot, if it differs: a change of
    /// endpoints alone replaces them behind their clusters. True: published.
    pub fn publish(
        &mut self,
        store: &Store,
        steps: impl IntoIterator<Item = SnapshotStep>,
    ) -> bool {
        let before = store.load();
        let (mut endpoints, mut others) = (Vec::new(), Vec::new());
        for step in steps {
            match step {
                SnapshotStep::Set(Compiled::Endpoints(name, assignment)) => {
                    endpoints.push((name, Some(assignment)));
                }
                SnapshotStep::Remove(type_url::ENDPOINT, name) => endpoints.push((name, None)),
                other => others.push(other),
            }
        }
        if others.is_empty() {
            self.set_all_endpoints(&before.clusters, endpoints);
            return false;
        }
        let removes = others
            .iter()
            .any(|step| matches!(step, SnapshotStep::Remove(..)));
        let mut next = Draft::of(&before);
        for step in others {
            match step {
                SnapshotStep::Set(Compiled::Cluster(new)) => self.set_cluster(&mut next, new),
                SnapshotStep::Set(Compiled::Secret(secret)) => {
                    self.secrets.set(&secret);
                    next.set_secret(secret);
                }
                SnapshotStep::Set(Compiled::Workload(name, addresses, workload)) => {
                    let gone = self.peers.set(name, Arc::clone(&addresses));
                    next.set_workload(&gone, &addresses, &workload);
                }
                SnapshotStep::Set(other) => next.set(other),
                SnapshotStep::Remove(kind, name) => self.remove(&mut next, kind, &name),
            }
        }
        // Last, so that an assignment finds its cluster in whichever order they came.
        self.set_all_endpoints(&next.snapshot.clusters, endpoints);
        next.relink(&self.referrers, &self.counts);
        next.reassign_sockets(&self.referrers, &self.counts);
        let published = next.publish(&before, store, &mut self.referrers, self.drain_time);
        if removes {
            drop(before);
            let snapshot = store.load();
            let secrets = &self.secrets;
            secrets.forget_unused(|name| snapshot.secrets.contains_key(name));
        }
        published
    }

    fn set_cluster(&mut self, next: &mut Draft, cluster: Arc<Cluster>) {
        let previous = next.snapshot.clusters.get(&cluster.name).cloned();
        cluster.limits.set_thresholds(cluster.thresholds);
        self.first_endpoints(&cluster, previous.as_deref());
        self.services.replace(previous.as_deref(), Some(&cluster));
        next.set_cluster(cluster);
    }

    fn remove(&mut self, next: &mut Draft, kind: &str, name: &Name) {
        match kind {
            type_url::LISTENER => next.remove_listener(name),
            type_url::CLUSTER => {
                let previous = next.snapshot.clusters.get(name).cloned();
                self.services.replace(previous.as_deref(), None);
                next.remove_cluster(name);
            }
            type_url::ROUTE => next.remove_route(name),
            // TLS contexts keep their certificates: a lost stream must not end TLS.
            type_url::SECRET => next.remove_secret(name),
            type_url::WORKLOAD => next.remove_workloads(&self.peers.remove(name)),
            _ => {}
        }
    }

    /// Endpoints that a new version of a cluster starts with.
    fn first_endpoints(&mut self, cluster: &Cluster, previous: Option<&Cluster>) {
        let empty = Arc::new(EndpointSet::default());
        let before = previous.map_or(empty, |previous| previous.endpoints.load_full());
        let now = Instant::now();
        match &cluster.discovery {
            Discovery::Static { hosts, policy } => {
                // Checked when the cluster compiled.
                let addresses = hosts.iter().filter_map(|host| {
                    Some(((host.host.parse::<IpAddr>().ok()?, host.port).into(), host))
                });
                cluster.set_endpoints(bind(cluster, addresses, &before, now), *policy);
            }
            Discovery::Eds { service_name } => {
                if let Some(assignment) = self.assignments.get(service_name) {
                    self.counts.bound.inc();
                    bind_assignment(cluster, assignment, &before);
                } else if before.ready && previous.is_some_and(|p| has_service(p, service_name)) {
                    cluster.set_endpoints(rebind(cluster, &before), before.policy);
                }
            }
            // Its names were resolved before it takes over.
            Discovery::Dns { .. } if cluster.endpoints.load().ready => {}
            Discovery::Dns { .. } => {
                let known = previous.is_some_and(|p| matches!(p.discovery, Discovery::Dns { .. }));
                if known && before.ready {
                    cluster.set_endpoints(rebind(cluster, &before), before.policy);
                }
            }
            Discovery::OriginalDst { .. } => {}
        }
    }

    /// `None`: no cluster asks for the assignment any more. As in Envoy, that leaves the endpoints
    /// of the clusters that had it as they are.
    fn set_all_endpoints(
        &mut self,
        clusters: &Map<Name, Arc<Cluster>>,
        assignments: Vec<(Name, Option<Arc<Assignment>>)>,
    ) {
        for (name, assignment) in assignments {
            let Some(assignment) = assignment else {
                self.assignments.remove(&name);
                continue;
            };
            for cluster in self
                .services
                .of(&name)
                .filter_map(|name| clusters.get(name))
            {
                self.counts.bound.inc();
                bind_assignment(cluster, &assignment, &cluster.endpoints.load());
            }
            self.assignments.insert(name, assignment);
        }
    }
}

fn has_service(cluster: &Cluster, service: &str) -> bool {
    matches!(&cluster.discovery, Discovery::Eds { service_name } if **service_name == *service)
}

fn bind_assignment(cluster: &Cluster, assignment: &Assignment, before: &EndpointSet) {
    // The addresses were checked when the assignment compiled.
    if let Ok(hosts) = assignment.addresses(At::root("")) {
        let endpoints = bind(cluster, hosts, before, Instant::now());
        cluster.set_endpoints(endpoints, assignment.policy);
    }
}
