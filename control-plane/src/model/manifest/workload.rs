//! Workloads: what stands for a pod where there is no Kubernetes.

use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU16;
use std::ops::RangeInclusive;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::Deserialize;

use super::families::Families;
use super::object::{FieldError, Key, Meta};
use super::service::AppProtocol;
use super::values::Cidr;
use super::{schema, values};
use crate::injected::{HEALTH_PORT, METRICS_PORT};

/// Addresses one workload may have.
const MAX_ADDRESSES: usize = 8;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Workload {
    pub meta: Meta,
    /// Never empty; the first is the primary one.
    pub addresses: Vec<IpAddr>,
    pub service_account: String,
    pub ports: Vec<WorkloadPort>,
    /// Whether a sidecar stands beside it: decides between mTLS and plaintext towards it.
    pub sidecar: bool,
    /// Whether that sidecar takes TCP inside HTTP/2 connections; a stock Envoy does not.
    pub tunnels: bool,
    /// False: left out of its services' endpoints.
    pub ready: bool,
    pub locality: Option<Locality>,
    pub weight: u32,
    pub node: String,
    /// Its DNS label in the headless service that `subdomain` names, as for a Pod.
    pub hostname: Option<String>,
    pub subdomain: Option<String>,
    /// The workload has the addresses of its node, which other workloads may have as well.
    pub host_network: bool,
    /// A Pod that the API server reports: a Workload cannot take its address.
    pub pod: bool,
    /// Its containers are being ended.
    pub terminating: bool,
    pub redirected: Redirection,
}

/// Which inbound connections of a workload are redirected to its sidecar. Others reach the app
/// itself, so their callers use plaintext.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Redirection {
    /// Empty: all.
    pub include_ports: Vec<RangeInclusive<u16>>,
    /// Comes before what is included, as of sources.
    pub exclude_ports: Vec<RangeInclusive<u16>>,
    /// Addresses of callers; empty: all. If there are only some of one family, no address of the other
    /// one is included.
    pub include_sources: Vec<Cidr>,
    pub exclude_sources: Vec<Cidr>,
    /// Connections to its IPv6 addresses, too.
    pub ipv6: bool,
}

/// The default of `anyam-proxy redirect`: all ports but the sidecar's own.
impl Default for Redirection {
    fn default() -> Self {
        Redirection {
            include_ports: Vec::new(),
            exclude_ports: [HEALTH_PORT, METRICS_PORT].map(|port| port..=port).into(),
            include_sources: Vec::new(),
            exclude_sources: Vec::new(),
            ipv6: true,
        }
    }
}

impl Redirection {
    pub fn has_port(&self, port: u16) -> bool {
        let within =
            |ranges: &[RangeInclusive<u16>]| ranges.iter().any(|range| range.contains(&port));
        let included = self.include_ports.is_empty() || within(&self.include_ports);
        included && !within(&self.exclude_ports)
    }

    pub fn has_address(&self, at: SocketAddr) -> bool {
        self.has_port(at.port()) && (self.ipv6 || at.is_ipv4())
    }

    pub fn has_source(&self, ip: IpAddr) -> bool {
        let within = |ranges: &[Cidr]| ranges.iter().any(|range| range.contains(ip));
        let included = self.include_sources.is_empty() || within(&self.include_sources);
        included && !within(&self.exclude_sources)
    }

    /// Whether it depends on the caller.
    pub fn is_by_source(&self) -> bool {
        !(self.include_sources.is_empty() && self.exclude_sources.is_empty())
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkloadPort {
    pub name: String,
    pub number: u16,
    pub protocol: AppProtocol,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Locality {
    /// As the node label `topology.kubernetes.io/region`.
    #[serde(default)]
    pub region: String,
    /// As the node label `topology.kubernetes.io/zone`.
    #[serde(default)]
    pub zone: String,
    /// A part of the zone, for example a rack.
    #[serde(default)]
    pub sub_zone: String,
}

/// A workload outside of Kubernetes.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct WorkloadSpec {
    /// Its addresses; the first is the primary one.
    #[schemars(schema_with = "addresses_schema")]
    addresses: Vec<IpAddr>,
    /// The service account of its identity; default: `default`.
    #[serde(default = "default_account", deserialize_with = "values::subdomain")]
    #[schemars(schema_with = "schema::subdomain")]
    service_account: String,
    /// Listening ports.
    #[serde(default)]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["port"]))]
    ports: Vec<WorkloadPortSpec>,
    /// Whether it has a sidecar: connections to it use mTLS then, else plaintext. Default: true.
    #[serde(default = "yes")]
    sidecar: bool,
    /// Whether its sidecar accepts TCP in tunnels; a stock Envoy does not. Default: true.
    #[serde(default = "yes")]
    tunnels: bool,
    /// False: it is not an endpoint of its services. Default: true.
    #[serde(default = "yes")]
    ready: bool,
    /// Its locality, for locality-aware load balancing.
    #[serde(default)]
    locality: Option<Locality>,
    /// Its weight in load balancing, relative to other endpoints. Default: 1.
    #[serde(default)]
    weight: Option<NonZeroU16>,
    /// Name of the machine that it runs on.
    #[serde(default)]
    node: String,
    /// Its hostname in the headless service `subdomain`, as for a Pod.
    #[serde(default, deserialize_with = "values::optional_label")]
    #[schemars(schema_with = "schema::label")]
    hostname: Option<String>,
    /// The headless service in which it has a hostname, as for a Pod.
    #[serde(default, deserialize_with = "values::optional_label")]
    #[schemars(schema_with = "schema::label")]
    subdomain: Option<String>,
}

fn addresses_schema(_: &mut SchemaGenerator) -> Schema {
    schema::addresses(MAX_ADDRESSES)
}

#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct WorkloadPortSpec {
    /// Name, for services whose targetPort is a name.
    #[serde(default)]
    name: String,
    /// Listening port.
    port: NonZeroU16,
    /// Transport protocol.
    #[serde(default)]
    protocol: WorkloadTransport,
    /// Application protocol, as appProtocol of a Service.
    #[serde(default)]
    app_protocol: Option<String>,
}

#[derive(Default, Deserialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
enum WorkloadTransport {
    #[default]
    Tcp,
}

fn default_account() -> String {
    "default".to_owned()
}

fn yes() -> bool {
    true
}

impl Workload {
    /// The service in which it has a hostname, if that is headless, and the hostname.
    pub fn hostname_in_service(&self) -> Option<(Key, String)> {
        let (hostname, subdomain) = (self.hostname.as_ref()?, self.subdomain.as_ref()?);
        Some((Key::new(&self.meta.namespace, subdomain), hostname.clone()))
    }

    /// # Errors
    /// Fields that contradict each other.
    pub fn new(meta: Meta, spec: WorkloadSpec) -> Result<Self, Vec<FieldError>> {
        let mut errors = Vec::new();
        if spec.addresses.is_empty() || spec.addresses.len() > MAX_ADDRESSES {
            let message = format!("between 1 and {MAX_ADDRESSES} addresses are needed");
            errors.push(FieldError::new("spec.addresses", message));
        }
        // What is wrong with an address is so in its IPv4-mapped form, too.
        let addresses: Vec<IpAddr> = spec.addresses.iter().map(IpAddr::to_canonical).collect();
        for (index, address) in addresses.iter().enumerate() {
            let path = || format!("spec.addresses[{index}]");
            if address.is_unspecified() || address.is_multicast() || address.is_loopback() {
                errors.push(FieldError::new(
                    path(),
                    format!("no workload can have the address {address}"),
                ));
            }
            if addresses[..index].contains(address) {
                errors.push(FieldError::new(path(), format!("{address} is there twice")));
            }
        }
        let mut ports: Vec<WorkloadPort> = Vec::new();
        for (index, port) in spec.ports.into_iter().enumerate() {
            let WorkloadTransport::Tcp = port.protocol;
            if ports.iter().any(|other| other.number == port.port.get()) {
                let path = format!("spec.ports[{index}].port");
                errors.push(FieldError::new(
                    path,
                    format!("{} is there twice", port.port),
                ));
            }
            ports.push(WorkloadPort {
                protocol: AppProtocol::declared(&port.name, port.app_protocol.as_deref()),
                number: port.port.get(),
                name: port.name,
            });
        }
        if !errors.is_empty() {
            return Err(errors);
        }
        Ok(Workload {
            meta,
            addresses,
            service_account: spec.service_account,
            ports,
            sidecar: spec.sidecar,
            tunnels: spec.tunnels,
            ready: spec.ready,
            locality: spec.locality,
            weight: spec.weight.map_or(1, |weight| u32::from(weight.get())),
            node: spec.node,
            hostname: spec.hostname,
            subdomain: spec.subdomain,
            host_network: false,
            pod: false,
            terminating: false,
            redirected: Redirection::default(),
        })
    }

    /// The first address.
    pub fn address(&self) -> Option<IpAddr> {
        self.addresses.first().copied()
    }

    /// The first address that a caller with addresses of `families` can dial; else the first.
    pub fn address_in(&self, families: Families) -> Option<IpAddr> {
        let mut fitting = self.addresses.iter().filter(|ip| families.have(**ip));
        fitting.next().copied().or(self.address())
    }

    pub fn label(&self, name: &str) -> Option<&str> {
        self.meta.labels.get(name).map(String::as_str)
    }

    /// Istio's canonical service: the workload's name in telemetry.
    pub fn canonical_service(&self) -> &str {
        [
            "service.istio.io/canonical-name",
            "app.kubernetes.io/name",
            "app",
        ]
        .iter()
        .find_map(|label| self.label(label))
        .unwrap_or(&self.meta.name)
    }

    /// Istio's canonical revision; `latest` without such a label.
    pub fn canonical_revision(&self) -> &str {
        [
            "service.istio.io/canonical-revision",
            "app.kubernetes.io/version",
            "version",
        ]
        .iter()
        .find_map(|label| self.label(label))
        .unwrap_or("latest")
    }

    /// `spiffe://<trust domain>/ns/<namespace>/sa/<account>`.
    pub fn identity(&self, trust_domain: &str) -> String {
        format!(
            "spiffe://{trust_domain}/ns/{}/sa/{}",
            self.meta.namespace, self.service_account
        )
    }
}
