//! Service and Workload.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::Deserialize;
use serde::de::IgnoredAny;

use super::value::{Metadata, Port, PortRef};

/// v1 Service.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Service {
    #[serde(rename = "apiVersion")]
    _api_version: IgnoredAny,
    #[serde(rename = "kind")]
    _kind: IgnoredAny,
    pub metadata: Metadata,
    #[serde(default)]
    pub spec: ServiceSpec,
    /// Written by the API server.
    #[serde(default, rename = "status")]
    _status: Option<IgnoredAny>,
}

impl PartialEq for Service {
    fn eq(&self, other: &Self) -> bool {
        (&self.metadata, &self.spec) == (&other.metadata, &other.spec)
    }
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ServiceSpec {
    #[serde(default)]
    pub selector: BTreeMap<String, String>,
    #[serde(default)]
    pub ports: Vec<ServicePort>,
    /// `None` (the word) makes it headless; absent: an address is allotted.
    #[serde(default, rename = "clusterIP")]
    pub cluster_ip: Option<String>,
    #[serde(default, rename = "clusterIPs")]
    pub cluster_ips: Vec<String>,
    #[serde(default, rename = "type")]
    pub kind: ServiceType,
    #[serde(default)]
    pub publish_not_ready_addresses: bool,
    #[serde(default)]
    pub ip_families: Vec<String>,
    #[serde(default)]
    pub ip_family_policy: Option<String>,
    #[serde(default)]
    pub session_affinity: SessionAffinity,
    #[serde(default)]
    pub internal_traffic_policy: InternalTrafficPolicy,
    #[serde(default)]
    pub external_traffic_policy: Option<String>,
    #[serde(default)]
    pub allocate_load_balancer_node_ports: Option<bool>,
}

/// An ExternalName service is an alias, which this mesh does not follow: refused.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
pub enum ServiceType {
    #[default]
    #[serde(rename = "ClusterIP")]
    ClusterIp,
    NodePort,
    LoadBalancer,
}

/// ClientIP affinity is not supported, and so refused.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
pub enum SessionAffinity {
    #[default]
    None,
}

/// Local is not supported, and so refused.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
pub enum InternalTrafficPolicy {
    #[default]
    Cluster,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ServicePort {
    #[serde(default)]
    pub name: Option<String>,
    pub port: Port,
    #[serde(default)]
    pub target_port: Option<PortRef>,
    #[serde(default)]
    pub protocol: L4Protocol,
    #[serde(default)]
    pub app_protocol: Option<String>,
    #[serde(default)]
    pub node_port: Option<Port>,
}

/// UDP and SCTP ports are known and left alone: the mesh carries TCP.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum L4Protocol {
    #[default]
    Tcp,
    Udp,
    Sctp,
}

/// mesh.anyam.dev/v1alpha1 Workload: what stands in for a pod outside Kubernetes.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Workload {
    #[serde(rename = "apiVersion")]
    _api_version: IgnoredAny,
    #[serde(rename = "kind")]
    _kind: IgnoredAny,
    pub metadata: Metadata,
    pub spec: WorkloadSpec,
}

impl PartialEq for Workload {
    fn eq(&self, other: &Self) -> bool {
        (&self.metadata, &self.spec) == (&other.metadata, &other.spec)
    }
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct WorkloadSpec {
    pub addresses: Vec<IpAddr>,
    #[serde(default = "default_account")]
    pub service_account: super::value::Name,
    #[serde(default)]
    pub ports: Vec<WorkloadPort>,
    /// False: no proxy stands beside it, so it is called in plaintext where policy allows that.
    #[serde(default = "yes")]
    pub sidecar: bool,
    /// False: alive, but not to be sent new traffic.
    #[serde(default = "yes")]
    pub ready: bool,
}

fn yes() -> bool {
    true
}

fn default_account() -> super::value::Name {
    // The name every namespace has an account of.
    serde::Deserialize::deserialize(serde::de::value::StrDeserializer::<serde::de::value::Error>::new("default"))
        .unwrap_or_default()
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct WorkloadPort {
    #[serde(default)]
    pub name: Option<String>,
    pub port: Port,
    #[serde(default)]
    pub protocol: L4Protocol,
    #[serde(default)]
    pub app_protocol: Option<String>,
}
