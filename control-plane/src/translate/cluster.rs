//! Clusters: services, single workloads, the app itself, and what leaves the mesh.

use std::collections::{BTreeSet, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use xds_proto::envoy::config::cluster::v3 as cluster;
use xds_proto::envoy::config::core::v3 as core;
use xds_proto::envoy::config::endpoint::v3::ClusterLoadAssignment;
use xds_proto::google::protobuf::Struct;

use super::naming::{self, Carries, OutboundName};
use super::proto::{ads, duration, fields, list, metadata, structure, text};
use super::protocol::{self, Upstream, UpstreamProtocol};
use super::{backend_tls, endpoint, resilience, tls};
use crate::ads::resources::Scope;
use crate::model::Mesh;
use crate::model::manifest::families::Families;
use crate::model::manifest::policy::{BackendSpec, TcpTransport};
use crate::model::manifest::service::{AppProtocol, PortRef};
use crate::model::mesh::bypass::is_bypassed;
use crate::model::mesh::{PortEntry, ServiceEntry, WorkloadEntry};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Declarations that an error names.
const MAX_DECLARATIONS: usize = 3;
/// By this source address netfilter distinguishes delivery to the app from the app's calls to
/// itself.
const DELIVERY_V4: &str = "127.0.0.6";
const DELIVERY_V6: &str = "::6";

/// `outbound|<port>|<subset>|<host or address>`.
pub fn outbound(mesh: &Mesh, scope: &Scope, name: &OutboundName) -> Option<cluster::Cluster> {
    match name.ip() {
        Some(ip) => to_workload(mesh, scope, name, ip),
        None => to_service(mesh, scope, name),
    }
}

fn to_service(mesh: &Mesh, scope: &Scope, name: &OutboundName) -> Option<cluster::Cluster> {
    let service = mesh.service_by_host(&name.host)?;
    let port = service.port(name.port)?;
    let protocol = port.protocol;
    let none = BackendSpec::default();
    let spec = service.policy.as_ref().map_or(&none, |policy| &policy.spec);
    let identities = mesh.known_as(service);
    let mut it = base(
        mesh,
        scope,
        name,
        protocol,
        (&service.service.meta.namespace, spec),
        &identities,
    )?;
    let tls = backend_tls::originated(port.tls.as_deref(), protocol, name.carries);
    let explanation = backend_tls::explanation(name.carries, tls);
    it.metadata = Some(about(&[(service, port)], &explanation));
    if let Some(tls) = tls {
        let upstream = upstream(scope, name, protocol, spec);
        if !backend_tls::originate(&mut it, scope, tls, &upstream) {
            return Some(it);
        }
    }
    it.cluster_discovery_type = discovery(cluster::cluster::DiscoveryType::Eds);
    it.eds_cluster_config = Some(cluster::cluster::EdsClusterConfig {
        eds_config: ads(),
        ..Default::default()
    });
    Some(it)
}

/// A workload called by its own address.
fn to_workload(
    mesh: &Mesh,
    scope: &Scope,
    name: &OutboundName,
    ip: IpAddr,
) -> Option<cluster::Cluster> {
    let entry = mesh.workload_by_ip(ip)?;
    let protocol = entry.protocol(name.port);
    let none = BackendSpec::default();
    let policy = mesh.policy_at(entry, name.port);
    let spec = policy.map_or(&none, |policy| &policy.spec);
    let identities = BTreeSet::from([entry.workload.identity(&mesh.options.trust_domain)]);
    let mut it = base(
        mesh,
        scope,
        name,
        protocol,
        (&entry.workload.meta.namespace, spec),
        &identities,
    )?;
    let tls = mesh.tls_at(entry, name.port).map(|tls| &**tls);
    let tls = backend_tls::originated(tls, protocol, name.carries);
    let explanation = backend_tls::explanation(name.carries, tls);
    it.metadata = metadata_of(mesh, entry, name.port, &explanation);
    if let Some(tls) = tls {
        let upstream = upstream(scope, name, protocol, spec);
        if !backend_tls::originate(&mut it, scope, tls, &upstream) {
            return Some(it);
        }
    }
    it.cluster_discovery_type = discovery(cluster::cluster::DiscoveryType::Static);
    let at = SocketAddr::new(ip, name.port);
    let bypassed = mesh
        .workload(&scope.namespace, &scope.workload)
        .is_some_and(|caller| is_bypassed(&caller.workload, &entry.workload, ip));
    let assignment = endpoint::of_workload(&it.name, (mesh, entry), (at, bypassed));
    it.load_assignment = Some(assignment);
    Some(it)
}

fn base(
    mesh: &Mesh,
    scope: &Scope,
    name: &OutboundName,
    protocol: AppProtocol,
    (namespace, spec): (&str, &BackendSpec),
    identities: &BTreeSet<String>,
) -> Option<cluster::Cluster> {
    if !Carries::of(protocol).contains(&name.carries) {
        return None;
    }
    let upstream = upstream(scope, name, protocol, spec);
    let defaults = mesh.defaults(namespace);
    let connect = spec.connect_timeout.or(defaults.connect_timeout);
    let outlier = spec
        .outlier_detection
        .as_ref()
        .or(defaults.outlier_detection.as_ref());
    Some(cluster::Cluster {
        name: name.to_string(),
        connect_timeout: duration(connect.map_or(CONNECT_TIMEOUT, |span| span.0)),
        lb_policy: resilience::lb_policy(spec.load_balancer) as i32,
        circuit_breakers: Some(resilience::circuit_breakers(spec)),
        outlier_detection: outlier.map(resilience::outlier),
        typed_extension_protocol_options: protocol::options(
            &upstream,
            spec.idle_timeout.map(|span| span.0),
            spec.max_requests_per_connection
                .map(std::num::NonZeroU32::get),
        ),
        transport_socket_matches: sockets(
            scope,
            identities,
            &upstream,
            spec.tcp_transport.or(defaults.tcp_transport),
        ),
        ..cluster::Cluster::default()
    })
}

fn upstream(
    scope: &Scope,
    name: &OutboundName,
    protocol: AppProtocol,
    spec: &BackendSpec,
) -> Upstream {
    let http2 = spec.http2.unwrap_or(false);
    Upstream::of(protocol, name.carries, http2, scope.anyam)
}

/// By what an endpoint's sidecar takes: tunnels, mTLS, or nothing. Envoy opens tunnels by its
/// listeners, not by transport, so it is given none.
fn sockets(
    scope: &Scope,
    identities: &BTreeSet<String>,
    upstream: &Upstream,
    tcp: Option<TcpTransport>,
) -> Vec<cluster::cluster::TransportSocketMatch> {
    let mut sockets = Vec::new();
    if upstream.protocol == UpstreamProtocol::Tcp
        && tcp == Some(TcpTransport::Tunnel)
        && scope.anyam
    {
        let socket = tls::upstream(scope, identities, &[tls::TUNNEL]);
        sockets.push(socket_match("tunnel", Some(("tunnel", "http")), socket));
    }
    let mtls = tls::upstream(scope, identities, upstream.alpn);
    sockets.push(socket_match("mtls", Some(("anyam", "mtls")), mtls));
    sockets.push(socket_match("plaintext", None, tls::raw_buffer()));
    sockets
}

fn socket_match(
    name: &str,
    asks: Option<(&str, &str)>,
    socket: core::TransportSocket,
) -> cluster::cluster::TransportSocketMatch {
    let criteria = match asks {
        Some((key, value)) => fields(&[(key, text(value))]),
        None => Struct::default(),
    };
    cluster::cluster::TransportSocketMatch {
        name: name.to_owned(),
        r#match: Some(criteria),
        transport_socket: Some(socket),
    }
}

pub fn discovery(
    kind: cluster::cluster::DiscoveryType,
) -> Option<cluster::cluster::ClusterDiscoveryType> {
    Some(cluster::cluster::ClusterDiscoveryType::Type(kind as i32))
}

/// Istio's form of "this cluster stands for these services", for telemetry.
fn services(services: &[&ServiceEntry]) -> Struct {
    let one = |service: &&ServiceEntry| {
        structure(fields(&[
            ("host", text(&service.host)),
            ("name", text(&service.service.meta.name)),
            ("namespace", text(&service.service.meta.namespace)),
        ]))
    };
    fields(&[("services", list(services.iter().map(one).collect()))])
}

/// Which services a cluster stands for, and by which declarations: proxies name these where calls
/// fail in a way that a wrong one explains.
/// `but`: what else explains failures.
fn about(declarations: &[(&ServiceEntry, &PortEntry)], but: &str) -> core::Metadata {
    let all: Vec<&ServiceEntry> = declarations.iter().map(|(service, _)| *service).collect();
    let named: Vec<String> = declarations
        .iter()
        .take(MAX_DECLARATIONS)
        .map(|(service, port)| declaration(service, port))
        .collect();
    let mut named = named.join("; ");
    named.push_str(but);
    let ours = fields(&[("declared_by", text(named))]);
    metadata(&[("anyam", ours), ("istio", services(&all))])
}

/// `Service shop/cart, port 8080 (grpc, targetPort 9090): gRPC`.
pub fn declaration(service: &ServiceEntry, port: &PortEntry) -> String {
    let mut inner = Vec::new();
    if !port.name.is_empty() {
        inner.push(port.name.clone());
    }
    match &port.target {
        PortRef::Number(number) if number.get() == port.number => {}
        PortRef::Number(number) => inner.push(format!("targetPort {number}")),
        PortRef::Name(name) => inner.push(format!("targetPort {name}")),
    }
    let inner = match inner.is_empty() {
        true => String::new(),
        false => format!(" ({})", inner.join(", ")),
    };
    let says = port.protocol.word();
    format!(
        "Service {}, port {}{inner}: {says}",
        service.key(),
        port.number
    )
}

/// The services that send to a port of a workload.
fn metadata_of(mesh: &Mesh, entry: &WorkloadEntry, port: u16, but: &str) -> Option<core::Metadata> {
    let sends = mesh.own_services(entry).filter_map(|service| {
        let mut ports = service.ports.iter();
        let at = ports.find(|it| service.covers(it, &entry.workload).contains(&port))?;
        Some((&**service, at))
    });
    let sends: Vec<(&ServiceEntry, &PortEntry)> = sends.collect();
    (!sends.is_empty()).then(|| about(&sends, but))
}

/// `inbound|<port>||`: the app of the scope's workload, at the pod's own address; with addresses of both
/// families, at the one that the caller dialled, because the app may listen on one of them only.
pub fn inbound(mesh: &Mesh, scope: &Scope, port: u16) -> Option<cluster::Cluster> {
    let entry = mesh.workload(&scope.namespace, &scope.workload)?;
    let protocol = *entry.ports.get(&port)?;
    let name = naming::inbound_cluster(port);
    let metadata = metadata_of(mesh, entry, port, "");
    if Families::of(&entry.workload.addresses) == Families::BOTH {
        return Some(cluster::Cluster {
            metadata,
            ..as_dialled(name, protocol)
        });
    }
    let at = SocketAddr::new(entry.workload.address()?, port);
    Some(cluster::Cluster {
        load_assignment: Some(endpoint::app(&name, at)),
        cluster_discovery_type: discovery(cluster::cluster::DiscoveryType::Static),
        metadata,
        ..delivery(name, protocol)
    })
}

/// To the app on undeclared ports, at the address the caller dialled.
pub fn inbound_passthrough(mesh: &Mesh, scope: &Scope) -> Option<cluster::Cluster> {
    mesh.workload(&scope.namespace, &scope.workload)?;
    let name = naming::INBOUND_PASSTHROUGH.to_owned();
    Some(as_dialled(name, AppProtocol::Undeclared))
}

fn as_dialled(name: String, protocol: AppProtocol) -> cluster::Cluster {
    cluster::Cluster {
        cluster_discovery_type: discovery(cluster::cluster::DiscoveryType::OriginalDst),
        lb_policy: cluster::cluster::LbPolicy::ClusterProvided as i32,
        ..delivery(name, protocol)
    }
}

fn delivery(name: String, protocol: AppProtocol) -> cluster::Cluster {
    let source = |address: &str| core::SocketAddress {
        address: address.to_owned(),
        port_specifier: Some(core::socket_address::PortSpecifier::PortValue(0)),
        ..core::SocketAddress::default()
    };
    cluster::Cluster {
        name,
        connect_timeout: duration(CONNECT_TIMEOUT),
        circuit_breakers: Some(resilience::circuit_breakers(&BackendSpec::default())),
        typed_extension_protocol_options: protocol::options(&Upstream::app(protocol), None, None),
        upstream_bind_config: Some(core::BindConfig {
            source_address: Some(source(DELIVERY_V4)),
            extra_source_addresses: vec![core::ExtraSourceAddress {
                address: Some(source(DELIVERY_V6)),
                ..core::ExtraSourceAddress::default()
            }],
            ..core::BindConfig::default()
        }),
        ..cluster::Cluster::default()
    }
}

/// To the connection's original destination, unchanged.
pub fn passthrough() -> cluster::Cluster {
    cluster::Cluster {
        name: naming::PASSTHROUGH.to_owned(),
        connect_timeout: duration(CONNECT_TIMEOUT),
        cluster_discovery_type: discovery(cluster::cluster::DiscoveryType::OriginalDst),
        lb_policy: cluster::cluster::LbPolicy::ClusterProvided as i32,
        circuit_breakers: Some(resilience::circuit_breakers(&BackendSpec::default())),
        ..cluster::Cluster::default()
    }
}

/// Has no endpoint.
pub fn black_hole() -> cluster::Cluster {
    let name = naming::BLACK_HOLE;
    cluster::Cluster {
        name: name.to_owned(),
        connect_timeout: duration(CONNECT_TIMEOUT),
        cluster_discovery_type: discovery(cluster::cluster::DiscoveryType::Static),
        load_assignment: Some(no_endpoint(name)),
        typed_extension_protocol_options: HashMap::new(),
        ..cluster::Cluster::default()
    }
}

pub fn no_endpoint(cluster: &str) -> ClusterLoadAssignment {
    ClusterLoadAssignment {
        cluster_name: cluster.to_owned(),
        ..ClusterLoadAssignment::default()
    }
}
