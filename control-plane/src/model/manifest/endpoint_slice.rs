//! EndpointSlices: the endpoints of a Service, written by a cluster's controllers or by hand.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::num::NonZeroU16;

use serde::Deserialize;
use serde::de::IgnoredAny;

use super::object::{FieldError, Key, Meta};
use super::service::Transport;
use super::values;

/// Names the Service whose endpoints these are, in the slice's namespace.
const SERVICE_NAME: &str = "kubernetes.io/service-name";
/// The API server accepts no more.
const MAX_ENDPOINTS: usize = 1000;
const MAX_PORTS: usize = 20_000;

/// An EndpointSlice, discovery.k8s.io/v1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointSlice {
    pub meta: Meta,
    /// `None`: it has no label that names a Service, or its addresses are host names; then it is
    /// not used.
    pub service: Option<Key>,
    /// `addressType: FQDN`, which neither kube-proxy nor the mesh uses.
    pub host_names: bool,
    /// Only TCP ports that have a number.
    pub ports: Vec<SlicePort>,
    pub endpoints: Vec<SliceEndpoint>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SlicePort {
    /// The name of the Service's port; empty where that has none.
    pub name: String,
    pub number: u16,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SliceEndpoint {
    /// The first of its addresses; the others are of the same endpoint.
    pub address: IpAddr,
    pub conditions: Conditions,
    pub hostname: Option<String>,
    pub node: String,
    pub zone: String,
    /// The Pod or Workload that serves at the address.
    pub target: Option<Key>,
    pub hints: Hints,
}

/// Readiness and termination of the endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Conditions {
    pub ready: bool,
    pub serving: bool,
    pub terminating: bool,
}

/// Zones and nodes whose callers should use the endpoint. Empty: any.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Hints {
    pub zones: BTreeSet<String>,
    pub nodes: BTreeSet<String>,
}

/// A whole manifest: an EndpointSlice has no `spec`.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SliceDocument {
    #[serde(default, rename = "apiVersion")]
    _api_version: IgnoredAny,
    #[serde(default, rename = "kind")]
    _kind: IgnoredAny,
    metadata: Meta,
    address_type: AddressType,
    #[serde(default)]
    endpoints: Vec<EndpointSpec>,
    #[serde(default)]
    ports: Vec<SlicePortSpec>,
}

#[derive(Clone, Copy, Deserialize, PartialEq)]
enum AddressType {
    IPv4,
    IPv6,
    #[serde(rename = "FQDN")]
    Fqdn,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct EndpointSpec {
    addresses: Vec<String>,
    #[serde(default)]
    conditions: ConditionsSpec,
    #[serde(default, deserialize_with = "values::optional_label")]
    hostname: Option<String>,
    #[serde(default)]
    node_name: Option<String>,
    #[serde(default)]
    zone: Option<String>,
    #[serde(default)]
    target_ref: Option<TargetSpec>,
    #[serde(default)]
    hints: HintsSpec,
    /// A field of v1beta1, which the API server keeps for old clients.
    #[serde(default, rename = "deprecatedTopology")]
    _deprecated_topology: IgnoredAny,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct ConditionsSpec {
    #[serde(default)]
    ready: Option<bool>,
    #[serde(default)]
    serving: Option<bool>,
    #[serde(default)]
    terminating: Option<bool>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct TargetSpec {
    #[serde(default)]
    kind: String,
    #[serde(default)]
    namespace: Option<String>,
    #[serde(default)]
    name: String,
    #[serde(default, rename = "apiVersion")]
    _api_version: IgnoredAny,
    #[serde(default, rename = "uid")]
    _uid: IgnoredAny,
    #[serde(default, rename = "resourceVersion")]
    _resource_version: IgnoredAny,
    #[serde(default, rename = "fieldPath")]
    _field_path: IgnoredAny,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct HintsSpec {
    #[serde(default)]
    for_zones: Vec<HintSpec>,
    #[serde(default)]
    for_nodes: Vec<HintSpec>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct HintSpec {
    name: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct SlicePortSpec {
    #[serde(default)]
    name: Option<String>,
    /// Absent: all ports, which does not tell the target of the Service's port.
    #[serde(default)]
    port: Option<NonZeroU16>,
    #[serde(default)]
    protocol: Option<Transport>,
    /// Not used: the Service's own port has the field too, and that one counts.
    #[serde(default, rename = "appProtocol")]
    _app_protocol: IgnoredAny,
}

impl EndpointSlice {
    /// # Errors
    /// Addresses that are none, or not of the slice's type; more than the API server takes.
    pub fn new(document: SliceDocument) -> Result<Self, Vec<FieldError>> {
        let mut errors = Vec::new();
        let meta = document.metadata;
        for (field, count, most) in [
            ("endpoints", document.endpoints.len(), MAX_ENDPOINTS),
            ("ports", document.ports.len(), MAX_PORTS),
        ] {
            if count > most {
                let message = format!("has {count} entries; {most} at most");
                errors.push(FieldError::new(field, message));
            }
        }
        let host_names = document.address_type == AddressType::Fqdn;
        let mut endpoints = Vec::new();
        if !host_names {
            for (index, spec) in document.endpoints.into_iter().enumerate() {
                match address(&spec, document.address_type) {
                    Ok(ip) => endpoints.push(endpoint(spec, ip, &meta.namespace)),
                    Err(message) => {
                        let path = format!("endpoints[{index}].addresses");
                        errors.push(FieldError::new(path, message));
                    }
                }
            }
        }
        if !errors.is_empty() {
            return Err(errors);
        }
        let service = meta.labels.get(SERVICE_NAME).filter(|_| !host_names);
        let service = service.map(|name| Key::new(&meta.namespace, name));
        let tcp = |port: &SlicePortSpec| port.protocol.is_none_or(|it| it == Transport::Tcp);
        let ports = document.ports.into_iter().filter(tcp);
        Ok(EndpointSlice {
            service,
            host_names,
            ports: ports
                .filter_map(|port| {
                    Some(SlicePort {
                        number: port.port?.get(),
                        name: port.name.unwrap_or_default(),
                    })
                })
                .collect(),
            endpoints,
            meta,
        })
    }

    /// The number at which endpoints serve the Service's port of this name.
    pub fn number(&self, port: &str) -> Option<u16> {
        let mut ports = self.ports.iter();
        ports.find(|it| it.name == port).map(|it| it.number)
    }
}

fn address(spec: &EndpointSpec, of: AddressType) -> Result<IpAddr, String> {
    let first = spec.addresses.first();
    let first = first.ok_or("at least one is needed")?;
    let ip: IpAddr = first
        .parse()
        .map_err(|_| format!("`{first}` is no IP address"))?;
    match (ip, of) {
        (IpAddr::V4(_), AddressType::IPv4) | (IpAddr::V6(_), AddressType::IPv6) => {}
        _ => return Err(format!("`{first}` is not of the slice's addressType")),
    }
    let ip = ip.to_canonical();
    match ip.is_unspecified() || ip.is_multicast() || ip.is_loopback() {
        true => Err(format!("no endpoint can have the address {ip}")),
        false => Ok(ip),
    }
}

/// Absent conditions have the defaults of the Kubernetes API's documentation.
fn endpoint(spec: EndpointSpec, address: IpAddr, namespace: &str) -> SliceEndpoint {
    let ready = spec.conditions.ready.unwrap_or(true);
    let names = |hints: Vec<HintSpec>| hints.into_iter().map(|hint| hint.name).collect();
    let is_workload = |target: &TargetSpec| matches!(target.kind.as_str(), "Pod" | "Workload");
    let target = spec.target_ref.filter(is_workload).map(|target| {
        let within = target.namespace.filter(|within| !within.is_empty());
        Key::new(within.unwrap_or_else(|| namespace.to_owned()), target.name)
    });
    SliceEndpoint {
        address,
        conditions: Conditions {
            ready,
            serving: spec.conditions.serving.unwrap_or(ready),
            terminating: spec.conditions.terminating.unwrap_or(false),
        },
        hostname: spec.hostname.filter(|name| !name.is_empty()),
        node: spec.node_name.unwrap_or_default(),
        zone: spec.zone.unwrap_or_default(),
        target,
        hints: Hints {
            zones: names(spec.hints.for_zones),
            nodes: names(spec.hints.for_nodes),
        },
    }
}
