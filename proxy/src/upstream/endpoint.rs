//! Endpoints of a cluster, with what is known of each.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};

use super::host::HostState;
use super::lb::Balance;
use crate::config::Name;
use crate::config::endpoint::{HealthStatus, TransportMetadata, Workload};

/// envoy.config.endpoint.v3.ClusterLoadAssignment, compiled. Replaced whole, behind
/// [`super::cluster::Cluster::endpoints`]; also when an endpoint is ejected or comes back.
#[derive(Default)]
pub struct EndpointSet {
    /// All endpoints, by priority.
    pub priorities: Vec<Priority>,
    /// Rises with each replacement.
    pub version: u64,
    /// `policy.overprovisioning_factor` in percent; Envoy's default is 140.
    pub overprovisioning: u32,
    /// False until the first assignment arrived: the cluster is warming.
    pub ready: bool,
    /// The endpoints that load balancing chooses from, by health and ejection. Derived from the
    /// fields above.
    pub balance: Balance,
    /// Made by the first search for an endpoint: only requests of sessions need it.
    pub by_address: OnceLock<Arc<ByAddress>>,
}

/// The priority of each endpoint, and the endpoint; of the first priority that has the address.
pub type ByAddress = HashMap<SocketAddr, (u32, Arc<Endpoint>)>;

impl EndpointSet {
    pub fn all(&self) -> impl Iterator<Item = &Arc<Endpoint>> {
        self.priorities.iter().flat_map(|p| &p.endpoints)
    }

    /// The endpoint at this address, with its priority.
    pub fn find(&self, address: SocketAddr) -> Option<&(u32, Arc<Endpoint>)> {
        let all = self.by_address.get_or_init(|| {
            // The first priority last, so that it is the one kept.
            let priorities = self.priorities.iter().enumerate().rev();
            let endpoints = priorities.flat_map(|(priority, group)| {
                let priority = u32::try_from(priority).unwrap_or(u32::MAX);
                let of_group = group.endpoints.iter().cloned();
                of_group.map(move |endpoint| (endpoint.address, (priority, endpoint)))
            });
            Arc::new(endpoints.collect())
        });
        all.get(&address)
    }

    pub fn len(&self) -> usize {
        self.priorities.iter().map(|p| p.endpoints.len()).sum()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[derive(Clone, Default)]
pub struct Priority {
    pub endpoints: Vec<Arc<Endpoint>>,
}

pub struct Endpoint {
    pub address: SocketAddr,
    pub host_name: Option<Name>,
    /// At least 1.
    pub weight: u32,
    pub locality: Option<Name>,
    /// The metadata that `transport_socket_matches` compare; shared by endpoints with the same.
    pub transport_metadata: Arc<TransportMetadata>,
    /// Index into [`crate::config::cluster::ClusterDef::transport`], chosen by metadata at compile time.
    /// `None`: no match, connecting fails closed.
    pub transport: Option<u32>,
    /// Where it takes tunnels: `filter_metadata`, `anyam.tunnel: {port: 15008}`.
    pub tunnel_port: Option<u16>,
    /// What it is hashed by in place of its address: `filter_metadata`, `envoy.lb: {hash_key: …}`.
    pub hash_key: Option<Box<str>>,
    pub health: HealthStatus,
    /// Active requests, ejection, counters: carried over while the address stays.
    pub state: Arc<HostState>,
    /// Labels for telemetry, from `filter_metadata`, Istio's `istio: {workload:
    /// "name;namespace;canonical service;canonical revision;cluster"}`.
    pub workload: Option<Arc<Workload>>,
}
