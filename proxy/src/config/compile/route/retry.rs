//! Retry policies.

use std::time::Duration;

use xds_proto::envoy::config::route::v3 as pb;
use xds_proto::envoy::extensions::retry::host::previous_hosts::v3::PreviousHostsPredicate;

use crate::config::compile::matcher::header;
use crate::config::compile::support::{
    At, CompileError, each, ignored, positive, required, timeout, u32_or, unknown_type, unsupported,
};
use crate::config::compile::values::of_type;
use crate::config::route::{RetryOn, RetryPolicy};

/// Envoy's default back-off.
const BACK_OFF: Duration = Duration::from_millis(25);

/// envoy.config.route.v3.RetryPolicy. `minimum`: no retry is before the base interval.
pub fn retry_policy(
    at: At<'_>,
    m: &pb::RetryPolicy,
    minimum: bool,
) -> Result<RetryPolicy, CompileError> {
    let pb::RetryPolicy {
        retry_on,
        num_retries,
        per_try_timeout,
        per_try_idle_timeout,
        retry_priority,
        retry_host_predicate,
        retry_options_predicates,
        host_selection_retry_max_attempts,
        retriable_status_codes,
        retry_back_off,
        rate_limited_retry_back_off,
        retriable_headers,
        retriable_request_headers,
        refresh_cluster_on_retry,
    } = m;
    unsupported!(
        at,
        retry_priority,
        retry_options_predicates,
        rate_limited_retry_back_off,
        retriable_request_headers,
        refresh_cluster_on_retry,
    );
    ignored!(
        "an endpoint that was not tried is found whenever there is one",
        host_selection_retry_max_attempts
    );
    for (index, m) in retry_host_predicate.iter().enumerate() {
        predicate(at.index("retry_host_predicate", index), m)?;
    }
    let (back_off_base, back_off_max) = back_off(at, retry_back_off)?;
    Ok(RetryPolicy {
        on: conditions(at.field("retry_on"), retry_on)?,
        num_retries: u32_or(num_retries, 1),
        per_try_timeout: timeout(at.field("per_try_timeout"), per_try_timeout, None)?,
        per_try_idle_timeout: timeout(
            at.field("per_try_idle_timeout"),
            per_try_idle_timeout,
            None,
        )?,
        retriable_status_codes: each(
            at,
            "retriable_status_codes",
            retriable_status_codes,
            |at, code| match u16::try_from(*code) {
                Ok(code @ 100..=599) => Ok(code),
                _ => at.fail("is not a status code"),
            },
        )?,
        retriable_headers: each(at, "retriable_headers", retriable_headers, header)?,
        back_off_floor: match minimum {
            true => back_off_base,
            false => Duration::ZERO,
        },
        back_off_base,
        back_off_max,
        avoid_previous_hosts: !retry_host_predicate.is_empty(),
    })
}

fn predicate(at: At<'_>, m: &pb::retry_policy::RetryHostPredicate) -> Result<(), CompileError> {
    let pb::retry_policy::RetryHostPredicate { name, config_type } = m;
    ignored!("the type says what the extension is", name);
    let pb::retry_policy::retry_host_predicate::ConfigType::TypedConfig(any) =
        required!(at, config_type);
    match of_type(at.field("typed_config"), any)? {
        Some(PreviousHostsPredicate {}) => Ok(()),
        None => unknown_type(at, any),
    }
}

fn back_off(
    at: At<'_>,
    m: &Option<pb::retry_policy::RetryBackOff>,
) -> Result<(Duration, Duration), CompileError> {
    let Some(m) = m else {
        return Ok((BACK_OFF, BACK_OFF * 10));
    };
    let at = at.field("retry_back_off");
    let pb::retry_policy::RetryBackOff {
        base_interval,
        max_interval,
    } = m;
    let base = positive(at.field("base_interval"), base_interval, BACK_OFF)?;
    let max = positive(
        at.field("max_interval"),
        max_interval,
        base.saturating_mul(10),
    )?;
    if max < base {
        return at.field("max_interval").fail("is below base_interval");
    }
    Ok((base, max))
}

fn conditions(at: At<'_>, list: &str) -> Result<RetryOn, CompileError> {
    let mut on = RetryOn::default();
    for name in list
        .split(',')
        .map(str::trim)
        .filter(|name| !name.is_empty())
    {
        match RetryOn::parse(name) {
            Some(condition) => on = on | condition,
            // Only for HTTP/3, which is refused elsewhere: never true.
            None if name == "http3-post-connect-failure" => {}
            // Istio writes status codes among the conditions; Envoy skips what it does not know.
            None if name.bytes().all(|b| b.is_ascii_digit()) => {}
            None => return at.fail(format_args!("`{name}` is not a retry condition")),
        }
    }
    Ok(on)
}
