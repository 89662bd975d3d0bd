//! Settings of endpoints, and workloads by address.

/// `filter_metadata` of `envoy.transport_socket_match`, sorted by key.
pub type TransportMetadata = Box<[(Box<str>, Box<str>)]>;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HealthStatus {
    Healthy,
    Degraded,
    Draining,
    Unhealthy,
}

/// The workload at an address (anyam.workload.v1.Workload).
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
