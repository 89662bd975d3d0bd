//! Endpoints of a cluster, and workloads by address.

use std::net::SocketAddr;
use std::sync::Arc;

use super::Name;
use crate::upstream::host::HostState;

/// envoy.config.endpoint.v3.ClusterLoadAssignment, compiled. Replaced whole, behind
/// [`super::cluster::Cluster::endpoints`].
#[derive(Default)]
pub struct EndpointSet {
    /// Sorted by priority; healthy according to the control plane.
    pub priorities: Vec<Priority>,
    /// Rises with each replacement.
    pub version: u64,
    /// `policy.overprovisioning_factor` in percent; Envoy's default is 140.
    pub overprovisioning: u32,
    /// False until the first assignment arrived: the cluster is warming.
    pub ready: bool,
}

#[derive(Default)]
pub struct Priority {
    pub endpoints: Vec<Arc<Endpoint>>,
}

pub struct Endpoint {
    pub address: SocketAddr,
    pub host_name: Option<Name>,
    /// At least 1.
    pub weight: u32,
    pub locality: Option<Name>,
    /// Index into [`super::cluster::Cluster::transport`], chosen by metadata at compile time.
    /// `None`: no match, connecting fails closed.
    pub transport: Option<u32>,
    pub health: HealthStatus,
    /// Active requests, ejection, counters: carried over while the address stays.
    pub state: Arc<HostState>,
    /// Labels for telemetry, from `filter_metadata`, Istio's `istio: {workload:
    /// "name;namespace;canonical service;canonical revision;cluster"}`.
    pub workload: Option<Arc<Workload>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HealthStatus {
    Healthy,
    Degraded,
    Draining,
    Unhealthy,
}

/// Who lives at an address (anyam.workload.v1.Workload).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Workload {
    pub name: String,
    pub namespace: String,
    pub service_account: String,
    pub trust_domain: String,
    pub canonical_service: String,
    pub canonical_revision: String,
    pub cluster: String,
}
