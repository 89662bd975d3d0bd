//! TCPRoutes and TLSRoutes as filter chains of a port's listener.

use std::net::SocketAddr;
use std::sync::Arc;

use xds_proto::envoy::config::listener::v3 as listener;
use xds_proto::envoy::extensions::filters::network::tcp_proxy::v3::tcp_proxy::weighted_cluster::ClusterWeight;
use xds_proto::envoy::extensions::filters::network::tcp_proxy::v3::tcp_proxy::{
    ClusterSpecifier, WeightedCluster,
};

use super::listener::{chain, tcp_proxy, tcp_proxy_to};
use super::naming::{BLACK_HOLE, Carries, INVALID_BACKEND, OutboundName};
use super::route::rule_name;
use crate::model::Mesh;
use crate::model::manifest::policy::LogFormat;
use crate::model::manifest::route::{Destination, Route};
use crate::model::manifest::service::AppProtocol;
use crate::model::mesh::{PortEntry, server_names};

/// The routes of connections that govern calls from a namespace to an address, by precedence.
pub fn governing<'a>(mesh: &'a Mesh, namespace: &str, at: SocketAddr) -> &'a [Arc<Route>] {
    let port = port(mesh, at);
    port.map_or(&[], |port| port.connection_routes_for(namespace))
}

/// Whether callers from `namespace` have another listener for an address than others have.
pub fn is_consumed(mesh: &Mesh, namespace: &str, at: SocketAddr) -> bool {
    let port = port(mesh, at);
    port.is_some_and(|it| it.has_connection_routes() && it.consumers.contains_key(namespace))
}

/// Whether the apps at an address speak TLS, by a BackendTLSPolicy.
pub fn has_tls(mesh: &Mesh, at: SocketAddr) -> bool {
    match mesh.by_vip.contains_key(&at.ip()) {
        true => port(mesh, at).is_some_and(|port| port.tls.is_some()),
        false => mesh
            .workload_by_ip(at.ip())
            .is_some_and(|entry| mesh.tls_at(entry, at.port()).is_some()),
    }
}

fn port(mesh: &Mesh, at: SocketAddr) -> Option<&PortEntry> {
    let service = mesh.service(mesh.by_vip.get(&at.ip())?)?;
    service.port(at.port())
}

/// A chain that takes every connection, by the first rule of the route: nothing distinguishes others.
pub fn whole(
    mesh: &Mesh,
    route: &Route,
    stat_prefix: &str,
    log: LogFormat,
) -> listener::FilterChain {
    let name = match route.rules.is_empty() {
        true => String::new(),
        false => rule_name(route, 0, 0),
    };
    chain(
        &name,
        None,
        tcp_proxy_to(stat_prefix, target(mesh, route), log),
    )
}

/// Chains by server name. TLS that no route matches is refused.
pub fn by_server_name(
    mesh: &Mesh,
    routes: &[Arc<Route>],
    stat_prefix: &str,
    log: LogFormat,
) -> Vec<listener::FilterChain> {
    let mut chains = Vec::new();
    let mut any = false;
    for share in server_names::divide(routes) {
        if share.names.is_empty() {
            continue;
        }
        any |= share.names.contains(&server_names::ANY);
        let names = share
            .names
            .iter()
            .filter(|name| **name != server_names::ANY);
        let names = names.map(|name| (*name).to_owned()).collect();
        chains.push(listener::FilterChain {
            filter_chain_match: Some(tls_match(names)),
            ..whole(mesh, share.route, stat_prefix, log)
        });
    }
    if !any {
        chains.push(any_tls("no-route", tcp_proxy(BLACK_HOLE, log)));
    }
    chains
}

/// A chain for TLS of every server name.
pub fn any_tls(name: &str, filter: listener::Filter) -> listener::FilterChain {
    chain(name, Some(tls_match(Vec::new())), filter)
}

fn tls_match(server_names: Vec<String>) -> listener::FilterChainMatch {
    listener::FilterChainMatch {
        server_names,
        transport_protocol: "tls".to_owned(),
        ..listener::FilterChainMatch::default()
    }
}

/// Shares without a valid backend name a cluster that does not exist, so that their connections are
/// closed.
fn target(mesh: &Mesh, route: &Route) -> ClusterSpecifier {
    let backends = route.rules.first().map(|rule| &rule.backends);
    let backends = backends.into_iter().flatten();
    let shares = backends.filter(|backend| backend.weight > 0);
    let shares = shares.map(|backend| ClusterWeight {
        name: cluster_name(mesh, route, &backend.to),
        weight: backend.weight,
        ..ClusterWeight::default()
    });
    let clusters: Vec<_> = shares.collect();
    match clusters.as_slice() {
        [] => ClusterSpecifier::Cluster(INVALID_BACKEND.to_owned()),
        [only] => ClusterSpecifier::Cluster(only.name.clone()),
        _ => ClusterSpecifier::WeightedClusters(WeightedCluster { clusters }),
    }
}

fn cluster_name(mesh: &Mesh, route: &Route, to: &Destination) -> String {
    let name = || {
        let (service, number) = mesh.backend(route, to).ok()?;
        let carries = match service.port(number)?.protocol {
            AppProtocol::Undeclared => Carries::Tcp,
            _ => Carries::Declared,
        };
        Some(OutboundName::new(number, carries, &service.host).to_string())
    };
    name().unwrap_or_else(|| INVALID_BACKEND.to_owned())
}
