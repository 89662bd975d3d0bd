//! Limits, outlier detection and retries.

use std::time::Duration;

use xds_proto::envoy::config::cluster::v3 as cluster;
use xds_proto::envoy::config::core::v3::RoutingPriority;
use xds_proto::envoy::config::route::v3 as route;
use xds_proto::envoy::extensions::retry::host::previous_hosts::v3::PreviousHostsPredicate;
use xds_proto::envoy::r#type::v3::Percent;

use super::proto::{duration, typed, u32v};
use crate::model::manifest::policy::{BackendSpec, Defaults};
use crate::model::manifest::resilience::{OutlierSpec, RetrySpec};
use crate::model::manifest::route::{Retry, Timeouts};
use crate::model::mesh::ServiceEntry;

/// Where no policy limits: as good as no limit.
const UNLIMITED: u32 = u32::MAX;
/// Active retries as a share of active requests, and how many are always allowed.
const BUDGET_PERCENT: f64 = 20.0;
const BUDGET_MIN: u32 = 10;
/// Retries where no number is configured.
const ATTEMPTS: u32 = 2;
const BACK_OFF: Duration = Duration::from_millis(25);
/// What is safe to try again for any request, because nothing of it reached the app.
const SAFE: &str = "connect-failure,refused-stream,reset-before-request";
/// What is also tried again where retries are configured, by which the user declares that calls may
/// be repeated: the app may have acted upon them.
const ASKED: &str = ",reset,unavailable,cancelled";

pub fn circuit_breakers(spec: &BackendSpec) -> cluster::CircuitBreakers {
    use cluster::circuit_breakers::{Thresholds, thresholds::RetryBudget};
    let limits = &spec.limits;
    let given = spec.retry_budget;
    let budget = RetryBudget {
        budget_percent: Some(Percent {
            value: given
                .and_then(|b| b.percent)
                .map_or(BUDGET_PERCENT, f64::from),
        }),
        min_retry_concurrency: u32v(given.and_then(|b| b.min_retries).unwrap_or(BUDGET_MIN)),
        ..RetryBudget::default()
    };
    let thresholds = Thresholds {
        priority: RoutingPriority::Default as i32,
        max_connections: u32v(limits.connections.unwrap_or(UNLIMITED)),
        max_pending_requests: u32v(limits.pending.unwrap_or(UNLIMITED)),
        max_requests: u32v(limits.requests.unwrap_or(UNLIMITED)),
        max_retries: limits.retries.and_then(u32v),
        retry_budget: limits.retries.is_none().then_some(budget),
        ..Thresholds::default()
    };
    cluster::CircuitBreakers {
        thresholds: vec![thresholds],
        ..Default::default()
    }
}

pub fn outlier(spec: &OutlierSpec) -> cluster::OutlierDetection {
    let errors = spec.consecutive_errors.unwrap_or(5);
    let gateway = spec.consecutive_gateway_errors.unwrap_or(0);
    cluster::OutlierDetection {
        consecutive_5xx: u32v(errors.max(1)),
        enforcing_consecutive_5xx: u32v(if errors == 0 { 0 } else { 100 }),
        consecutive_gateway_failure: u32v(gateway.max(1)),
        enforcing_consecutive_gateway_failure: u32v(if gateway == 0 { 0 } else { 100 }),
        enforcing_success_rate: u32v(0),
        interval: duration(spec.interval.map_or(Duration::from_secs(10), |span| span.0)),
        base_ejection_time: duration(
            spec.base_ejection
                .map_or(Duration::from_secs(30), |span| span.0),
        ),
        max_ejection_percent: u32v(spec.max_ejection_percent.unwrap_or(50)),
        ..cluster::OutlierDetection::default()
    }
}

/// What governs calls to a service besides its routes.
pub struct Calls<'a> {
    pub own: Option<&'a BackendSpec>,
    pub defaults: &'a Defaults,
}

impl<'a> Calls<'a> {
    pub fn of(service: &'a ServiceEntry, defaults: &'a Defaults) -> Self {
        Calls {
            own: service.policy.as_ref().map(|policy| &policy.spec),
            defaults,
        }
    }

    fn retry_spec(&self) -> Option<&'a RetrySpec> {
        self.own
            .and_then(|own| own.retry.as_ref())
            .or(self.defaults.retry.as_ref())
    }

    /// A whole request; zero: none.
    pub fn timeout(&self, timeouts: &Timeouts) -> Duration {
        let own = self.own.and_then(|own| own.request_timeout);
        let policy = own.or(self.defaults.request_timeout).map(|span| span.0);
        timeouts.request.or(policy).unwrap_or_default()
    }

    /// The route's own retries, else the service's, else what is safe for any request.
    pub fn retry(&self, route: Option<&Retry>, timeouts: &Timeouts) -> Option<route::RetryPolicy> {
        let policy = self.retry_spec();
        let mut codes: Vec<u32> = match (route, policy) {
            (Some(route), _) => route.codes.iter().map(|code| u32::from(*code)).collect(),
            (None, Some(policy)) if policy.codes.is_empty() => vec![503],
            (None, Some(policy)) => policy.codes.iter().map(|code| u32::from(*code)).collect(),
            (None, None) => Vec::new(),
        };
        codes.sort_unstable();
        codes.dedup();
        let attempts = route
            .and_then(|route| route.attempts)
            .or(policy.and_then(|policy| policy.attempts))
            .unwrap_or(ATTEMPTS);
        let per_try = timeouts
            .backend_request
            .or(policy
                .and_then(|policy| policy.per_try_timeout)
                .map(|span| span.0))
            .filter(|span| !span.is_zero());
        if attempts == 0 && per_try.is_none() {
            return None;
        }
        let mut retry_on = SAFE.to_owned();
        if route.is_some() || policy.is_some() {
            retry_on.push_str(ASKED);
        }
        if !codes.is_empty() {
            retry_on.push_str(",retriable-status-codes");
        }
        let base = route
            .and_then(|route| route.backoff)
            .or(policy.and_then(|policy| policy.backoff).map(|span| span.0))
            .unwrap_or(BACK_OFF)
            .max(Duration::from_millis(1));
        Some(route::RetryPolicy {
            retry_on,
            num_retries: u32v(attempts),
            per_try_timeout: per_try.and_then(duration),
            retriable_status_codes: codes,
            retry_back_off: Some(route::retry_policy::RetryBackOff {
                base_interval: duration(base),
                max_interval: duration(base * 10),
            }),
            retry_host_predicate: vec![route::retry_policy::RetryHostPredicate {
                name: "envoy.retry_host_predicates.previous_hosts".to_owned(),
                config_type: Some(
                    route::retry_policy::retry_host_predicate::ConfigType::TypedConfig(typed(
                        &PreviousHostsPredicate::default(),
                    )),
                ),
            }],
            host_selection_retry_max_attempts: 5,
            ..route::RetryPolicy::default()
        })
    }
}
