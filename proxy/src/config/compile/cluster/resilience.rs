//! Circuit breakers and outlier detection.

use std::time::Duration;

use xds_proto::envoy::config::cluster::v3 as pb;
use xds_proto::envoy::config::core::v3::RoutingPriority;
use xds_proto::google::protobuf::UInt32Value;

use crate::config::cluster::{RetryLimit, Thresholds};
use crate::config::compile::support::{
    At, CompileError, bool_or, duration, elsewhere, ignored, known, positive, u32_opt, u32_or,
    unsupported,
};
use crate::config::outlier::{FailurePercentage, OutlierConfig, SuccessRate};

/// The default priority's thresholds.
pub fn thresholds(at: At<'_>, m: &Option<pb::CircuitBreakers>) -> Result<Thresholds, CompileError> {
    let mut compiled = Thresholds::default();
    let Some(m) = m else {
        return Ok(compiled);
    };
    let pb::CircuitBreakers {
        thresholds,
        per_host_thresholds,
    } = m;
    unsupported!(at, per_host_thresholds);
    for (index, m) in thresholds.iter().enumerate() {
        let at = at.index("thresholds", index);
        let pb::circuit_breakers::Thresholds {
            priority,
            max_connections,
            max_pending_requests,
            max_requests,
            max_retries,
            retry_budget,
            track_remaining,
            max_connection_pools,
        } = m;
        ignored!(
            "the remaining capacity follows from the gauges",
            track_remaining
        );
        ignored!(
            "pools exist per endpoint and are bounded by connections",
            max_connection_pools
        );
        // Routes of high priority are rejected, so its thresholds apply to no request.
        if known::<RoutingPriority>(at.field("priority"), *priority)? == RoutingPriority::High {
            continue;
        }
        let default = Thresholds::default();
        compiled = Thresholds {
            connections: u32_or(max_connections, default.connections),
            pending: u32_or(max_pending_requests, default.pending),
            requests: u32_or(max_requests, default.requests),
            retries: match retry_budget {
                Some(m) => budget(at.field("retry_budget"), m)?,
                None => RetryLimit::Fixed(u32_or(max_retries, 3)),
            },
        };
    }
    Ok(compiled)
}

fn budget(
    at: At<'_>,
    m: &pb::circuit_breakers::thresholds::RetryBudget,
) -> Result<RetryLimit, CompileError> {
    let pb::circuit_breakers::thresholds::RetryBudget {
        budget_percent,
        budget_interval,
        min_retry_concurrency,
    } = m;
    unsupported!(at, budget_interval);
    let percent = budget_percent.as_ref().map_or(20.0, |share| share.value);
    if !(0.0..=100.0).contains(&percent) {
        return at.field("budget_percent").fail("is not between 0 and 100");
    }
    Ok(RetryLimit::Budget {
        percent,
        min: u32_or(min_retry_concurrency, 3),
    })
}

/// envoy.config.cluster.v3.OutlierDetection.
pub fn outlier(at: At<'_>, m: &pb::OutlierDetection) -> Result<OutlierConfig, CompileError> {
    let pb::OutlierDetection {
        consecutive_5xx,
        interval,
        base_ejection_time,
        max_ejection_percent,
        enforcing_consecutive_5xx,
        enforcing_success_rate,
        success_rate_minimum_hosts,
        success_rate_request_volume,
        success_rate_stdev_factor,
        consecutive_gateway_failure,
        enforcing_consecutive_gateway_failure,
        split_external_local_origin_errors,
        consecutive_local_origin_failure,
        enforcing_consecutive_local_origin_failure,
        enforcing_local_origin_success_rate,
        failure_percentage_threshold,
        enforcing_failure_percentage,
        enforcing_failure_percentage_local_origin,
        failure_percentage_minimum_hosts,
        failure_percentage_request_volume,
        max_ejection_time,
        max_ejection_time_jitter,
        successful_active_health_check_uneject_host,
        monitors,
        always_eject_one_host,
        detect_degraded_hosts,
    } = m;
    let detect_degraded_hosts = &bool_or(detect_degraded_hosts, false);
    unsupported!(at, monitors, detect_degraded_hosts);
    elsewhere! {
        enforcing_success_rate, success_rate_minimum_hosts, success_rate_request_volume,
        success_rate_stdev_factor, enforcing_local_origin_success_rate,
        failure_percentage_threshold, enforcing_failure_percentage,
        enforcing_failure_percentage_local_origin, failure_percentage_minimum_hosts,
        failure_percentage_request_volume,
    }
    let default = OutlierConfig::default();
    let base_ejection = positive(
        at.field("base_ejection_time"),
        base_ejection_time,
        default.base_ejection,
    )?;
    Ok(OutlierConfig {
        consecutive_5xx: detector(consecutive_5xx, default.consecutive_5xx),
        consecutive_gateway: detector(consecutive_gateway_failure, default.consecutive_gateway),
        consecutive_local: detector(consecutive_local_origin_failure, default.consecutive_local),
        enforcing_5xx: share(
            at.field("enforcing_consecutive_5xx"),
            enforcing_consecutive_5xx,
            100,
        )?,
        enforcing_gateway: share(
            at.field("enforcing_consecutive_gateway_failure"),
            enforcing_consecutive_gateway_failure,
            0,
        )?,
        enforcing_local: share(
            at.field("enforcing_consecutive_local_origin_failure"),
            enforcing_consecutive_local_origin_failure,
            100,
        )?,
        success_rate: success_rate(at, m)?,
        failure_percentage: failure_percentage(at, m)?,
        split_local: *split_external_local_origin_errors,
        interval: positive(at.field("interval"), interval, default.interval)?,
        base_ejection,
        // As Envoy: never below the base.
        max_ejection: positive(
            at.field("max_ejection_time"),
            max_ejection_time,
            default.max_ejection.max(base_ejection),
        )?,
        max_ejection_jitter: duration(
            at.field("max_ejection_time_jitter"),
            max_ejection_time_jitter,
        )?
        .unwrap_or(Duration::ZERO),
        max_ejection_percent: share(at.field("max_ejection_percent"), max_ejection_percent, 10)?,
        always_eject_one: bool_or(always_eject_one_host, false),
        uneject_on_success: bool_or(successful_active_health_check_uneject_host, true),
    })
}

fn success_rate(at: At<'_>, m: &pb::OutlierDetection) -> Result<SuccessRate, CompileError> {
    let default = OutlierConfig::default().success_rate;
    let [external, local] = default.enforcing;
    let factor = m.success_rate_stdev_factor.as_ref();
    Ok(SuccessRate {
        minimum_hosts: u32_or(&m.success_rate_minimum_hosts, default.minimum_hosts),
        request_volume: u32_or(&m.success_rate_request_volume, default.request_volume),
        // In thousandths.
        stdev_factor: factor.map_or(default.stdev_factor, |m| f64::from(m.value) / 1000.0),
        enforcing: [
            share(
                at.field("enforcing_success_rate"),
                &m.enforcing_success_rate,
                external,
            )?,
            share(
                at.field("enforcing_local_origin_success_rate"),
                &m.enforcing_local_origin_success_rate,
                local,
            )?,
        ],
    })
}

fn failure_percentage(
    at: At<'_>,
    m: &pb::OutlierDetection,
) -> Result<FailurePercentage, CompileError> {
    let default = OutlierConfig::default().failure_percentage;
    let [external, local] = default.enforcing;
    Ok(FailurePercentage {
        threshold: share(
            at.field("failure_percentage_threshold"),
            &m.failure_percentage_threshold,
            default.threshold,
        )?,
        minimum_hosts: u32_or(&m.failure_percentage_minimum_hosts, default.minimum_hosts),
        request_volume: u32_or(&m.failure_percentage_request_volume, default.request_volume),
        enforcing: [
            share(
                at.field("enforcing_failure_percentage"),
                &m.enforcing_failure_percentage,
                external,
            )?,
            share(
                at.field("enforcing_failure_percentage_local_origin"),
                &m.enforcing_failure_percentage_local_origin,
                local,
            )?,
        ],
    })
}

/// 0 switches a detector off.
fn detector(given: &Option<UInt32Value>, default: Option<u32>) -> Option<u32> {
    u32_opt(given).map_or(default, |count| (count > 0).then_some(count))
}

fn share(at: At<'_>, given: &Option<UInt32Value>, default: u32) -> Result<u32, CompileError> {
    match u32_or(given, default) {
        share @ 0..=100 => Ok(share),
        share => at.fail(format_args!("{share} is more than 100 percent")),
    }
}
