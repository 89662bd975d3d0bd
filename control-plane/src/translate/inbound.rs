//! The listener of the inbound side: filter chains by the port that was dialled, by whether mTLS of
//! the mesh comes in, and by what it carries.

use std::collections::BTreeSet;
use std::num::NonZeroU16;
use std::time::Duration;

use xds_proto::anyam::tunnel::v1::Tunnel;
use xds_proto::envoy::config::core::v3::TrafficDirection;
use xds_proto::envoy::config::listener::v3 as listener;
use xds_proto::envoy::extensions::filters::listener::tls_inspector::v3::TlsInspector;
use xds_proto::envoy::extensions::filters::network::http_connection_manager::v3::http_connection_manager::RouteSpecifier;

use super::http::{self, Side, filter};
use super::listener::{
    bound, errors_in_words, listener_filter, loop_guard, original_dst, tcp_proxy,
};
use super::policy::{Layer, authorization, looks_at_paths, network_rbac};
use super::proto::{duration, typed, u32v};
use super::{naming, route, tls};
use crate::ads::resources::Scope;
use crate::model::Mesh;
use crate::model::manifest::policy::{EscapedSlashes, LogFormat, MtlsMode};
use crate::model::manifest::service::AppProtocol;
use crate::model::mesh::WorkloadEntry;

/// How long a client may take to begin its handshake.
const DETECT: Duration = Duration::from_secs(5);
/// Where plaintext is taken: a server that speaks first waits this long for a silent client.
const DETECT_PLAIN: Duration = Duration::from_millis(300);

/// `inbound` of the scope's workload.
pub fn inbound(mesh: &Mesh, scope: &Scope) -> Option<listener::Listener> {
    let entry = mesh.workload(&scope.namespace, &scope.workload)?;
    let meta = &entry.workload.meta;
    let mut chains = vec![loop_guard(scope.ports.inbound)];
    let overridden = mesh.policies.by_workload.get(&meta.key());
    let overridden = overridden.and_then(|policy| policy.spec.mtls.as_ref());
    let overridden = overridden.into_iter().flat_map(|mtls| mtls.ports.keys());
    let ports: BTreeSet<u16> = entry
        .ports
        .keys()
        .copied()
        .chain(overridden.map(|port| NonZeroU16::get(*port)))
        // An app that listens there is not reached from outside.
        .filter(|port| *port != naming::TUNNEL_PORT)
        .collect();
    let (mut plain, mut mtls) = (false, false);
    for port in ports.into_iter().map(Some).chain([None]) {
        let mode = mesh.mtls(&meta.namespace, &meta.name, port.unwrap_or_default());
        plain |= mode != MtlsMode::Strict;
        mtls |= mode != MtlsMode::Disabled;
        let protocol = port.and_then(|port| entry.ports.get(&port)).copied();
        let log = mesh.access_log(&meta.namespace, &meta.name);
        let known = protocol.is_some();
        let protocol = protocol.unwrap_or(AppProtocol::Undeclared);
        let maker = Maker {
            mesh,
            scope,
            entry,
            port,
            protocol,
            known,
            log,
        };
        chains.extend(maker.chains(mode));
    }
    if mtls && scope.anyam {
        chains.push(tunnel(scope));
    }
    let (address, additional_addresses) = bound(mesh, scope, scope.ports.inbound);
    Some(listener::Listener {
        name: naming::INBOUND.to_owned(),
        address,
        additional_addresses,
        listener_filters: vec![
            original_dst(),
            listener_filter(
                "envoy.filters.listener.tls_inspector",
                typed(&TlsInspector::default()),
            ),
        ],
        listener_filters_timeout: duration(if plain { DETECT_PLAIN } else { DETECT }),
        continue_on_listener_filters_timeout: plain,
        filter_chains: chains,
        traffic_direction: TrafficDirection::Inbound as i32,
        metadata: Some(errors_in_words(None)),
        ..listener::Listener::default()
    })
}

/// Takes connections inside HTTP/2 connections; each gets the chain of its own port, and with it
/// the authorisation.
fn tunnel(scope: &Scope) -> listener::FilterChain {
    let port = naming::TUNNEL_PORT;
    listener::FilterChain {
        name: format!("inbound|{port}|tunnel"),
        filter_chain_match: Some(listener::FilterChainMatch {
            destination_port: u32v(u32::from(port)),
            transport_protocol: "tls".to_owned(),
            ..listener::FilterChainMatch::default()
        }),
        filters: vec![filter("anyam.tunnel", typed(&Tunnel::default()))],
        transport_socket: Some(tls::downstream(scope, &[tls::TUNNEL])),
        ..listener::FilterChain::default()
    }
}

/// Makes the chains of one port; `None`: all undeclared ports.
struct Maker<'a> {
    mesh: &'a Mesh,
    scope: &'a Scope,
    entry: &'a WorkloadEntry,
    port: Option<u16>,
    protocol: AppProtocol,
    /// Whether the port has a cluster of its own.
    known: bool,
    log: LogFormat,
}

/// What comes in.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Security {
    Mtls,
    Plain,
}

impl Maker<'_> {
    fn chains(&self, mode: MtlsMode) -> Vec<listener::FilterChain> {
        let mut chains = match mode {
            MtlsMode::Strict => self.strict(),
            MtlsMode::Permissive => self.by_alpn(),
            MtlsMode::Disabled => Vec::new(),
        };
        if mode != MtlsMode::Strict {
            // TLS that is not the mesh's is the app's own.
            chains.push(self.chain("tls", self.matches("tls", &[]), Security::Plain, Layer::Tcp));
            let layer = if self.protocol.is_http() {
                Layer::Http
            } else {
                Layer::Tcp
            };
            let matches = self.matches("raw_buffer", &[]);
            chains.push(self.chain("plain", matches, Security::Plain, layer));
        }
        chains
    }

    /// Only mTLS is accepted, so its ALPN may be missing or any.
    fn strict(&self) -> Vec<listener::FilterChain> {
        let rest = self.matches("tls", &[]);
        match self.protocol {
            AppProtocol::Undeclared => vec![
                self.chain(
                    "mtls-http",
                    self.matches("tls", &tls::HTTP),
                    Security::Mtls,
                    Layer::Http,
                ),
                self.chain("mtls-tcp", rest, Security::Mtls, Layer::Tcp),
            ],
            AppProtocol::Tcp | AppProtocol::Tls => {
                vec![self.chain("mtls-tcp", rest, Security::Mtls, Layer::Tcp)]
            }
            AppProtocol::Http | AppProtocol::Http2 | AppProtocol::Grpc => {
                vec![self.chain("mtls-http", rest, Security::Mtls, Layer::Http)]
            }
        }
    }

    /// mTLS of the mesh is distinguished from other TLS by its ALPN.
    fn by_alpn(&self) -> Vec<listener::FilterChain> {
        let http = self.matches("tls", &tls::HTTP);
        let tcp = self.matches("tls", &[tls::TCP]);
        let mut chains = Vec::new();
        if !self.protocol.is_opaque() {
            chains.push(self.chain("mtls-http", http, Security::Mtls, Layer::Http));
        }
        if !self.protocol.is_http() {
            chains.push(self.chain("mtls-tcp", tcp, Security::Mtls, Layer::Tcp));
        }
        chains
    }

    fn matches(&self, transport: &str, alpn: &[&str]) -> listener::FilterChainMatch {
        listener::FilterChainMatch {
            destination_port: self.port.and_then(|port| u32v(u32::from(port))),
            transport_protocol: transport.to_owned(),
            application_protocols: alpn.iter().map(|name| (*name).to_owned()).collect(),
            ..listener::FilterChainMatch::default()
        }
    }

    fn cluster(&self) -> String {
        match self.port {
            Some(port) if self.known => naming::inbound_cluster(port),
            _ => naming::INBOUND_PASSTHROUGH.to_owned(),
        }
    }

    /// Apps differ in how they decode an escaped slash, so where a policy matches paths it is
    /// refused, unless a MeshPolicy sets otherwise.
    fn escaped_slashes(&self) -> EscapedSlashes {
        let meta = &self.entry.workload.meta;
        let said = self.mesh.escaped_slashes(&meta.namespace, &meta.name);
        said.unwrap_or(match looks_at_paths(self.mesh, self.entry, self.port) {
            true => EscapedSlashes::Reject,
            false => EscapedSlashes::Keep,
        })
    }

    fn chain(
        &self,
        name: &str,
        matches: listener::FilterChainMatch,
        security: Security,
        layer: Layer,
    ) -> listener::FilterChain {
        let cluster = self.cluster();
        let rules = authorization(self.mesh, self.entry, self.port, layer);
        let mut filters = Vec::new();
        let alpn: &[&str] = match layer {
            Layer::Tcp => {
                if rules.deny.is_some() || rules.audit.is_some() {
                    filters.push(network_rbac(rules.deny, rules.audit, "deny"));
                }
                if rules.allow.is_some() {
                    filters.push(network_rbac(rules.allow, None, "allow"));
                }
                filters.push(tcp_proxy(&cluster, self.log));
                &[tls::TCP]
            }
            Layer::Http => {
                let side = match security {
                    Security::Mtls => Side::InboundMtls,
                    Security::Plain => Side::InboundPlain,
                };
                let routes = RouteSpecifier::RouteConfig(route::inbound(&cluster));
                filters.push(http::manager(
                    side,
                    &cluster,
                    routes,
                    http::rbac(&rules),
                    self.log,
                    self.escaped_slashes(),
                ));
                if self.scope.anyam {
                    &[tls::H2_CASE, tls::H2, tls::HTTP1, "h2", "http/1.1"]
                } else {
                    // Envoy reads HTTP/1 under any ALPN but `h2`. Where none is agreed on, it
                    // detects HTTP/2 by its preface.
                    &[tls::HTTP1, "h2", "http/1.1"]
                }
            }
        };
        let port = self
            .port
            .map_or("other".to_owned(), |port| port.to_string());
        listener::FilterChain {
            name: format!("inbound|{port}|{name}"),
            filter_chain_match: Some(matches),
            filters,
            transport_socket: (security == Security::Mtls)
                .then(|| tls::downstream(self.scope, alpn)),
            ..listener::FilterChain::default()
        }
    }
}
