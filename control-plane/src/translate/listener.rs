//! Listeners of the outbound side: one for each address and port a call can go to, and the
//! catch-all that hands connections to them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use xds_proto::envoy::config::core::v3::{self as core, TrafficDirection};
use xds_proto::envoy::config::listener::v3 as listener;
use xds_proto::envoy::extensions::filters::listener::http_inspector::v3::HttpInspector;
use xds_proto::envoy::extensions::filters::listener::original_dst::v3::OriginalDst;
use xds_proto::envoy::extensions::filters::listener::tls_inspector::v3::TlsInspector;
use xds_proto::envoy::extensions::filters::network::http_connection_manager::v3::HttpFilter;
use xds_proto::envoy::extensions::filters::network::tcp_proxy::v3 as tcp;
use xds_proto::google::protobuf::Any;

use super::http::{self, Side, access_log, filter};
use super::naming::{self, Carries, OutboundName};
use super::proto::{address, boolv, duration, fields, metadata, text, typed, u32v};
use super::route_filters::RouteFilters;
use super::{cluster, connection_route, policy};
use crate::ads::resources::Scope;
use crate::model::manifest::families::Families;
use crate::model::manifest::policy::{EgressMode, EscapedSlashes, LogFormat};
use crate::model::manifest::service::AppProtocol;
use crate::model::{Kind, Mesh};

/// How long a client may stay silent before its connection is taken for TCP. Short, because a
/// server may be the one to speak first.
const DETECT: Duration = Duration::from_millis(300);
/// How long a client may take to begin, where none is taken for TCP.
const DETECT_TLS: Duration = Duration::from_secs(5);

/// `outbound/<address>:<port>`: a service's or a workload's.
pub fn outbound(mesh: &Mesh, scope: &Scope, at: SocketAddr) -> Option<listener::Listener> {
    let (protocol, host) = destination(mesh, at)?;
    let escaped_slashes = mesh.escaped_slashes(&scope.namespace, &scope.workload);
    let make = OutboundFilters {
        host,
        port: at.port(),
        log: mesh.access_log(&scope.namespace, &scope.workload),
        filters: RouteFilters::at(mesh, &scope.namespace, at).chain(),
        escaped_slashes: escaped_slashes.unwrap_or(EscapedSlashes::Keep),
    };
    let mut it = listener::Listener {
        name: naming::listener(at),
        address: Some(address(at)),
        bind_to_port: boolv(false),
        traffic_direction: TrafficDirection::Outbound as i32,
        metadata: Some(errors_in_words(declaration(mesh, at))),
        ..listener::Listener::default()
    };
    let routes = connection_route::governing(mesh, &scope.namespace, at);
    let stat_prefix = make.name(Carries::Declared);
    // The apps' TLS is originated here, but callers' own is forwarded; nothing else goes there.
    let only_tls = connection_route::has_tls(mesh, at) && !protocol.is_http();
    match routes.first().map(|first| (first, first.kind)) {
        Some((first, kind)) if kind != Kind::TlsRoute => {
            let whole = connection_route::whole(mesh, first, &stat_prefix, make.log);
            it.filter_chains = vec![whole];
            return Some(it);
        }
        Some(_) => {
            it.filter_chains =
                connection_route::by_server_name(mesh, routes, &stat_prefix, make.log);
            detect_tls(&mut it);
        }
        None if only_tls && protocol != AppProtocol::Tcp => {
            let carries = match protocol {
                AppProtocol::Tls => Carries::Declared,
                _ => Carries::Tcp,
            };
            it.filter_chains = vec![connection_route::any_tls("tls", make.bytes(carries))];
            detect_tls(&mut it);
        }
        None => {}
    }
    // On a port of TLS nothing else is left than what its routes match, or callers' own.
    let complete = !routes.is_empty() || (only_tls && !scope.anyam);
    if protocol != AppProtocol::Tls || !complete {
        make.add_chains(&mut it, protocol, scope.anyam, only_tls);
    }
    Some(it)
}

/// What the filters of a listener of the outbound side have in common.
struct OutboundFilters {
    host: String,
    port: u16,
    log: LogFormat,
    filters: Vec<HttpFilter>,
    escaped_slashes: EscapedSlashes,
}

impl OutboundFilters {
    fn name(&self, carries: Carries) -> String {
        OutboundName::new(self.port, carries, &self.host).to_string()
    }

    fn bytes(&self, carries: Carries) -> listener::Filter {
        tcp_proxy(&self.name(carries), self.log)
    }

    fn http(&self, carries: Carries) -> listener::Filter {
        let name = self.name(carries);
        let routes = http::by_name(name.clone());
        let filters = self.filters.clone();
        let slashes = self.escaped_slashes;
        http::manager(Side::Outbound, &name, routes, filters, self.log, slashes)
    }

    fn http1(&self, carries: Carries) -> listener::FilterChain {
        detected("http1", &["http/1.0", "http/1.1"], self.http(carries))
    }

    /// Chains by what the port declares, after those for TLS, if there are some. `only_tls`: what is
    /// neither HTTP nor TLS is closed.
    fn add_chains(
        &self,
        it: &mut listener::Listener,
        protocol: AppProtocol,
        anyam: bool,
        only_tls: bool,
    ) {
        match protocol {
            // HTTP without TLS is forwarded as HTTP, so that an answer that is TLS is an error in words.
            AppProtocol::Tls if anyam => {
                detect_http(it, !only_tls);
                it.filter_chains.push(self.http1(Carries::Http1));
                let bytes = chain("declared", None, self.bytes(Carries::Declared));
                it.default_filter_chain = (!only_tls).then_some(bytes);
            }
            AppProtocol::Undeclared => {
                // Envoy cannot send by ALPN which version it detected; bytes are carried as they are.
                if anyam {
                    detect_http(it, !only_tls);
                    let http2 = detected("http2", &["h2c"], self.http(Carries::Http2));
                    let both = [self.http1(Carries::Declared), http2];
                    it.filter_chains.extend(both);
                }
                let bytes = self.bytes(Carries::Tcp);
                match it.filter_chains.is_empty() {
                    true => it.filter_chains = vec![chain("declared", None, bytes)],
                    false if only_tls => {}
                    false => {
                        silent_is_tcp(it);
                        it.default_filter_chain = Some(chain("tcp", None, bytes));
                    }
                }
            }
            AppProtocol::Tcp | AppProtocol::Tls => {
                it.filter_chains = vec![chain("declared", None, self.bytes(Carries::Declared))];
            }
            AppProtocol::Http | AppProtocol::Http2 | AppProtocol::Grpc => {
                it.filter_chains = vec![chain("declared", None, self.http(Carries::Declared))];
            }
        }
    }
}

/// Named in errors that a wrong declaration explains.
fn declaration(mesh: &Mesh, at: SocketAddr) -> Option<String> {
    let service = mesh.service(mesh.by_vip.get(&at.ip())?)?;
    Some(cluster::declaration(service, service.port(at.port())?))
}

/// Responses that our proxy makes here give their reasons, and name the declaration of the port. The
/// texts of stock Envoy stay as they are.
pub fn errors_in_words(declared_by: Option<String>) -> core::Metadata {
    let reasons = ("local_replies", text("reasons"));
    let declared_by = declared_by.map(|named| ("declared_by", text(named)));
    let entries: Vec<_> = declared_by.into_iter().chain([reasons]).collect();
    metadata(&[("anyam", fields(&entries))])
}

/// `or_tcp`: a silent client is taken for TCP.
fn detect_http(it: &mut listener::Listener, or_tcp: bool) {
    it.listener_filters.push(listener_filter(
        "envoy.filters.listener.http_inspector",
        typed(&HttpInspector::default()),
    ));
    if or_tcp {
        silent_is_tcp(it);
    }
}

fn silent_is_tcp(it: &mut listener::Listener) {
    it.listener_filters_timeout = duration(DETECT);
    it.continue_on_listener_filters_timeout = true;
}

fn detect_tls(it: &mut listener::Listener) {
    it.listener_filters.push(listener_filter(
        "envoy.filters.listener.tls_inspector",
        typed(&TlsInspector::default()),
    ));
    it.listener_filters_timeout = duration(DETECT_TLS);
}

/// The protocol at an address, and the host in names of its clusters and routes.
fn destination(mesh: &Mesh, at: SocketAddr) -> Option<(AppProtocol, String)> {
    if let Some(service) = mesh.by_vip.get(&at.ip()).and_then(|key| mesh.service(key)) {
        return Some((service.port(at.port())?.protocol, service.host.clone()));
    }
    let entry = mesh.workload_by_ip(at.ip())?;
    Some((entry.protocol(at.port()), at.ip().to_string()))
}

fn detected(name: &str, alpn: &[&str], filter: listener::Filter) -> listener::FilterChain {
    let matches = listener::FilterChainMatch {
        application_protocols: alpn.iter().map(|name| (*name).to_owned()).collect(),
        ..listener::FilterChainMatch::default()
    };
    chain(name, Some(matches), filter)
}

pub fn chain(
    name: &str,
    matches: Option<listener::FilterChainMatch>,
    filter: listener::Filter,
) -> listener::FilterChain {
    listener::FilterChain {
        name: name.to_owned(),
        filter_chain_match: matches,
        filters: vec![filter],
        ..listener::FilterChain::default()
    }
}

pub fn listener_filter(name: &str, config: Any) -> listener::ListenerFilter {
    listener::ListenerFilter {
        name: name.to_owned(),
        config_type: Some(listener::listener_filter::ConfigType::TypedConfig(config)),
        ..listener::ListenerFilter::default()
    }
}

pub fn original_dst() -> listener::ListenerFilter {
    listener_filter(
        "envoy.filters.listener.original_dst",
        typed(&OriginalDst::default()),
    )
}

pub fn tcp_proxy(cluster: &str, log: LogFormat) -> listener::Filter {
    let to = tcp::tcp_proxy::ClusterSpecifier::Cluster(cluster.to_owned());
    tcp_proxy_to(cluster, to, log)
}

pub fn tcp_proxy_to(
    stat_prefix: &str,
    to: tcp::tcp_proxy::ClusterSpecifier,
    log: LogFormat,
) -> listener::Filter {
    let proxy = tcp::TcpProxy {
        stat_prefix: stat_prefix.to_owned(),
        cluster_specifier: Some(to),
        access_log: access_log(log, false),
        ..tcp::TcpProxy::default()
    };
    filter("envoy.filters.network.tcp_proxy", typed(&proxy))
}

/// To nowhere, for connections that were not redirected: forwarding them would loop.
pub fn loop_guard(port: u16) -> listener::FilterChain {
    let matches = listener::FilterChainMatch {
        destination_port: u32v(u32::from(port)),
        ..listener::FilterChainMatch::default()
    };
    chain(
        "loop",
        Some(matches),
        tcp_proxy(naming::BLACK_HOLE, LogFormat::Off),
    )
}

/// `outbound`: hands over to the listener of the original destination; what has none leaves the
/// mesh, or may not.
pub fn catch_all(mesh: &Mesh, scope: &Scope) -> listener::Listener {
    let log = mesh.access_log(&scope.namespace, &scope.workload);
    let port = scope.ports.outbound;
    let (address, additional_addresses) = bound(mesh, scope, port);
    let mut it = listener::Listener {
        name: naming::OUTBOUND.to_owned(),
        address,
        additional_addresses,
        use_original_dst: boolv(true),
        listener_filters: vec![original_dst()],
        filter_chains: vec![loop_guard(port)],
        traffic_direction: TrafficDirection::Outbound as i32,
        ..listener::Listener::default()
    };
    let egress = match mesh.egress(&scope.namespace, &scope.workload) {
        EgressMode::Allow => chain("egress", None, tcp_proxy(naming::PASSTHROUGH, log)),
        EgressMode::Block => {
            // Refused before it reaches the tcp_proxy, a connection is logged by the listener.
            it.access_log = access_log(log, false);
            let nowhere = tcp_proxy(naming::BLACK_HOLE, LogFormat::Off);
            let mut blocked = chain("egress", None, nowhere);
            blocked.filters.insert(0, policy::blocks_egress());
            blocked
        }
    };
    it.default_filter_chain = Some(egress);
    it
}

/// Every address of the families that connections to `port` can come in over. Our own proxy leaves
/// out a family that its kernel does not have; Envoy gets those of its workload's addresses.
pub fn bound(
    mesh: &Mesh,
    scope: &Scope,
    port: u16,
) -> (Option<core::Address>, Vec<listener::AdditionalAddress>) {
    let families = match scope.anyam {
        true => Families::BOTH,
        false => mesh
            .families(&scope.namespace, &scope.workload)
            .unwrap_or(Families::V4),
    };
    let any = [
        (families.v4, IpAddr::V4(Ipv4Addr::UNSPECIFIED)),
        (families.v6, IpAddr::V6(Ipv6Addr::UNSPECIFIED)),
    ];
    let mut all = any
        .into_iter()
        .filter(|(has, _)| *has)
        .map(|(_, ip)| address(SocketAddr::new(ip, port)));
    let first = all.next();
    let more = all.map(|address| listener::AdditionalAddress {
        address: Some(address),
        ..listener::AdditionalAddress::default()
    });
    (first, more.collect())
}
