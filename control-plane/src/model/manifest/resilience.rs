//! How calls survive an upstream's failures: fields of BackendPolicy, and of MeshPolicy's defaults.

use schemars::JsonSchema;
use serde::Deserialize;

use super::object::FieldError;
use super::schema;
use super::values::Span;

/// An endpoint that fails is left out for a while.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct OutlierSpec {
    /// Consecutive 5xx responses and failed connections; 0: off.
    #[serde(default)]
    pub consecutive_errors: Option<u32>,
    /// Consecutive 502, 503 and 504 responses and failed connections; 0: off.
    #[serde(default)]
    pub consecutive_gateway_errors: Option<u32>,
    /// Interval of sweeps, which end ejections.
    #[serde(default)]
    #[schemars(extend("x-kubernetes-validations" = schema::more_than_zero()))]
    pub interval: Option<Span>,
    /// Duration of the first ejection; it grows with each further one.
    #[serde(default)]
    #[schemars(extend("x-kubernetes-validations" = schema::more_than_zero()))]
    pub base_ejection: Option<Span>,
    /// Maximum share of a service's endpoints that are ejected at a time.
    #[serde(default)]
    #[schemars(range(max = 100))]
    pub max_ejection_percent: Option<u32>,
}

/// Limits over all connections of one caller's sidecar to the service.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Limits {
    /// Open connections.
    #[serde(default)]
    pub connections: Option<u32>,
    /// Pending requests, which wait for a connection.
    #[serde(default)]
    pub pending: Option<u32>,
    /// Requests in flight.
    #[serde(default)]
    pub requests: Option<u32>,
    /// Retries in flight.
    #[serde(default)]
    pub retries: Option<u32>,
}

/// Retries where a route configures none.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RetrySpec {
    /// Maximum of retries; 0: none.
    #[serde(default)]
    #[schemars(range(max = 10))]
    pub attempts: Option<u32>,
    /// Back-off before the first retry; it grows with each retry.
    #[serde(default)]
    pub backoff: Option<Span>,
    /// Time-out of each attempt.
    #[serde(default)]
    pub per_try_timeout: Option<Span>,
    /// Retriable status codes.
    #[serde(default)]
    #[schemars(inner(range(min = 400, max = 599)))]
    pub codes: Vec<u16>,
}

/// Active retries as a share of active requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RetryBudget {
    /// Concurrent retries per 100 active requests.
    #[serde(default)]
    #[schemars(range(max = 100))]
    pub percent: Option<u32>,
    /// Concurrent retries that are always allowed.
    #[serde(default)]
    pub min_retries: Option<u32>,
}

impl RetrySpec {
    pub(super) fn check(&self, at: &str, errors: &mut Vec<FieldError>) {
        if self.attempts.is_some_and(|attempts| attempts > 10) {
            errors.push(FieldError::new(
                format!("{at}.attempts"),
                "may be 10 at most",
            ));
        }
        if let Some(index) = self
            .codes
            .iter()
            .position(|code| !(400..600).contains(code))
        {
            let message = "is no status to retry; allowed: 400 to 599";
            errors.push(FieldError::new(format!("{at}.codes[{index}]"), message));
        }
    }
}

impl OutlierSpec {
    pub(super) fn check(&self, at: &str, errors: &mut Vec<FieldError>) {
        if self
            .max_ejection_percent
            .is_some_and(|percent| percent > 100)
        {
            errors.push(FieldError::new(
                format!("{at}.maxEjectionPercent"),
                "may be 100 at most",
            ));
        }
        for (field, span) in [
            ("interval", self.interval),
            ("baseEjection", self.base_ejection),
        ] {
            more_than_zero(span, &format!("{at}.{field}"), errors);
        }
    }
}

pub(super) fn more_than_zero(span: Option<Span>, at: &str, errors: &mut Vec<FieldError>) {
    if span.is_some_and(|span| span.0.is_zero()) {
        errors.push(FieldError::new(at, "must be more than 0"));
    }
}
