//! The filter against cross-site request forgery.

use std::sync::Arc;

use super::Percent;
use crate::matcher::StringMatch;
use crate::metrics::CsrfMetrics;

/// The filter's own policy, and what it counts.
#[derive(Clone)]
pub struct Csrf {
    pub policy: Arc<CsrfPolicy>,
    pub metrics: Arc<CsrfMetrics>,
}

/// envoy.extensions.filters.http.csrf.v3.CsrfPolicy.
pub struct CsrfPolicy {
    pub enabled: Percent,
    /// Requests that are only counted, where the policy is not enabled.
    pub shadow: Percent,
    /// Origins that are allowed besides the request's own host.
    pub additional_origins: Vec<StringMatch>,
}
