//! The health check filter.

use std::sync::Arc;
use std::time::Instant;

use xds_proto::envoy::extensions::filters::http::health_check::v3 as pb;
use xds_proto::envoy::r#type::v3::Percent;

use super::FilterScope;
use crate::config::compile::matcher::header;
use crate::config::compile::support::{At, CompileError, duration, each, required};
use crate::config::filter::{FilterConfig, HealthCheckFilter, HealthCheckMode, KeptHealth};

pub fn filter(
    at: At<'_>,
    m: &pb::HealthCheck,
    scope: FilterScope<'_>,
) -> Result<FilterConfig, CompileError> {
    let pb::HealthCheck {
        pass_through_mode,
        cache_time,
        cluster_min_healthy_percentages,
        headers,
    } = m;
    let passes = required!(at, pass_through_mode).value;
    let kept = duration(at.field("cache_time"), cache_time)?.filter(|time| !time.is_zero());
    let mode = match (passes, kept) {
        (true, _) if !cluster_min_healthy_percentages.is_empty() => {
            return at
                .field("cluster_min_healthy_percentages")
                .fail("has no place beside pass_through_mode, as in Envoy");
        }
        (true, kept) => {
            HealthCheckMode::PassThrough(kept.map(|time| KeptHealth::new(time, Instant::now())))
        }
        (false, Some(_)) => {
            return at
                .field("cache_time")
                .fail("has a place beside pass_through_mode only, as in Envoy");
        }
        (false, None) => {
            let mut clusters = Vec::new();
            for (name, Percent { value }) in cluster_min_healthy_percentages {
                let at = at.key("cluster_min_healthy_percentages", name);
                if !(0.0..=100.0).contains(value) {
                    return at.fail(format_args!("{value} is not between 0 and 100"));
                }
                // In range, and cut off as in Envoy.
                clusters.push((name.as_str().into(), *value as u8));
            }
            // Maps have no order on the wire.
            clusters.sort();
            HealthCheckMode::Answer(clusters)
        }
    };
    Ok(FilterConfig::HealthCheck(Arc::new(HealthCheckFilter {
        headers: each(at, "headers", headers, header)?,
        mode,
        switch: scope.health.clone(),
        local_cluster: scope.local_cluster.clone(),
    })))
}
