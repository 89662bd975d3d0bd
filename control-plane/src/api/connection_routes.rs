//! TCPRoutes and TLSRoutes as proxies are given them, in words: read from the filter chains of listeners.

use std::collections::BTreeMap;

use prost::Message;
use xds_proto::envoy::config::listener::v3::filter::ConfigType;
use xds_proto::envoy::config::listener::v3::{FilterChain, Listener};
use xds_proto::envoy::extensions::filters::network::tcp_proxy::v3::TcpProxy;
use xds_proto::envoy::extensions::filters::network::tcp_proxy::v3::tcp_proxy::ClusterSpecifier;
use xds_proto::type_url::LISTENER;

use super::backend::{backend, parts};
use crate::ads::{Scope, View};
use crate::model::Kind;
use crate::types::{RouteBackend, RouteRule, ServiceRoutes};

/// By the name of the port's cluster: those of ports that such routes govern.
pub fn all(view: &dyn View, scope: &Scope) -> BTreeMap<String, ServiceRoutes> {
    let mut all = BTreeMap::new();
    for resource in view.list(LISTENER, scope) {
        let Ok(listener) = Listener::decode(resource.body) else {
            continue;
        };
        for chain in &listener.filter_chains {
            let Some((name, rule)) = rule(view, scope, chain) else {
                continue;
            };
            let (port, _, host) = parts(&name).unwrap_or((0, "", &name));
            let empty = ServiceRoutes {
                service: host.to_owned(),
                port,
                hosts: vec![host.to_owned()],
                rules: Vec::new(),
                name: name.clone(),
            };
            let routes = all.entry(name).or_insert(empty);
            // A Service has a listener for each of its addresses.
            if !routes.rules.iter().any(|known| known.name == rule.name) {
                routes.rules.push(rule);
            }
        }
    }
    all
}

/// Whether they take every connection to the port.
pub fn are_whole(routes: &ServiceRoutes) -> bool {
    let mut rules = routes.rules.iter();
    rules.any(|rule| rule.matches == [EVERY])
}

const EVERY: &str = "every connection";

/// Of a chain that a route became, and the name of the port's cluster.
fn rule(view: &dyn View, scope: &Scope, chain: &FilterChain) -> Option<(String, RouteRule)> {
    let (kind, _) = chain.name.split_once('/')?;
    let mut kinds = Kind::ALL
        .into_iter()
        .filter(|kind| kind.is_connection_route());
    kinds.find(|it| it.name() == kind)?;
    let ConfigType::TypedConfig(any) = chain.filters.last()?.config_type.as_ref()? else {
        return None;
    };
    let proxy = TcpProxy::decode(&*any.value).ok()?;
    let rule = RouteRule {
        name: chain.name.clone(),
        matches: matches(chain),
        backends: backends(view, scope, &proxy),
        ..RouteRule::default()
    };
    Some((proxy.stat_prefix, rule))
}

fn matches(chain: &FilterChain) -> Vec<String> {
    match &chain.filter_chain_match {
        None => vec![EVERY.to_owned()],
        Some(found) if found.server_names.is_empty() => vec!["every TLS connection".to_owned()],
        Some(found) => {
            let names = found.server_names.iter();
            names.map(|name| format!("server name = {name}")).collect()
        }
    }
}

fn backends(view: &dyn View, scope: &Scope, proxy: &TcpProxy) -> Vec<RouteBackend> {
    match &proxy.cluster_specifier {
        Some(ClusterSpecifier::Cluster(name)) => vec![backend(view, scope, name, 100)],
        Some(ClusterSpecifier::WeightedClusters(all)) => {
            let shares = all.clusters.iter();
            let shares = shares.map(|it| backend(view, scope, &it.name, it.weight));
            shares.collect()
        }
        None => Vec::new(),
    }
}
