//! Request mirrors.

use xds_proto::envoy::config::route::v3 as pb;

use crate::config::compile::refs::ClusterNames;
use crate::config::compile::support::{At, CompileError, each, ignored, unsupported};
use crate::config::compile::values::runtime_fraction;
use crate::config::route::Mirror;

/// envoy.config.route.v3.RouteAction.RequestMirrorPolicy.
pub fn mirrors(
    at: At<'_>,
    policies: &[pb::route_action::RequestMirrorPolicy],
    clusters: &mut ClusterNames,
) -> Result<Vec<Mirror>, CompileError> {
    each(at, "request_mirror_policies", policies, |at, m| {
        let pb::route_action::RequestMirrorPolicy {
            cluster,
            cluster_header,
            runtime_fraction: share,
            trace_sampled,
            disable_shadow_host_suffix_append,
            request_headers_mutations,
            host_rewrite_literal,
        } = m;
        unsupported!(
            at,
            cluster_header,
            request_headers_mutations,
            host_rewrite_literal
        );
        ignored!("spans are not made yet", trace_sampled);
        Ok(Mirror {
            cluster: clusters.refer(cluster),
            fraction: match share {
                Some(share) => runtime_fraction(at.field("runtime_fraction"), share)?,
                None => 1_000_000,
            },
            keep_host: *disable_shadow_host_suffix_append,
        })
    })
}
