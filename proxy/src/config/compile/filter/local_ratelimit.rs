//! The local rate limit filter. How routes describe requests to it: `rate_limit`.

use std::sync::Arc;
use std::time::{Duration, Instant};

use xds_proto::envoy::config::core::v3 as core;
use xds_proto::envoy::extensions::common::ratelimit::v3 as common;
use xds_proto::envoy::extensions::filters::http::local_ratelimit::v3 as pb;
use xds_proto::envoy::r#type::v3 as kind;

use super::rate_limit::rate_limits;
use super::runtime_percent;
use crate::config::compile::headers::append;
use crate::config::compile::support::{
    At, CompileError, bool_or, duration, each, ignored, known, required, u32_or, unsupported,
};
use crate::config::filter::{
    Buckets, Descriptor, FilterConfig, LocalRateLimit, Percent, VhRateLimits,
};
use crate::config::route::HeaderEdits;
use crate::token_bucket::Refill;

/// Envoy's bound: a bucket that fills more often than this.
const SHORTEST: Duration = Duration::from_millis(50);

pub fn filter(at: At<'_>, m: &pb::LocalRateLimit) -> Result<FilterConfig, CompileError> {
    local(at, m).map(FilterConfig::LocalRateLimit)
}

pub fn per_route(at: At<'_>, m: &pb::LocalRateLimit) -> Result<FilterConfig, CompileError> {
    if m.token_bucket.is_none() {
        return at.field("token_bucket").fail("is required on a route");
    }
    filter(at, m)
}

fn local(at: At<'_>, m: &pb::LocalRateLimit) -> Result<Arc<LocalRateLimit>, CompileError> {
    let pb::LocalRateLimit {
        stat_prefix,
        status,
        token_bucket,
        filter_enabled,
        filter_enforced,
        request_headers_to_add_when_not_enforced,
        response_headers_to_add,
        descriptors,
        stage,
        local_rate_limit_per_downstream_connection,
        local_cluster_rate_limit,
        enable_x_ratelimit_headers,
        vh_rate_limits,
        always_consume_default_token_bucket,
        rate_limited_as_resource_exhausted,
        rate_limits: own_rate_limits,
        max_dynamic_descriptors,
        enable_retry_after_header,
    } = m;
    unsupported!(at, local_cluster_rate_limit);
    ignored!(
        "refusals show as response flag RL; statistics are kept by edge",
        stat_prefix
    );
    ignored!(
        "descriptors without a value are refused",
        max_dynamic_descriptors
    );
    let default = match token_bucket {
        Some(m) => Some(refill(at.field("token_bucket"), m)?),
        None => None,
    };
    let descriptors = each(at, "descriptors", descriptors, descriptor)?;
    Ok(Arc::new(LocalRateLimit {
        status: status_of(at.field("status"), status)?,
        resource_exhausted: *rate_limited_as_resource_exhausted,
        enabled: share(at.field("filter_enabled"), filter_enabled)?,
        enforced: share(at.field("filter_enforced"), filter_enforced)?,
        request_headers: additions(
            at,
            "request_headers_to_add_when_not_enforced",
            request_headers_to_add_when_not_enforced,
        )?,
        response_headers: additions(at, "response_headers_to_add", response_headers_to_add)?,
        buckets: Buckets::new(default, &descriptors, Instant::now()),
        default,
        descriptors,
        always_default: bool_or(always_consume_default_token_bucket, true),
        per_connection: *local_rate_limit_per_downstream_connection,
        x_headers: known::<common::XRateLimitHeadersRfcVersion>(
            at.field("enable_x_ratelimit_headers"),
            *enable_x_ratelimit_headers,
        )? == common::XRateLimitHeadersRfcVersion::DraftVersion03,
        retry_after: *enable_retry_after_header,
        stage: *stage,
        virtual_host: match known(at.field("vh_rate_limits"), *vh_rate_limits)? {
            common::VhRateLimitsOptions::Override => VhRateLimits::Override,
            common::VhRateLimitsOptions::Include => VhRateLimits::Include,
            common::VhRateLimitsOptions::Ignore => VhRateLimits::Ignore,
        },
        rate_limits: rate_limits(at, own_rate_limits)?,
    }))
}

fn additions(
    at: At<'_>,
    field: &'static str,
    list: &[core::HeaderValueOption],
) -> Result<HeaderEdits, CompileError> {
    Ok(HeaderEdits {
        append: each(at, field, list, append)?,
        remove: Vec::new(),
    })
}

/// Absent: none, for safety, as Envoy has it.
fn share(at: At<'_>, m: &Option<core::RuntimeFractionalPercent>) -> Result<Percent, CompileError> {
    match m {
        Some(m) => runtime_percent(at, m),
        None => Ok(Percent::ZERO),
    }
}

/// 429 unless it is an error of another kind.
fn status_of(at: At<'_>, m: &Option<kind::HttpStatus>) -> Result<u16, CompileError> {
    let Some(kind::HttpStatus { code }) = m else {
        return Ok(429);
    };
    match u16::try_from(*code) {
        Ok(code @ 400..=599) => Ok(code),
        Ok(0..400) => Ok(429),
        _ => at.field("code").fail("is not a status code"),
    }
}

fn refill(at: At<'_>, m: &kind::TokenBucket) -> Result<Refill, CompileError> {
    let kind::TokenBucket {
        max_tokens,
        tokens_per_fill,
        fill_interval,
    } = m;
    let interval = required!(at, fill_interval);
    let interval = duration(at.field("fill_interval"), &Some(*interval))?.unwrap_or_default();
    if interval < SHORTEST {
        return at.field("fill_interval").fail("must be 50 ms or more");
    }
    match u32_or(tokens_per_fill, 1) {
        0 => at.field("tokens_per_fill").fail("must be above zero"),
        tokens => Ok(Refill::new(*max_tokens, tokens, interval)),
    }
}

fn descriptor(
    at: At<'_>,
    m: &common::LocalRateLimitDescriptor,
) -> Result<Descriptor, CompileError> {
    let common::LocalRateLimitDescriptor {
        entries,
        token_bucket,
        shadow_mode,
    } = m;
    if entries.is_empty() {
        return at.field("entries").fail("is required");
    }
    let bucket = required!(at, token_bucket);
    Ok(Descriptor {
        entries: each(at, "entries", entries, |at, m| {
            let common::rate_limit_descriptor::Entry { key, value } = m;
            match (key.as_str(), value.as_str()) {
                ("", _) => at.field("key").fail("is required"),
                (_, "") => at
                    .field("value")
                    .fail("is required: buckets that are made for each value are not supported"),
                (key, value) => Ok((key.into(), value.into())),
            }
        })?,
        refill: refill(at.field("token_bucket"), bucket)?,
        shadow: *shadow_mode,
    })
}
