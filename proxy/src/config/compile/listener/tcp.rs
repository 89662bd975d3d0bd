//! The TCP proxy, and tunnels.

use std::time::Duration;

use xds_proto::anyam::tunnel::v1 as own;
use xds_proto::envoy::config::core::v3::Metadata;
use xds_proto::envoy::extensions::filters::network::tcp_proxy::v3 as pb;
use xds_proto::envoy::r#type::v3::{HashPolicy, hash_policy};

use super::http;
use super::scope::Scope;
use crate::config::access_log::{Format, Operator, Part};
use crate::config::compile::access_log::format;
use crate::config::compile::headers::append;
use crate::config::compile::lb_metadata::criteria;
use crate::config::compile::support::{
    At, CompileError, each, ignored, required, timeout, u32_opt, unsupported,
};
use crate::config::listener::{TcpProxy, TcpTarget, TunnelOptions, Tunneling, WeightedTcpCluster};
use crate::config::route::AppendAction;

/// The default of connections inside one connection.
const STREAMS: u32 = 128;
/// Bytes of one of them that may be under way.
const STREAM_WINDOW: u32 = 512 << 10;
/// Connections with none inside.
const TUNNEL_IDLE: Duration = Duration::from_secs(3600);

/// envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy.
pub fn proxy(
    scope: &mut Scope<'_>,
    at: At<'_>,
    m: &pb::TcpProxy,
) -> Result<TcpProxy, CompileError> {
    let pb::TcpProxy {
        stat_prefix,
        on_demand,
        metadata_match,
        idle_timeout,
        downstream_idle_timeout,
        upstream_idle_timeout,
        access_log,
        max_connect_attempts,
        backoff_options,
        hash_policy,
        tunneling_config,
        max_downstream_connection_duration,
        max_downstream_connection_duration_jitter_percentage,
        access_log_flush_interval,
        flush_access_log_on_connected,
        access_log_options,
        proxy_protocol_tlvs,
        proxy_protocol_tlv_merge_policy,
        upstream_connect_mode,
        max_early_data_bytes,
        check_drain_close,
        cluster_specifier,
    } = m;
    unsupported!(
        at,
        on_demand,
        downstream_idle_timeout,
        upstream_idle_timeout,
        backoff_options,
        access_log_flush_interval,
        flush_access_log_on_connected,
        access_log_options,
        proxy_protocol_tlvs,
        proxy_protocol_tlv_merge_policy,
    );
    ignored!(
        "statistics are kept by edge and by listener name",
        stat_prefix
    );
    ignored!(
        "connections begin at different times; that is jitter enough",
        max_downstream_connection_duration_jitter_percentage
    );
    ignored!(
        "the upstream is dialled early when it may speak first, with a bound of our own",
        upstream_connect_mode,
        max_early_data_bytes
    );
    ignored!(
        "a drain cuts TCP connections at its deadline",
        check_drain_close
    );
    Ok(TcpProxy {
        target: target(
            scope,
            at,
            metadata_match.as_ref(),
            required!(at, cluster_specifier),
        )?,
        subset: criteria(at, None, metadata_match.as_ref())?,
        idle_timeout: timeout(
            at.field("idle_timeout"),
            idle_timeout,
            Some(Duration::from_secs(3600)),
        )?,
        max_duration: timeout(
            at.field("max_downstream_connection_duration"),
            max_downstream_connection_duration,
            None,
        )?,
        max_connect_attempts: u32_opt(max_connect_attempts).unwrap_or(1).max(1),
        hash_source_ip: hashes_source_ip(at, hash_policy)?,
        tunneling: match tunneling_config {
            Some(m) => Some(tunneling(at.field("tunneling_config"), m)?),
            None => None,
        },
        access_log: http::logs(scope.compiler, at, access_log)?,
    })
}

fn target(
    scope: &mut Scope<'_>,
    at: At<'_>,
    metadata: Option<&Metadata>,
    specifier: &pb::tcp_proxy::ClusterSpecifier,
) -> Result<TcpTarget, CompileError> {
    use pb::tcp_proxy::ClusterSpecifier as Spec;
    match specifier {
        Spec::Cluster(name) if name.is_empty() => at.field("cluster").fail("is empty"),
        Spec::Cluster(name) => Ok(TcpTarget::Cluster(scope.clusters.refer(name))),
        Spec::WeightedClusters(m) => {
            let at = at.field("weighted_clusters");
            let pb::tcp_proxy::WeightedCluster { clusters } = m;
            let mut bound = 0;
            let weighted = each(at, "clusters", clusters, |at, m| {
                let pb::tcp_proxy::weighted_cluster::ClusterWeight {
                    name,
                    weight,
                    metadata_match,
                } = m;
                if *weight == 0 {
                    return at.field("weight").fail("must be above zero");
                }
                bound += u64::from(*weight);
                Ok(WeightedTcpCluster {
                    bound,
                    cluster: scope.clusters.refer(name),
                    subset: match metadata_match {
                        Some(_) => criteria(at, metadata, metadata_match.as_ref())?,
                        None => None,
                    },
                })
            })?;
            if weighted.is_empty() {
                return at.field("clusters").fail("is required");
            }
            Ok(TcpTarget::Weighted(weighted))
        }
    }
}

/// `hash_policy`.
fn hashes_source_ip(at: At<'_>, m: &[HashPolicy]) -> Result<bool, CompileError> {
    use hash_policy::{FilterState, PolicySpecifier, SourceIp};
    if m.len() > 1 {
        return at.field("hash_policy").fail("may have one entry");
    }
    let Some(HashPolicy { policy_specifier }) = m.first() else {
        return Ok(false);
    };
    let at = at.index("hash_policy", 0);
    Ok(match required!(at, policy_specifier) {
        PolicySpecifier::SourceIp(SourceIp {}) => true,
        PolicySpecifier::FilterState(FilterState { key }) => {
            ignored!(
                "no filter here sets filter state, so that it never gives a hash",
                key
            );
            false
        }
    })
}

/// CONNECT for every connection, to every endpoint.
fn tunneling(at: At<'_>, m: &pb::tcp_proxy::TunnelingConfig) -> Result<Tunneling, CompileError> {
    let pb::tcp_proxy::TunnelingConfig {
        hostname,
        use_post,
        headers_to_add,
        propagate_response_headers,
        post_path,
        propagate_response_trailers,
        request_id_extension,
        request_id_header,
        request_id_metadata_key,
        formatters,
    } = m;
    unsupported!(
        at,
        use_post,
        post_path,
        propagate_response_headers,
        propagate_response_trailers,
        request_id_extension,
        formatters,
    );
    ignored!(
        "without request_id_extension there is none",
        request_id_header,
        request_id_metadata_key
    );
    if hostname.is_empty() {
        return at.field("hostname").fail("is required");
    }
    let headers = each(at, "headers_to_add", headers_to_add, |at, m| {
        let edit = append(at, m)?;
        if edit.action == AppendAction::OverwriteIfExists {
            return at
                .field("append_action")
                .fail("a CONNECT has no header to overwrite");
        }
        at_dial(at.field("header").field("value"), &edit.value)?;
        Ok((edit.name.name, edit.value))
    })?;
    let hostname_at = at.field("hostname");
    let hostname = format(hostname_at, hostname)?;
    at_dial(hostname_at, &hostname)?;
    Ok(Tunneling { hostname, headers })
}

/// Only what is known when a connection is dialled can be used.
fn at_dial(at: At<'_>, format: &Format) -> Result<(), CompileError> {
    let known = |part: &Part| match part {
        Part::Literal(_) => true,
        Part::Operator(operator) => matches!(
            operator,
            Operator::Percent
                | Operator::StartTime(_)
                | Operator::UpstreamCluster
                | Operator::UpstreamHost
                | Operator::DownstreamRemoteAddress { .. }
                | Operator::DownstreamDirectRemoteAddress { .. }
                | Operator::DownstreamLocalAddress { .. }
                | Operator::DownstreamLocalPort
                | Operator::RequestedServerName
        ),
    };
    match format.0.iter().all(known) {
        true => Ok(()),
        false => at.fail("has a command operator that is not known when a tunnel is opened"),
    }
}

/// anyam.tunnel.v1.Tunnel.
pub fn tunnel(at: At<'_>, m: &own::Tunnel) -> Result<TunnelOptions, CompileError> {
    let own::Tunnel {
        max_concurrent_streams,
        idle_timeout,
    } = m;
    Ok(TunnelOptions {
        max_concurrent_streams: match *max_concurrent_streams {
            0 => STREAMS,
            streams => streams,
        },
        stream_window: STREAM_WINDOW,
        idle_timeout: timeout(at.field("idle_timeout"), idle_timeout, Some(TUNNEL_IDLE))?,
    })
}
