//! Listeners.
//!
//! - `chain`, `chain_match`: filter chains and their match; `scope`: what they share; `inspect`: listener filters
//! - `tcp`: tcp_proxy; `http`, `http_fields`, `http_filters`, `local_reply`, `protocol`: the HTTP
//!   connection manager

pub(super) mod chain;
pub(super) mod chain_match;
pub(super) mod http;
pub(super) mod http_fields;
pub(super) mod http_filters;
pub(super) mod inspect;
pub(super) mod local_reply;
pub(super) mod protocol;
pub(super) mod scope;
pub(super) mod tcp;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use xds_proto::envoy::config::listener::v3 as pb;

use super::listener::inspect::inspectors;
use super::listener::scope::Scope;
use super::refs::{ClusterNames, Fetches, RouteNames};
use super::support::{
    At, CompileError, bool_or, each, elsewhere, ignored, known, required, timeout, u32_or,
    unsupported,
};
use super::{Compiler, values};
use crate::config::listener::{Direction, ListenerDef, ListenerKey, SocketProtocol};
use crate::snapshot::Listener;

/// Envoy's default for `per_connection_buffer_limit_bytes`.
const BUFFER: u32 = 1 << 20;
const BACKLOG: u32 = 4096;

/// envoy.config.listener.v3.Listener, not yet linked. TLS contexts are taken over from the previous
/// version where their settings are the same.
pub fn listener(
    compiler: &Compiler,
    at: At<'_>,
    m: &pb::Listener,
    previous: Option<&Listener>,
) -> Result<Listener, CompileError> {
    check(at, m)?;
    let pb::Listener {
        name,
        address,
        additional_addresses,
        filter_chains,
        use_original_dst,
        default_filter_chain,
        per_connection_buffer_limit_bytes,
        deprecated_v1,
        listener_filters,
        listener_filters_timeout,
        continue_on_listener_filters_timeout,
        traffic_direction,
        access_log,
        tcp_backlog_size,
        bind_to_port,
        ignore_global_conn_limit,
        ..
    } = m;

    let key = values::listener_key(at.field("address"), required!(at, address))?;
    let ListenerKey { protocol, address } = key;
    let name: Arc<str> = match name.as_str() {
        "" => address.to_string().into(),
        name => name.into(),
    };
    let mut scope = Scope {
        compiler,
        clusters: ClusterNames::default(),
        routes: RouteNames::default(),
        fetches: Fetches::default(),
        before: previous.map(|listener| &*listener.def),
    };
    let chains = scope.chains(at, filter_chains)?;
    let default_chain = match default_filter_chain {
        Some(m) => Some(scope.chain(at.field("default_filter_chain"), m, "default")?),
        None => None,
    };
    if chains.is_empty() && default_chain.is_none() {
        return at.field("filter_chains").fail("is required");
    }
    let mut inspect = inspectors(at, listener_filters)?;
    inspect.1.timeout = timeout(
        at.field("listener_filters_timeout"),
        listener_filters_timeout,
        Some(Duration::from_secs(15)),
    )?;
    inspect.1.continue_on_timeout = *continue_on_listener_filters_timeout;
    let bound = deprecated_v1
        .as_ref()
        .map_or(bind_to_port, |old| &old.bind_to_port);
    let metrics = compiler.metrics_of_listener(&name);
    let connection_limits = compiler.connection_limits(&name, !*ignore_global_conn_limit);
    let upstream_limit = compiler.upstream_limits.get(&*name).cloned();
    Ok(Listener {
        def: Arc::new(ListenerDef {
            name,
            protocol,
            address,
            more_addresses: more_addresses(at, protocol, additional_addresses)?,
            bind_to_port: bool_or(bound, true),
            original_dst: inspect.0 || bool_or(use_original_dst, false),
            use_original_dst: bool_or(use_original_dst, false),
            direction: direction(at, *traffic_direction)?,
            inspect: inspect.1,
            chains,
            default_chain,
            per_connection_buffer_limit: u32_or(per_connection_buffer_limit_bytes, BUFFER) as usize,
            connection_limits,
            upstream_limit,
            backlog: u32_or(tcp_backlog_size, BACKLOG),
            access_log: http::logs(compiler, at, access_log)?,
            declared_by: m.metadata.as_ref().and_then(values::declared_by),
            gives_reasons: m.metadata.as_ref().is_some_and(values::gives_reasons),
            metrics,
            secrets: scope.fetches.secrets,
            initial_fetch_timeout: scope.fetches.initial_fetch_timeout,
        }),
        clusters: scope.clusters.links(),
        routes: scope.routes.links(),
    })
}

fn more_addresses(
    at: At<'_>,
    protocol: SocketProtocol,
    list: &[pb::AdditionalAddress],
) -> Result<Vec<SocketAddr>, CompileError> {
    each(at, "additional_addresses", list, |at, m| {
        let pb::AdditionalAddress {
            address,
            socket_options,
            tcp_keepalive,
        } = m;
        unsupported!(at, socket_options, tcp_keepalive);
        let address = required!(at, address);
        let at = at.field("address");
        let key = values::listener_key(at, address)?;
        match key.protocol == protocol {
            true => Ok(key.address),
            false => at.fail("has another protocol than the listener's first"),
        }
    })
}

/// Every field of a listener: refused, without effect, or read by [`listener`].
fn check(at: At<'_>, m: &pb::Listener) -> Result<(), CompileError> {
    let pb::Listener {
        name,
        address,
        additional_addresses,
        stat_prefix,
        stats_matcher,
        filter_chains,
        fcds_config,
        filter_chain_matcher,
        use_original_dst,
        default_filter_chain,
        per_connection_buffer_limit_bytes,
        per_connection_buffer_high_watermark_timeout,
        metadata,
        deprecated_v1,
        drain_type,
        listener_filters,
        listener_filters_timeout,
        continue_on_listener_filters_timeout,
        transparent,
        freebind,
        socket_options,
        tcp_fast_open_queue_length,
        traffic_direction,
        udp_listener_config,
        api_listener,
        connection_balance_config,
        reuse_port,
        enable_reuse_port,
        access_log,
        tcp_backlog_size,
        max_connections_to_accept_per_socket_event,
        bind_to_port,
        enable_mptcp,
        ignore_global_conn_limit,
        bypass_overload_manager,
        tcp_keepalive,
        listener_specifier,
    } = m;
    let (transparent, freebind) = (&bool_or(transparent, false), &bool_or(freebind, false));
    unsupported!(
        at,
        fcds_config,
        filter_chain_matcher,
        per_connection_buffer_high_watermark_timeout,
        transparent,
        freebind,
        socket_options,
        udp_listener_config,
        api_listener,
        enable_mptcp,
        tcp_keepalive,
        listener_specifier,
    );
    ignored!(
        "statistics are kept by edge and by listener name",
        stat_prefix,
        stats_matcher
    );
    ignored!("every drain is gradual", drain_type);
    ignored!(
        "early data is refused in TLS, and TCP fast open saves nothing without it",
        tcp_fast_open_queue_length
    );
    ignored!(
        "every worker accepts on a socket of its own (SO_REUSEPORT)",
        connection_balance_config,
        reuse_port,
        enable_reuse_port,
        max_connections_to_accept_per_socket_event
    );
    ignored!("overload has no actions here", bypass_overload_manager);
    elsewhere! {
        address, additional_addresses, filter_chains, use_original_dst, default_filter_chain,
        per_connection_buffer_limit_bytes, deprecated_v1, listener_filters,
        listener_filters_timeout, continue_on_listener_filters_timeout, traffic_direction,
        access_log, tcp_backlog_size, bind_to_port, name, metadata, ignore_global_conn_limit,
    }
    Ok(())
}

fn direction(at: At<'_>, direction: i32) -> Result<Direction, CompileError> {
    use xds_proto::envoy::config::core::v3::TrafficDirection as Kind;
    Ok(match known(at.field("traffic_direction"), direction)? {
        Kind::Unspecified => Direction::Unspecified,
        Kind::Inbound => Direction::Inbound,
        Kind::Outbound => Direction::Outbound,
    })
}
