//! Endpoints made for a cluster: transports chosen by metadata, state carried over by address, and
//! whether and how each is checked.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use super::health::FirstHealth;
use super::host::HostState;
use crate::config::cluster::{Discovery, LbEndpoint};
use crate::config::endpoint::HealthStatus;
use crate::upstream::cluster::Cluster;
use crate::upstream::endpoint::{Endpoint, EndpointSet, Priority};

/// Endpoints for `cluster`: transports chosen, state carried over from `before` by address.
pub fn bind<'h>(
    cluster: &Cluster,
    hosts: impl IntoIterator<Item = (SocketAddr, &'h LbEndpoint)>,
    before: &EndpointSet,
    now: Instant,
) -> Vec<Priority> {
    let known: HashMap<SocketAddr, &Arc<Endpoint>> = before
        .all()
        .map(|endpoint| (endpoint.address, endpoint))
        .collect();
    let mut priorities: Vec<Priority> = Vec::new();
    let mut seen = HashSet::new();
    for (address, host) in hosts {
        let priority = host.priority as usize;
        // The same address twice in one priority is one endpoint, as in Envoy.
        if !seen.insert((priority, address)) {
            continue;
        }
        let known = known.get(&address).copied();
        let state = match known {
            Some(endpoint) => endpoint.state.clone(),
            None => Arc::new(HostState::default()),
        };
        // One that was not healthy before is new again.
        let was_healthy = known.is_some_and(|before| before.health == HealthStatus::Healthy);
        if cluster.slow_start.is_some() && !was_healthy {
            state.begin_slow_start(now);
        }
        let endpoint = Endpoint {
            address,
            host_name: host.host_name.clone(),
            weight: host.weight,
            locality: host.locality.clone(),
            locality_weight: host.locality_weight,
            lb_metadata: host.lb_metadata.clone(),
            transport: cluster.transport_for(&host.transport_metadata),
            transport_metadata: host.transport_metadata.clone(),
            tunnel_port: host.tunnel_port,
            hash_key: host.hash_key.clone(),
            health: host.health,
            check: host.check.clone(),
            leaving: false,
            state,
            workload: host.workload.clone(),
        };
        enrol(cluster, &endpoint, known);
        push(&mut priorities, priority, endpoint);
    }
    if keeps_passing(cluster) {
        let present: HashSet<_> = seen.into_iter().map(|(_, address)| address).collect();
        for (priority, group) in before.priorities.iter().enumerate() {
            let gone = group.endpoints.iter();
            let gone = gone.filter(|endpoint| !present.contains(&endpoint.address));
            for endpoint in gone.filter(|endpoint| passes(endpoint)) {
                let kept = Endpoint {
                    leaving: true,
                    ..again(cluster, endpoint)
                };
                push(&mut priorities, priority, kept);
            }
        }
    }
    priorities
}

/// The endpoints `before` had, for a new version of their cluster.
pub fn rebind(cluster: &Cluster, before: &EndpointSet) -> Vec<Priority> {
    let stays = |endpoint: &&Arc<Endpoint>| !endpoint.leaving || keeps_passing(cluster);
    let rebound = |endpoint: &Arc<Endpoint>| {
        let rebound = again(cluster, endpoint);
        enrol(cluster, &rebound, Some(endpoint));
        Arc::new(rebound)
    };
    before
        .priorities
        .iter()
        .map(|p| Priority {
            endpoints: p.endpoints.iter().filter(stays).map(rebound).collect(),
        })
        .collect()
}

fn push(priorities: &mut Vec<Priority>, priority: usize, endpoint: Endpoint) {
    if priorities.len() <= priority {
        priorities.resize_with(priority.saturating_add(1), Priority::default);
    }
    if let Some(group) = priorities.get_mut(priority) {
        group.endpoints.push(Arc::new(endpoint));
    }
}

fn again(cluster: &Cluster, endpoint: &Endpoint) -> Endpoint {
    Endpoint {
        address: endpoint.address,
        host_name: endpoint.host_name.clone(),
        weight: endpoint.weight,
        locality: endpoint.locality.clone(),
        locality_weight: endpoint.locality_weight,
        lb_metadata: endpoint.lb_metadata.clone(),
        transport: cluster.transport_for(&endpoint.transport_metadata),
        transport_metadata: endpoint.transport_metadata.clone(),
        tunnel_port: endpoint.tunnel_port,
        hash_key: endpoint.hash_key.clone(),
        health: endpoint.health,
        check: endpoint.check.clone(),
        leaving: endpoint.leaving,
        state: endpoint.state.clone(),
        workload: endpoint.workload.clone(),
    }
}

/// Whether endpoints that discovery does not have any more stay while they pass their health checks,
/// as in Envoy: what discovery knows may be wrong.
fn keeps_passing(cluster: &Cluster) -> bool {
    let changes = matches!(
        cluster.discovery,
        Discovery::Eds { .. } | Discovery::Dns { logical: false, .. }
    );
    changes && cluster.health.is_some() && !cluster.removes_healthy_hosts
}

fn passes(endpoint: &Endpoint) -> bool {
    let health = endpoint.state.health.get();
    health.is_checked() && !health.is_failed()
}

/// Begins or ends the health checks of an endpoint, as its configuration says; `known`: what stood at
/// its address before. What is checked as before keeps its health.
fn enrol(cluster: &Cluster, endpoint: &Endpoint, known: Option<&Arc<Endpoint>>) {
    let health = &endpoint.state.health;
    if cluster.health.is_none() || !endpoint.is_checkable() {
        health.end();
        return;
    }
    let first = match cluster.ignores_new_hosts {
        true => FirstHealth::Ignored,
        false => FirstHealth::Unhealthy,
    };
    match known {
        Some(known) if known.check_address() != endpoint.check_address() => health.begin(first),
        Some(_) if health.get().is_checked() => {}
        // Its cluster had no health checks.
        Some(known) if known.is_checkable() => health.begin(FirstHealth::Healthy),
        Some(_) | None => health.begin(first),
    }
}
