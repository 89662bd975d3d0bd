//! Local rate limits: envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit, and
//! envoy.config.route.v3.RateLimit, by which routes describe requests.

use std::time::Instant;

use super::Percent;
use crate::config::route::HeaderEdits;
use crate::matcher::{HeaderMatch, HeaderName, QueryMatch};
use crate::token_bucket::{Refill, TokenBucket};

pub struct LocalRateLimit {
    /// Of a request that is refused.
    pub status: u16,
    /// gRPC calls are refused as RESOURCE_EXHAUSTED, not as UNAVAILABLE.
    pub resource_exhausted: bool,
    /// Requests that are counted.
    pub enabled: Percent,
    /// Requests, of those, that are refused.
    pub enforced: Percent,
    /// Of a request over the limit that is let through.
    pub request_headers: HeaderEdits,
    /// Of a response to a request that is refused.
    pub response_headers: HeaderEdits,
    /// For requests that no descriptor matches; `None`: they are not limited.
    pub default: Option<Refill>,
    pub descriptors: Vec<Descriptor>,
    /// The default's tokens are taken too where a descriptor matches.
    pub always_default: bool,
    /// Each downstream connection has buckets of its own.
    pub per_connection: bool,
    /// `x-ratelimit-limit`, `-remaining` and `-reset` in responses (draft-polli-ratelimit-headers-03).
    pub x_headers: bool,
    /// `retry-after` in 429s.
    pub retry_after: bool,
    /// Which of the routes' rate limits describe requests to this filter.
    pub stage: u32,
    pub virtual_host: VhRateLimits,
    /// Instead of the routes', where there are any.
    pub rate_limits: Vec<RateLimit>,
    /// Of the process; see `per_connection`.
    pub buckets: Buckets,
}

/// The token buckets of a rate limit.
pub struct Buckets {
    pub default: Option<TokenBucket>,
    /// In the order of the descriptors.
    pub descriptors: Vec<TokenBucket>,
}

impl Buckets {
    /// Full ones.
    pub fn new(default: Option<Refill>, descriptors: &[Descriptor], now: Instant) -> Self {
        Self {
            default: default.map(|refill| TokenBucket::new(refill, now)),
            descriptors: descriptors
                .iter()
                .map(|descriptor| TokenBucket::new(descriptor.refill, now))
                .collect(),
        }
    }
}

/// A limit of its own for requests that are described so.
pub struct Descriptor {
    /// Key and value.
    pub entries: Vec<(Box<str>, Box<str>)>,
    pub refill: Refill,
    /// It refuses nothing.
    pub shadow: bool,
}

/// envoy.extensions.common.ratelimit.v3.VhRateLimitsOptions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VhRateLimits {
    /// The virtual host's rate limits where the route has none.
    Override,
    Include,
    Ignore,
}

/// Rate limits of a route.
#[derive(Default)]
pub struct RouteRateLimits {
    pub own: Vec<RateLimit>,
    /// The virtual host's are taken too.
    pub include_virtual_host: bool,
}

/// How one descriptor of a request is made.
pub struct RateLimit {
    pub stage: u32,
    /// Each action gives an entry, or none; when an action that must give one cannot, the
    /// descriptor is not used.
    pub actions: Vec<RateLimitAction>,
}

pub enum RateLimitAction {
    DestinationCluster,
    RemoteAddress,
    MaskedRemoteAddress {
        v4: u8,
        v6: u8,
    },
    RequestHeader {
        key: Box<str>,
        name: HeaderName,
        skip_if_absent: bool,
    },
    QueryParameter {
        key: Box<str>,
        name: Box<str>,
        skip_if_absent: bool,
    },
    GenericKey {
        key: Box<str>,
        value: Box<str>,
    },
    Match {
        key: Box<str>,
        value: Box<str>,
        /// What is matched has to match, or not to.
        expect: bool,
        matches: DescriptorMatch,
    },
    Metadata {
        key: Box<str>,
        namespace: Box<str>,
        path: Vec<Box<str>>,
        default: Option<Box<str>>,
        skip_if_absent: bool,
    },
}

/// All of them.
pub enum DescriptorMatch {
    Headers(Vec<HeaderMatch>),
    Query(Vec<QueryMatch>),
}
