//! Services and the protocols their ports declare.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::num::NonZeroU16;

use serde::Deserialize;
use serde::de::{Deserializer, Error, IgnoredAny, Unexpected, Visitor};

use super::families::{Families, IpFamily};
use super::object::{FieldError, Meta};
use super::session_affinity::{SessionAffinity, SessionAffinityConfig};
use super::values::check_name;

/// What a port carries, as far as it is declared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AppProtocol {
    /// HTTP; the app takes HTTP/1.1.
    Http,
    /// HTTP; the app takes HTTP/2 without TLS.
    Http2,
    /// HTTP/2 whose messages are gRPC.
    Grpc,
    Tcp,
    /// TLS of the app's own, carried as bytes.
    Tls,
    /// Not declared: detected per connection.
    Undeclared,
}

impl AppProtocol {
    /// `appProtocol` first, then the port's name up to its first `-`, as Kubernetes meshes agree.
    pub fn declared(name: &str, app_protocol: Option<&str>) -> Self {
        match app_protocol {
            Some(text) => Self::by_word(text).unwrap_or(AppProtocol::Undeclared),
            None if name == "grpc-web" || name.starts_with("grpc-web-") => AppProtocol::Http,
            None => Self::by_word(name.split('-').next().unwrap_or_default())
                .unwrap_or(AppProtocol::Undeclared),
        }
    }

    fn by_word(word: &str) -> Option<Self> {
        Some(match word.to_ascii_lowercase().as_str() {
            "http" | "http1" | "ws" | "kubernetes.io/ws" | "grpc-web" => AppProtocol::Http,
            "http2" | "h2c" | "kubernetes.io/h2c" => AppProtocol::Http2,
            "grpc" | "kubernetes.io/grpc" => AppProtocol::Grpc,
            "tls" | "https" | "wss" | "kubernetes.io/wss" => AppProtocol::Tls,
            "tcp" | "redis" | "mysql" | "mongo" | "postgres" | "postgresql" => AppProtocol::Tcp,
            _ => return None,
        })
    }

    /// The name in messages.
    pub fn word(self) -> &'static str {
        match self {
            AppProtocol::Http => "HTTP/1.1",
            AppProtocol::Http2 => "HTTP/2",
            AppProtocol::Grpc => "gRPC",
            AppProtocol::Tcp => "TCP",
            AppProtocol::Tls => "TLS",
            AppProtocol::Undeclared => "no protocol",
        }
    }

    pub fn is_http(self) -> bool {
        matches!(
            self,
            AppProtocol::Http | AppProtocol::Http2 | AppProtocol::Grpc
        )
    }

    /// Carried as bytes, whatever they are.
    pub fn is_opaque(self) -> bool {
        matches!(self, AppProtocol::Tcp | AppProtocol::Tls)
    }

    /// Whether two declarations of one port can both hold.
    pub fn agrees(self, other: Self) -> bool {
        self == other
            || self == AppProtocol::Undeclared
            || other == AppProtocol::Undeclared
            || (self.is_opaque() && other.is_opaque())
    }
}

/// A Service, core/v1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    pub meta: Meta,
    pub selector: BTreeMap<String, String>,
    /// Only TCP ports.
    pub ports: Vec<ServicePort>,
    /// Written addresses. Empty: they are allotted, unless headless.
    pub cluster_ips: Vec<IpAddr>,
    /// Of addresses that are allotted.
    pub families: Families,
    pub headless: bool,
    /// `internalTrafficPolicy: Local`: callers reach the endpoints on their own node only.
    pub local: bool,
    pub publish_not_ready: bool,
    /// What a cluster's EndpointSlice controller makes hints of.
    pub traffic_distribution: Option<String>,
    /// `sessionAffinity: ClientIP`: calls of one address go to one endpoint.
    pub client_ip_affinity: bool,
    /// Names of ports left out because they are not TCP.
    pub left_out: Vec<String>,
    /// Fields that the mesh does not support, and does not use.
    pub unsupported: Vec<FieldError>,
    /// Another name for a host outside: it has neither addresses nor ports of its own.
    pub external_name: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServicePort {
    pub name: String,
    pub number: u16,
    pub protocol: AppProtocol,
    pub target: PortRef,
}

/// A port by number or by the name it has in the workload.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum PortRef {
    Number(NonZeroU16),
    Name(String),
}

impl<'de> Deserialize<'de> for PortRef {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;
        impl Visitor<'_> for Either {
            type Value = PortRef;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a port's number (1 to 65535) or name")
            }
            fn visit_u64<E: Error>(self, number: u64) -> Result<PortRef, E> {
                u16::try_from(number)
                    .ok()
                    .and_then(NonZeroU16::new)
                    .map(PortRef::Number)
                    .ok_or_else(|| E::invalid_value(Unexpected::Unsigned(number), &self))
            }
            fn visit_str<E: Error>(self, name: &str) -> Result<PortRef, E> {
                check_name(name, false).map_err(E::custom)?;
                Ok(PortRef::Name(name.to_owned()))
            }
        }
        deserializer.deserialize_any(Either)
    }
}

/// `spec` as Kubernetes has it.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ServiceSpec {
    #[serde(default)]
    selector: BTreeMap<String, String>,
    #[serde(default)]
    ports: Vec<ServicePortSpec>,
    #[serde(default, rename = "clusterIP")]
    cluster_ip: Option<String>,
    #[serde(default, rename = "clusterIPs")]
    cluster_ips: Vec<String>,
    #[serde(default, rename = "type")]
    service_type: ServiceType,
    #[serde(default)]
    publish_not_ready_addresses: bool,
    #[serde(default)]
    session_affinity: SessionAffinity,
    #[serde(default)]
    internal_traffic_policy: Option<InternalTrafficPolicy>,
    #[serde(default, rename = "externalTrafficPolicy")]
    _external_traffic_policy: IgnoredAny,
    #[serde(default)]
    ip_families: Vec<IpFamily>,
    /// Read by the API server where `ipFamilies` is empty; here both are allotted then.
    #[serde(default, rename = "ipFamilyPolicy")]
    _ip_family_policy: IgnoredAny,
    #[serde(default)]
    external_name: Option<String>,
    // How a service is reached from outside of the cluster, which is not the mesh's doing, and what
    // its nodes prefer.
    #[serde(default, rename = "allocateLoadBalancerNodePorts")]
    _allocate_node_ports: IgnoredAny,
    #[serde(default, rename = "externalIPs")]
    _external_ips: IgnoredAny,
    #[serde(default, rename = "healthCheckNodePort")]
    _health_check_node_port: IgnoredAny,
    #[serde(default, rename = "loadBalancerClass")]
    _load_balancer_class: IgnoredAny,
    #[serde(default, rename = "loadBalancerIP")]
    _load_balancer_ip: IgnoredAny,
    #[serde(default, rename = "loadBalancerSourceRanges")]
    _load_balancer_source_ranges: IgnoredAny,
    #[serde(default)]
    session_affinity_config: Option<SessionAffinityConfig>,
    #[serde(default)]
    traffic_distribution: Option<String>,
}

#[derive(Clone, Copy, Deserialize, PartialEq)]
enum InternalTrafficPolicy {
    Cluster,
    Local,
}

#[derive(Clone, Copy, Default, Deserialize, PartialEq)]
enum ServiceType {
    #[default]
    ClusterIP,
    NodePort,
    LoadBalancer,
    ExternalName,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct ServicePortSpec {
    #[serde(default)]
    name: String,
    port: NonZeroU16,
    #[serde(default)]
    target_port: Option<PortRef>,
    #[serde(default)]
    protocol: Transport,
    #[serde(default)]
    app_protocol: Option<String>,
    #[serde(default, rename = "nodePort")]
    _node_port: IgnoredAny,
}

/// `protocol` of a port, core/v1.
#[derive(Clone, Copy, Default, Deserialize, PartialEq)]
#[serde(rename_all = "UPPERCASE")]
pub(super) enum Transport {
    #[default]
    Tcp,
    Udp,
    Sctp,
}

impl Service {
    /// # Errors
    /// Fields that contradict each other.
    pub fn new(meta: Meta, spec: ServiceSpec) -> Result<Self, Vec<FieldError>> {
        let mut errors = Vec::new();
        // They choose among endpoints, all of which the Service leads to: it is served without.
        let external_name = spec.service_type == ServiceType::ExternalName;
        let config = spec.session_affinity_config;
        let unsupported: Vec<_> = spec
            .session_affinity
            .unsupported(config, external_name)
            .into_iter()
            .collect();
        if external_name {
            return external(meta, spec.external_name, unsupported);
        }
        let mut left_out = Vec::new();
        let mut ports: Vec<ServicePort> = Vec::new();
        for (index, port) in spec.ports.into_iter().enumerate() {
            if port.protocol != Transport::Tcp {
                left_out.push(format!("{}/{}", port.name, port.port));
                continue;
            }
            if ports.iter().any(|other| other.number == port.port.get()) {
                let path = format!("spec.ports[{index}].port");
                errors.push(FieldError::new(
                    path,
                    format!("{} is there twice", port.port),
                ));
            }
            if ports.iter().any(|other| other.name == port.name) {
                let message = match port.name.as_str() {
                    "" => "is required when there are several ports".to_owned(),
                    name => format!("`{name}` is there twice"),
                };
                errors.push(FieldError::new(
                    format!("spec.ports[{index}].name"),
                    message,
                ));
            }
            ports.push(ServicePort {
                protocol: AppProtocol::declared(&port.name, port.app_protocol.as_deref()),
                number: port.port.get(),
                target: port.target_port.unwrap_or(PortRef::Number(port.port)),
                name: port.name,
            });
        }
        let (cluster_ips, headless) = addresses(spec.cluster_ip, spec.cluster_ips, &mut errors);
        if !errors.is_empty() {
            return Err(errors);
        }
        Ok(Service {
            meta,
            selector: spec.selector,
            ports,
            cluster_ips,
            families: Families::listed(&spec.ip_families),
            headless,
            local: !headless && spec.internal_traffic_policy == Some(InternalTrafficPolicy::Local),
            publish_not_ready: spec.publish_not_ready_addresses,
            traffic_distribution: spec.traffic_distribution,
            client_ip_affinity: spec.session_affinity == SessionAffinity::ClientIP,
            left_out,
            unsupported,
            external_name: None,
        })
    }

    pub fn port(&self, number: u16) -> Option<&ServicePort> {
        self.ports.iter().find(|port| port.number == number)
    }
}

/// Kubernetes gives such a service no address, and ignores its selector and ports.
fn external(
    meta: Meta,
    name: Option<String>,
    unsupported: Vec<FieldError>,
) -> Result<Service, Vec<FieldError>> {
    let path = "spec.externalName";
    let name = name.unwrap_or_default().to_ascii_lowercase();
    let name = name.strip_suffix('.').unwrap_or(&name);
    match check_name(name, true) {
        Ok(()) => Ok(Service {
            meta,
            selector: BTreeMap::new(),
            ports: Vec::new(),
            cluster_ips: Vec::new(),
            families: Families::BOTH,
            headless: true,
            local: false,
            publish_not_ready: false,
            traffic_distribution: None,
            client_ip_affinity: false,
            left_out: Vec::new(),
            unsupported,
            external_name: Some(name.to_owned()),
        }),
        Err(_) if name.is_empty() => Err(vec![FieldError::new(
            path,
            "is required for type ExternalName",
        )]),
        Err(why) => Err(vec![FieldError::new(path, why)]),
    }
}

fn addresses(
    one: Option<String>,
    all: Vec<String>,
    errors: &mut Vec<FieldError>,
) -> (Vec<IpAddr>, bool) {
    let written: Vec<(String, String)> = match all.is_empty() {
        true => one
            .into_iter()
            .map(|ip| ("spec.clusterIP".to_owned(), ip))
            .collect(),
        false => {
            let paths = (0..).map(|index| format!("spec.clusterIPs[{index}]"));
            paths.zip(all).collect()
        }
    };
    if written.iter().any(|(_, ip)| ip == "None") {
        return (Vec::new(), true);
    }
    let mut addresses = Vec::new();
    for (path, ip) in written.into_iter().filter(|(_, ip)| !ip.is_empty()) {
        match ip.parse::<IpAddr>() {
            Ok(ip) => addresses.push(ip.to_canonical()),
            Err(_) => errors.push(FieldError::new(
                path,
                format!("`{ip}` is no IP address, nor None"),
            )),
        }
    }
    (addresses, false)
}
