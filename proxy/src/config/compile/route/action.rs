//! What a route does: forward, redirect, answer.

use std::sync::Arc;
use std::time::Duration;

use xds_proto::envoy::config::core::v3::Metadata;
use xds_proto::envoy::config::route::v3 as pb;

use super::hash::hash_policy;
use super::mirror::mirrors;
use super::overrides::OuterOverrides;
use super::retry::retry_policy;
use super::rewrite::{host_rewrite, path_rewrite_of, redirect};
use crate::config::compile::filter::rate_limit::rate_limits;
use crate::config::compile::headers::{request_edits, response_edits};
use crate::config::compile::lb_metadata::criteria;
use crate::config::compile::matcher::header_name;
use crate::config::compile::refs::ClusterNames;
use crate::config::compile::support::{
    At, CompileError, bool_or, duration, each, ignored, known, required, timeout, u32_opt,
    unsupported,
};
use crate::config::compile::values::data_source;
use crate::config::filter::RouteRateLimits;
use crate::config::route::{
    Action, ClusterSpecifier, Mirror, RetryPolicy, RouteAction, UpgradeOverride, WeightedCluster,
};

/// Envoy's default for `timeout`.
const TIMEOUT: Duration = Duration::from_secs(15);

/// What a route has from its virtual host and table.
pub struct Inherited<'a> {
    /// Bytes of a direct response's body.
    pub max_body: usize,
    pub retry: Option<Arc<RetryPolicy>>,
    pub mirrors: &'a [Mirror],
}

/// What an action depends on besides itself.
#[derive(Clone, Copy)]
pub struct ActionContext<'a> {
    pub inherited: &'a Inherited<'a>,
    pub filters: OuterOverrides<'a>,
    /// No retry is before its policy's base interval.
    pub minimum_back_off: bool,
}

pub fn action(
    at: At<'_>,
    m: &pb::route::Action,
    context: ActionContext<'_>,
    clusters: &mut ClusterNames,
) -> Result<Action, CompileError> {
    use pb::route::Action as Kind;
    match m {
        Kind::Route(m) => forward(at.field("route"), m, context, clusters)
            .map(|forward| Action::Forward(Box::new(forward))),
        Kind::Redirect(m) => {
            redirect(at.field("redirect"), m).map(|redirect| Action::Redirect(Box::new(redirect)))
        }
        Kind::DirectResponse(m) => {
            direct(at.field("direct_response"), m, context.inherited.max_body)
        }
        Kind::FilterAction(_) => at
            .field("filter_action")
            .fail("is not supported by this proxy"),
        Kind::NonForwardingAction(_) => at
            .field("non_forwarding_action")
            .fail("is for servers, not for proxies"),
    }
}

fn direct(
    at: At<'_>,
    m: &pb::DirectResponseAction,
    max_body: usize,
) -> Result<Action, CompileError> {
    let pb::DirectResponseAction {
        status,
        body,
        body_format,
    } = m;
    unsupported!(at, body_format);
    let body = match body {
        Some(source) => data_source(at.field("body"), source)?,
        None => Vec::new(),
    };
    if body.len() > max_body {
        let at = at.field("body");
        return at.fail(format_args!(
            "has {} bytes, {max_body} are allowed",
            body.len()
        ));
    }
    match u16::try_from(*status) {
        Ok(status @ 200..=599) => Ok(Action::Direct {
            status,
            body: body.into(),
        }),
        _ => at.field("status").fail("is not between 200 and 599"),
    }
}

fn forward(
    at: At<'_>,
    m: &pb::RouteAction,
    context: ActionContext<'_>,
    clusters: &mut ClusterNames,
) -> Result<RouteAction, CompileError> {
    let ActionContext {
        inherited,
        filters,
        minimum_back_off,
    } = context;
    let pb::RouteAction {
        cluster_not_found_response_code,
        metadata_match,
        prefix_rewrite,
        regex_rewrite,
        path_rewrite_policy,
        path_rewrite,
        append_x_forwarded_host,
        timeout: whole,
        idle_timeout,
        flush_timeout,
        early_data_policy,
        retry_policy: retry,
        retry_policy_typed_config,
        request_mirror_policies,
        priority,
        rate_limits: own_rate_limits,
        include_vh_rate_limits,
        hash_policy: hash_rules,
        cors,
        max_grpc_timeout,
        grpc_timeout_offset,
        upgrade_configs,
        internal_redirect_policy,
        internal_redirect_action,
        max_internal_redirects,
        hedge_policy,
        max_stream_duration,
        cluster_specifier,
        host_rewrite_specifier,
    } = m;
    unsupported!(
        at,
        path_rewrite_policy,
        path_rewrite,
        early_data_policy,
        retry_policy_typed_config,
        priority,
        cors,
        grpc_timeout_offset,
        internal_redirect_policy,
        internal_redirect_action,
        hedge_policy,
    );
    ignored!(
        "a response stalled by its reader falls under the stream idle time-out",
        flush_timeout
    );
    ignored!(
        "internal redirects are not followed",
        max_internal_redirects
    );
    let specifier = required!(at, cluster_specifier);
    let durations = Durations::of(at, max_stream_duration, max_grpc_timeout)?;
    let own_mirrors = mirrors(at, request_mirror_policies, clusters)?;
    let retry = match retry {
        Some(m) => {
            let at = at.field("retry_policy");
            Some(Arc::new(retry_policy(at, m, minimum_back_off)?))
        }
        None => inherited.retry.clone(),
    };
    Ok(RouteAction {
        target: target(at, specifier, metadata_match.as_ref(), filters, clusters)?,
        cluster_not_found: not_found_code(at, *cluster_not_found_response_code)?,
        rewrite: path_rewrite_of(at, prefix_rewrite, regex_rewrite)?,
        host_rewrite: host_rewrite(at, host_rewrite_specifier)?,
        append_x_forwarded_host: *append_x_forwarded_host,
        timeout: timeout(at.field("timeout"), whole, Some(TIMEOUT))?,
        idle_timeout: match idle_timeout {
            None => None,
            given => Some(timeout(at.field("idle_timeout"), given, None)?),
        },
        max_stream_duration: durations.stream,
        max_grpc_timeout: durations.grpc,
        retry,
        hash_policy: hash_policy(at, hash_rules)?,
        subset: criteria(at, None, metadata_match.as_ref())?,
        upgrades: each(at, "upgrade_configs", upgrade_configs, upgrade)?,
        rate_limits: RouteRateLimits {
            own: rate_limits(at, own_rate_limits)?,
            include_virtual_host: bool_or(include_vh_rate_limits, false),
        },
        mirrors: if own_mirrors.is_empty() {
            inherited.mirrors.to_vec()
        } else {
            own_mirrors
        },
    })
}

/// Bounds on streams and on time-outs that clients request.
struct Durations {
    stream: Option<Option<Duration>>,
    grpc: Option<Duration>,
}

impl Durations {
    fn of(
        at: At<'_>,
        m: &Option<pb::route_action::MaxStreamDuration>,
        max_grpc_timeout: &Option<xds_proto::google::protobuf::Duration>,
    ) -> Result<Self, CompileError> {
        let old = duration(at.field("max_grpc_timeout"), max_grpc_timeout)?;
        let Some(m) = m else {
            return Ok(Self {
                stream: None,
                grpc: old,
            });
        };
        let at = at.field("max_stream_duration");
        let pb::route_action::MaxStreamDuration {
            max_stream_duration,
            grpc_timeout_header_max,
            grpc_timeout_header_offset,
        } = m;
        unsupported!(at, grpc_timeout_header_offset);
        let new = duration(at.field("grpc_timeout_header_max"), grpc_timeout_header_max)?;
        Ok(Self {
            stream: match max_stream_duration {
                Some(_) => Some(timeout(
                    at.field("max_stream_duration"),
                    max_stream_duration,
                    None,
                )?),
                None => None,
            },
            grpc: new.or(old),
        })
    }
}

fn not_found_code(at: At<'_>, code: i32) -> Result<u16, CompileError> {
    use pb::route_action::ClusterNotFoundResponseCode as Code;
    Ok(
        match known(at.field("cluster_not_found_response_code"), code)? {
            Code::ServiceUnavailable => 503,
            Code::NotFound => 404,
            Code::InternalServerError => 500,
        },
    )
}

fn target(
    at: At<'_>,
    specifier: &pb::route_action::ClusterSpecifier,
    metadata: Option<&Metadata>,
    filters: OuterOverrides<'_>,
    clusters: &mut ClusterNames,
) -> Result<ClusterSpecifier, CompileError> {
    use pb::route_action::ClusterSpecifier as Spec;
    match specifier {
        Spec::Cluster(name) if name.is_empty() => at.field("cluster").fail("is empty"),
        Spec::Cluster(name) => Ok(ClusterSpecifier::Cluster(clusters.refer(name))),
        Spec::ClusterHeader(name) => {
            header_name(at.field("cluster_header"), name).map(ClusterSpecifier::ClusterHeader)
        }
        Spec::WeightedClusters(m) => weighted(
            at.field("weighted_clusters"),
            m,
            metadata,
            filters,
            clusters,
        ),
        Spec::ClusterSpecifierPlugin(_) => at
            .field("cluster_specifier_plugin")
            .fail("is not supported by this proxy"),
        Spec::InlineClusterSpecifierPlugin(_) => at
            .field("inline_cluster_specifier_plugin")
            .fail("is not supported by this proxy"),
    }
}

fn weighted(
    at: At<'_>,
    m: &pb::WeightedCluster,
    metadata: Option<&Metadata>,
    filters: OuterOverrides<'_>,
    clusters: &mut ClusterNames,
) -> Result<ClusterSpecifier, CompileError> {
    let pb::WeightedCluster {
        clusters: entries,
        total_weight,
        runtime_key_prefix,
        random_value_specifier,
    } = m;
    unsupported!(at, random_value_specifier);
    ignored!(
        "there is no runtime layer; the weights hold",
        runtime_key_prefix
    );
    let mut total = 0;
    let clusters = each(at, "clusters", entries, |at, m| {
        let pb::weighted_cluster::ClusterWeight {
            name,
            cluster_header,
            weight,
            metadata_match,
            request_headers_to_add,
            request_headers_to_remove,
            response_headers_to_add,
            response_headers_to_remove,
            typed_per_filter_config,
            host_rewrite_specifier,
        } = m;
        unsupported!(at, cluster_header);
        total += u64::from(u32_opt(weight).unwrap_or(0));
        Ok(WeightedCluster {
            bound: total,
            cluster: clusters.refer(name),
            subset: match metadata_match {
                Some(_) => criteria(at, metadata, metadata_match.as_ref())?,
                None => None,
            },
            host_rewrite: host_rewrite_specifier.as_ref().map(|specifier| {
                let pb::weighted_cluster::cluster_weight::HostRewriteSpecifier::HostRewriteLiteral(
                    host,
                ) = specifier;
                host.as_str().into()
            }),
            request_headers: request_edits(at, request_headers_to_add, request_headers_to_remove)?,
            response_headers: response_edits(
                at,
                response_headers_to_add,
                response_headers_to_remove,
            )?,
            filters: match typed_per_filter_config.is_empty() {
                true => None,
                false => filters.with(at, typed_per_filter_config)?.shared(),
            },
        })
    })?;
    if total == 0 || total > u64::from(u32::MAX) {
        return at.fail(format_args!(
            "weights sum to {total}, not to between 1 and 2^32 - 1"
        ));
    }
    if u32_opt(total_weight).is_some_and(|given| u64::from(given) != total) {
        return at
            .field("total_weight")
            .fail(format_args!("is not the sum of weights, {total}"));
    }
    Ok(ClusterSpecifier::Weighted { total, clusters })
}

fn upgrade(
    at: At<'_>,
    m: &pb::route_action::UpgradeConfig,
) -> Result<UpgradeOverride, CompileError> {
    let pb::route_action::UpgradeConfig {
        upgrade_type,
        enabled,
        connect_config,
    } = m;
    if let Some(m) = connect_config {
        let at = at.field("connect_config");
        let pb::route_action::upgrade_config::ConnectConfig {
            proxy_protocol_config,
            allow_post,
        } = m;
        unsupported!(at, proxy_protocol_config, allow_post);
    }
    Ok(UpgradeOverride {
        kind: upgrade_type.to_ascii_lowercase().into(),
        enabled: bool_or(enabled, true),
        terminate_connect: connect_config.is_some(),
    })
}
