//! Endpoints made for a cluster: transports chosen by metadata, state carried over by address.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use super::host::HostState;
use crate::config::cluster::LbEndpoint;
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
        if priorities.len() <= priority {
            priorities.resize_with(priority.saturating_add(1), Priority::default);
        }
        let Some(priority) = priorities.get_mut(priority) else {
            continue;
        };
        let before = known.get(&address);
        let state = match before {
            Some(endpoint) => endpoint.state.clone(),
            None => Arc::new(HostState::default()),
        };
        // One that was not healthy before is new again.
        let was_healthy = before.is_some_and(|before| before.health == HealthStatus::Healthy);
        if cluster.slow_start.is_some() && !was_healthy {
            state.begin_slow_start(now);
        }
        priority.endpoints.push(Arc::new(Endpoint {
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
            state,
            workload: host.workload.clone(),
        }));
    }
    priorities
}

/// The endpoints `before` had, for a new version of their cluster.
pub fn rebind(cluster: &Cluster, before: &EndpointSet) -> Vec<Priority> {
    let again = |endpoint: &Arc<Endpoint>| {
        Arc::new(Endpoint {
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
            state: endpoint.state.clone(),
            workload: endpoint.workload.clone(),
        })
    };
    before
        .priorities
        .iter()
        .map(|p| Priority {
            endpoints: p.endpoints.iter().map(again).collect(),
        })
        .collect()
}
