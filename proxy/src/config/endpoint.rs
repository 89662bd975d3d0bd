//! Settings of endpoints, and workloads by address.

/// `filter_metadata` of `envoy.transport_socket_match`, sorted by key.
pub type TransportMetadata = Box<[(Box<str>, Box<str>)]>;

/// `filter_metadata` of `envoy.lb`, sorted by key: what subsets are formed by.
pub type LbMetadata = Box<[(Box<str>, LbValue)]>;

/// A value in it, in a form in which equal values are equal bytes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct LbValue {
    pub value: Box<[u8]>,
    /// Of a list; for subsets that take a list for any of its elements.
    pub elements: Option<Box<[Box<[u8]>]>>,
}

impl LbValue {
    /// Whether an endpoint that has this matches `wanted`; `list_as_any`: by any element of a list.
    pub fn matches(&self, wanted: &Self, list_as_any: bool) -> bool {
        self.value == wanted.value
            || list_as_any && self.elements.iter().flatten().any(|e| *e == wanted.value)
    }
}

/// envoy.config.endpoint.v3.ClusterLoadAssignment.Policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AssignmentPolicy {
    /// Percent.
    pub overprovisioning: u32,
    /// A priority's health is that of its endpoints' weight, not of their number.
    pub weighted_priority_health: bool,
}

impl Default for AssignmentPolicy {
    /// Envoy's.
    fn default() -> Self {
        Self {
            overprovisioning: 140,
            weighted_priority_health: false,
        }
    }
}

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
