//! Resources as operators write them (YAML through the proto3 JSON mapping), compiled whole.

use std::sync::Arc;
use std::time::Duration;

use prost::{Message, Name};
use xds_proto::type_url;

use super::*;
use crate::config::ClusterRef;
use crate::config::cluster::{LbPolicy, Transport, UpstreamProtocol};
use crate::config::filter::{FilterConfig, FilterOverride, FilterOverrides};
use crate::config::listener::{TcpTarget, TerminalFilter, TransportProtocol};
use crate::config::policy::RbacAction;
use crate::config::route::{Action, ClusterSpecifier, PathMatch, RetryOn};
use crate::snapshot::Snapshot;

mod balancing;
mod costs;
mod filters;
mod fixtures;
mod health;
mod names;
mod publishing;
use fixtures::{CHAINED, CLUSTER, HTTP, ROUTES};

fn compiler() -> Compiler {
    let registry = Registry::new().unwrap();
    let dropped = registry.counter("dropped", "Lost.").unwrap();
    Compiler::new(
        &registry,
        Arc::new(Sinks::new(dropped, 16 << 10)),
        Arc::default(),
    )
    .unwrap()
}

fn message<M: Message + Name + Default>(yaml: &str) -> M {
    let value: serde_json::Value = xds_proto::yaml::to_json(yaml).unwrap();
    xds_proto::json::decode_json(&value).unwrap_or_else(|e| panic!("{e}\n{yaml}"))
}

fn listener(yaml: &str) -> Result<Listener, CompileError> {
    compiler().listener(&message(yaml), None)
}

fn cluster(yaml: &str) -> Result<Cluster, CompileError> {
    compiler().cluster(&message(yaml), None)
}

fn routes(yaml: &str) -> Result<RouteConfig, CompileError> {
    compiler().route_config(&message(yaml))
}

/// The override of the filter called `name`.
fn of_filter<'a>(overrides: &'a FilterOverrides, name: &str) -> Option<&'a FilterOverride> {
    let named = overrides.0.iter().find(|(known, _)| **known == *name);
    named.map(|(_, said)| said)
}

/// `yaml` with `from` replaced, compiled; the error's path.
fn refused(
    compile: impl Fn(&str) -> Option<CompileError>,
    yaml: &str,
    from: &str,
    to: &str,
) -> String {
    assert!(yaml.contains(from), "{from}");
    match compile(&yaml.replacen(from, to, 1)) {
        Some(error) => error.path,
        None => panic!("`{to}` was taken"),
    }
}

#[test]
fn a_listener_with_everything() {
    let listener = listener(CHAINED).unwrap();
    let def = &listener.def;
    assert!(def.original_dst && !def.bind_to_port && def.inspect.tls && def.inspect.http);
    assert_eq!(def.inspect.timeout, None);
    assert_eq!(def.direction, super::super::listener::Direction::Inbound);
    let [tcp, http] = &def.chains[..] else {
        panic!("two chains");
    };
    assert_eq!(tcp.matches.destination_port, Some(5432));
    assert_eq!(tcp.matches.transport_protocol, Some(TransportProtocol::Tls));
    assert_eq!(&*tcp.matches.application_protocols[0], b"anyam-tcp");
    assert_eq!(tcp.matches.prefix_ranges[0].address.to_string(), "10.1.0.0");
    assert!(tcp.tls.is_some());
    assert_eq!(
        tcp.rbac[0].enforced.as_ref().unwrap().action,
        RbacAction::Deny
    );
    let TerminalFilter::Tcp(proxy) = &tcp.terminal else {
        panic!("a TCP proxy");
    };
    assert_eq!(proxy.idle_timeout, None);
    let TcpTarget::Weighted(weighted) = &proxy.target else {
        panic!("weighted");
    };
    let of = |at: usize| (weighted[at].bound, weighted[at].cluster);
    assert_eq!([of(0), of(1)], [(1, ClusterRef(0)), (4, ClusterRef(1))]);
    assert_eq!(&*listener.clusters[1].name, "inbound|5433||");
    let TerminalFilter::Http(manager) = &http.terminal else {
        panic!("HTTP");
    };
    let [authz] = &manager.filters[..] else {
        panic!("one filter");
    };
    assert!(&*authz.name == "authz" && matches!(authz.config, FilterConfig::Rbac(_)));
    assert!(manager.http1.preserve_case && manager.proxy_status && manager.path.merge_slashes);
    assert_eq!(manager.stream_idle_timeout, Some(Duration::from_secs(300)));
    assert_eq!(manager.access_log.len(), 1);
    assert_eq!(&*def.default_chain.as_ref().unwrap().name, "default");
}

#[test]
fn routes_with_everything() {
    let routes = routes(ROUTES).unwrap();
    let table = &routes.table;
    assert_eq!(table.exact["shop.example:80"], 0);
    assert_eq!(&*table.suffix[0].0, ".shop.example");
    assert_eq!(table.any, Some(1));
    let [first, second, third] = &table.virtual_hosts[0].routes[..] else {
        panic!("three routes");
    };
    assert!(matches!(&first.matches.path, PathMatch::SeparatedPrefix(p) if &**p == "/cart"));
    let overrides = first.filters.as_ref().unwrap();
    assert!(matches!(
        of_filter(overrides, "authz"),
        Some(FilterOverride::Disabled)
    ));
    let Action::Forward(forward) = &first.action else {
        panic!("forward");
    };
    let ClusterSpecifier::Weighted { total, clusters } = &forward.target else {
        panic!("weighted");
    };
    assert_eq!((*total, clusters[1].bound), (100, 100));
    assert_eq!(&*routes.clusters[1].name, "cart-v2");
    let retry = forward.retry.as_ref().unwrap();
    assert!(retry.on.has(RetryOn::FIVE_XX) && retry.on.has(RetryOn::GRPC_UNAVAILABLE));
    assert!(retry.avoid_previous_hosts);
    assert_eq!(forward.timeout, None);
    let Action::Forward(forward) = &second.action else {
        panic!("forward");
    };
    assert_eq!(forward.timeout, Some(Duration::from_secs(15)));
    assert!(forward.retry.is_none());
    assert!(matches!(&third.action, Action::Direct { status: 418, body } if body == "teapot"));
    assert!(
        matches!(&table.virtual_hosts[1].routes[0].action, Action::Redirect(r) if r.status == 308)
    );
}

#[test]
fn a_cluster_with_everything() {
    let cluster = cluster(CLUSTER).unwrap();
    assert_eq!(
        cluster.lb,
        LbPolicy::LeastRequest {
            choices: 3,
            bias: 1.0
        }
    );
    assert_eq!(cluster.protocol, UpstreamProtocol::Http2);
    assert_eq!(cluster.limits.thresholds().connections, 7);
    assert_eq!(cluster.panic_threshold, 0);
    assert_eq!(
        cluster.service.as_ref().unwrap().host,
        "cart.shop.svc.cluster.local"
    );
    let Transport::Tls(context) = &cluster.transport[0].transport else {
        panic!("TLS");
    };
    assert_eq!(context.options().alpn, [b"anyam-h2".to_vec()]);
    assert_eq!(context.options().rules.sans.len(), 1);
    let mtls = [("anyam".into(), "mtls".into())];
    assert_eq!(cluster.transport_for(&mtls), Some(0));
    assert_eq!(cluster.transport_for(&[]), Some(1));
    let outlier = cluster.outlier.as_ref().unwrap();
    assert_eq!(
        (outlier.consecutive_5xx, outlier.max_ejection_percent),
        (Some(2), 50)
    );
}

#[test]
fn what_is_refused_is_named_by_its_path() {
    let on_listener = |yaml: &str| listener(yaml).err();
    let on_routes = |yaml: &str| routes(yaml).err();
    let on_cluster = |yaml: &str| cluster(yaml).err();
    let chain = "filter_chains[1].filters[0].typed_config";
    for (from, to, path) in [
        ("merge_slashes: true", "internal_address_config: {unix_sockets: true}",
            format!("{chain}.internal_address_config")),
        ("prefix: /", "connect_matcher: {}, cookies: [{name: a}]",
            format!("{chain}.route_config.virtual_hosts[0].routes[0].match.cookies")),
        ("any: true", "matcher: {name: x}",
            "filter_chains[0].filters[0].typed_config.rules.policies[\"no one\"].permissions[0].matcher".into()),
    ] {
        assert_eq!(refused(on_listener, CHAINED, from, to), path);
    }
    assert_eq!(
        refused(on_listener, HTTP, "router.v3.Router", "grpc_web.v3.GrpcWeb"),
        "filter_chains[0].filters[0].typed_config.http_filters[0].typed_config"
    );
    for (from, to, path) in [
        (
            "path_separated_prefix: /cart",
            "path_separated_prefix: /cart/",
            "virtual_hosts[0].routes[0].match.path_separated_prefix",
        ),
        (
            "\"*.shop.example\"",
            "\"SHOP.example:80\"",
            "virtual_hosts[0].domains[1]",
        ),
        (
            "retry_on: 5xx,unavailable",
            "retry_on: 5xx,sometimes",
            "virtual_hosts[0].routes[0].route.retry_policy.retry_on",
        ),
        (
            "weight: 90",
            "weight: 0, cluster_header: x",
            "virtual_hosts[0].routes[0].route.weighted_clusters.clusters[0].cluster_header",
        ),
        (
            "x-team",
            "x team",
            "virtual_hosts[0].routes[1].match.headers[0].name",
        ),
    ] {
        assert_eq!(refused(on_routes, ROUTES, from, to), path);
    }
    for (from, to, path) in [
        (
            "lb_policy: LEAST_REQUEST",
            "lb_policy: LOAD_BALANCING_POLICY_CONFIG",
            "load_balancing_policy",
        ),
        (
            "max_connections: 7",
            "retry_budget: {budget_percent: {value: 120}}",
            "circuit_breakers.thresholds[0].retry_budget.budget_percent",
        ),
        (
            "san_type: URI",
            "san_type: EMAIL",
            "transport_socket_matches[0].transport_socket.typed_config.common_tls_context\
             .combined_validation_context.default_validation_context\
             .match_typed_subject_alt_names[0].san_type",
        ),
        (
            "eds_config: {ads: {}}",
            "eds_config: {path_config_source: {path: /x}}",
            "eds_cluster_config.eds_config.path_config_source",
        ),
    ] {
        assert_eq!(refused(on_cluster, CLUSTER, from, to), path);
    }
}

#[test]
fn udp_is_refused_at_every_address_of_a_listener() {
    let on_listener = |yaml: &str| listener(yaml).err();
    let udp = "address: {socket_address: {protocol: UDP, address: 0.0.0.0";
    for (list, path) in [
        ("", "address.socket_address.protocol"),
        (
            "additional_addresses: [{ address: { socket_address: {protocol: UDP, address: '::', port_value: 1} } }]\n",
            "additional_addresses[0].address.socket_address.protocol",
        ),
    ] {
        let plain = "address: {socket_address: {address: 0.0.0.0";
        let to = match list {
            "" => udp.to_owned(),
            list => format!("{list}{plain}"),
        };
        assert_eq!(refused(on_listener, CHAINED, plain, &to), path);
    }
}

#[test]
fn a_field_that_the_schema_lacks_is_refused() {
    let mut body = message::<cluster_pb::Cluster>(CLUSTER).encode_to_vec();
    // Field 15000, varint 1.
    body.extend([0xc0, 0xa9, 0x07, 0x01]);
    let error = compiler()
        .compile(type_url::CLUSTER, &body, &Snapshot::default())
        .err()
        .unwrap();
    assert!(error.to_string().contains("schema lacks"), "{error}");
}
