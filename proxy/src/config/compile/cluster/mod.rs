//! Clusters.
//!
//! - `discovery`: where endpoints come from; `http`: HTTP options
//! - `balancing`: load balancing; of it, `common`: what all its policies have, `hashing`: what hashes,
//!   `locality`: localities, `subset`: subsets
//! - `resilience`: limits and outlier detection; `health`: active health checks; `transport`: transport
//!   sockets; `service`: the service that one stands for

pub(super) mod balancing;
mod common;
pub(super) mod discovery;
pub(super) mod hashing;
pub(super) mod health;
pub(super) mod http;
pub(super) mod locality;
pub(super) mod resilience;
pub(super) mod service;
pub(super) mod subset;
pub(super) mod transport;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use arc_swap::ArcSwap;
use xds_proto::envoy::config::cluster::v3 as pb;

use super::Compiler;
use super::cluster::transport::{bind_source, keepalive, pool_key, transports};
use super::refs::Fetches;
use super::support::{At, CompileError, elsewhere, ignored, positive, unsupported};
use super::values::declared_by;
use crate::config::cluster::ClusterDef;
use crate::config::outlier::OutlierConfig;
use crate::upstream::cluster::Cluster;
use crate::upstream::endpoint::EndpointSet;
use crate::upstream::limits::CircuitBreakers;

/// envoy.config.cluster.v3.Cluster. State is carried over from the previous version.
pub fn cluster(
    compiler: &Compiler,
    at: At<'_>,
    m: &pb::Cluster,
    previous: Option<&Cluster>,
) -> Result<Cluster, CompileError> {
    check(at, m)?;
    if m.name.is_empty() {
        return at.field("name").fail("is required");
    }
    let pool_key = pool_key(m);
    let same_pool = previous.filter(|before| before.pool_key == pool_key);
    let def = definition(compiler, at, m, same_pool)?;
    Ok(Cluster {
        id: same_pool.map_or_else(|| compiler.next_id(), |before| before.id),
        pool_key,
        detector: previous.map_or_else(Arc::default, |before| before.detector.clone()),
        turn: previous.map_or_else(Arc::default, |before| before.turn.clone()),
        limits: previous.map_or_else(
            || CircuitBreakers::new(def.thresholds),
            |before| before.limits.clone(),
        ),
        metrics: compiler.metrics_of_cluster(&m.name),
        stale: AtomicBool::new(false),
        rebuild: compiler.rebuild.clone(),
        place: compiler.place.clone(),
        endpoints: ArcSwap::from_pointee(EndpointSet::default()),
        checks: def
            .health
            .as_ref()
            .map(|_| compiler.checks_of_cluster(&m.name, previous)),
        def,
    })
}

/// What it configures. `same_pool`: the previous version, whose connections it can use.
fn definition(
    compiler: &Compiler,
    at: At<'_>,
    m: &pb::Cluster,
    same_pool: Option<&Cluster>,
) -> Result<ClusterDef, CompileError> {
    let pb::Cluster {
        transport_socket_matches,
        name,
        connect_timeout,
        lb_policy,
        circuit_breakers,
        outlier_detection,
        upstream_bind_config,
        common_lb_config,
        transport_socket,
        metadata,
        upstream_connection_options,
        load_balancing_policy,
        lb_config,
        ignore_health_on_host_removal,
        lb_subset_config,
        ..
    } = m;

    let (transport, mut fetches) = match same_pool {
        Some(before) => (before.transport.clone(), Fetches::again(&before.secrets)),
        None => transports(compiler, at, transport_socket_matches, transport_socket)?,
    };
    let http = http_of(at, m)?;
    let thresholds = resilience::thresholds(at.field("circuit_breakers"), circuit_breakers)?;
    let outlier = outlier(at.field("outlier_detection"), outlier_detection.as_ref())?;
    let common = common::common(at.field("common_lb_config"), common_lb_config)?;
    let old = balancing::OldFields {
        policy: *lb_policy,
        config: lb_config,
        hashing: common.hashing,
        locality: common.locality,
        subsets: lb_subset_config,
        exclusive: match lb_subset_config {
            Some(_) => Some("lb_subset_config"),
            None => common.exclusive,
        },
    };
    let balancing = balancing::policy(at, &old, load_balancing_policy)?;
    let discovery = discovery::discovery(at, m, &mut fetches)?;
    let health = health::checks(compiler, at, m, &discovery, http.protocol)?;
    Ok(ClusterDef {
        name: name.as_str().into(),
        discovery,
        connect_timeout: positive(
            at.field("connect_timeout"),
            connect_timeout,
            Duration::from_secs(5),
        )?,
        lb: balancing.policy,
        slow_start: balancing.slow_start,
        locality: balancing.locality,
        subsets: balancing.subsets.map(Arc::new),
        hash_policy: balancing.hash_policy.or(http.hash_policy),
        session_health: common.session_health,
        transport,
        protocol: http.protocol,
        http1: http.http1,
        http2: http.http2,
        idle_timeout: http.idle_timeout,
        max_connection_duration: http.max_connection_duration,
        max_requests_per_connection: http.max_requests_per_connection,
        max_response_headers_count: http.max_response_headers_count,
        max_response_headers_bytes: http.max_response_headers_bytes,
        keepalive: keepalive(at, upstream_connection_options)?,
        outlier,
        health,
        ignores_new_hosts: common.ignores_new_hosts,
        removes_healthy_hosts: *ignore_health_on_host_removal,
        thresholds,
        panic_threshold: common.panic_threshold,
        close_connections_on_host_set_change: common.close_connections_on_host_set_change,
        retry: http.retry,
        service: metadata.as_ref().and_then(service::of),
        declared_by: metadata.as_ref().and_then(declared_by),
        bind_source: bind_source(at, upstream_bind_config)?,
        initial_fetch_timeout: fetches.initial_fetch_timeout,
        secrets: fetches.secrets,
    })
}

fn outlier(
    at: At<'_>,
    m: Option<&pb::OutlierDetection>,
) -> Result<Option<Arc<OutlierConfig>>, CompileError> {
    let Some(m) = m else {
        return Ok(None);
    };
    Ok(Some(Arc::new(resilience::outlier(at, m)?)))
}

fn http_of(at: At<'_>, m: &pb::Cluster) -> Result<http::ClusterHttp, CompileError> {
    http::of(
        at,
        &http::Sources {
            typed: &m.typed_extension_protocol_options,
            upstream: &m.upstream_http_protocol_options,
            common: &m.common_http_protocol_options,
            http1: &m.http_protocol_options,
            http2: &m.http2_protocol_options,
            selection: m.protocol_selection,
            max_requests: &m.max_requests_per_connection,
        },
    )
}

/// Every field of a cluster: refused, without effect, or read by [`cluster`].
fn check(at: At<'_>, m: &pb::Cluster) -> Result<(), CompileError> {
    let pb::Cluster {
        transport_socket_matches,
        transport_socket_matcher,
        name,
        alt_stat_name,
        stats_matcher,
        eds_cluster_config,
        connect_timeout,
        per_connection_buffer_limit_bytes,
        per_connection_buffer_high_watermark_timeout,
        lb_policy,
        load_assignment,
        health_checks,
        max_requests_per_connection,
        circuit_breakers,
        upstream_http_protocol_options,
        common_http_protocol_options,
        http_protocol_options,
        http2_protocol_options,
        typed_extension_protocol_options,
        dns_refresh_rate,
        dns_jitter,
        dns_failure_refresh_rate,
        respect_dns_ttl,
        dns_lookup_family,
        dns_resolvers,
        use_tcp_for_dns_lookups,
        dns_resolution_config,
        typed_dns_resolver_config,
        wait_for_warm_on_init,
        outlier_detection,
        cleanup_interval,
        upstream_bind_config,
        lb_subset_config,
        common_lb_config,
        transport_socket,
        metadata,
        protocol_selection,
        upstream_connection_options,
        close_connections_on_host_health_failure,
        ignore_health_on_host_removal,
        filters,
        load_balancing_policy,
        lrs_server,
        lrs_report_endpoint_metrics,
        track_timeout_budgets,
        upstream_config,
        track_cluster_stats,
        preconnect_policy,
        connection_pool_per_downstream_connection,
        queuing_policies,
        cluster_discovery_type,
        lb_config,
    } = m;
    unsupported!(
        at,
        transport_socket_matcher,
        per_connection_buffer_high_watermark_timeout,
        dns_resolvers,
        use_tcp_for_dns_lookups,
        dns_resolution_config,
        filters,
        upstream_config,
        connection_pool_per_downstream_connection,
        queuing_policies,
    );
    ignored!(
        "statistics carry the cluster's own name",
        alt_stat_name,
        stats_matcher
    );
    ignored!(
        "buffers belong to work in flight and come from a bounded pool",
        per_connection_buffer_limit_bytes
    );
    ignored!(
        "names are resolved by the system's resolver, whose answers carry no TTL",
        respect_dns_ttl,
        typed_dns_resolver_config,
        dns_jitter,
        dns_failure_refresh_rate
    );
    ignored!(
        "a cluster serves once its endpoints are known",
        wait_for_warm_on_init
    );
    ignored!(
        "endpoints of an original-destination cluster are not kept",
        cleanup_interval
    );
    ignored!(
        "without health checks it has no effect, and with them it is refused",
        close_connections_on_host_health_failure
    );
    ignored!(
        "load is reported over the Inspect stream",
        lrs_server,
        lrs_report_endpoint_metrics
    );
    ignored!(
        "statistics only",
        track_timeout_budgets,
        track_cluster_stats
    );
    ignored!(
        "connections are made when they are needed",
        preconnect_policy
    );
    ignored!(
        "read by discovery",
        eds_cluster_config,
        load_assignment,
        cluster_discovery_type,
        dns_refresh_rate,
        dns_lookup_family
    );
    ignored!("read by health", health_checks);
    elsewhere! {
        transport_socket_matches, connect_timeout, lb_policy, max_requests_per_connection,
        circuit_breakers, upstream_http_protocol_options, common_http_protocol_options,
        http_protocol_options, http2_protocol_options, typed_extension_protocol_options,
        outlier_detection, upstream_bind_config, common_lb_config, transport_socket, metadata,
        protocol_selection, upstream_connection_options, load_balancing_policy, lb_config,
        lb_subset_config, name, ignore_health_on_host_removal,
    }
    Ok(())
}
