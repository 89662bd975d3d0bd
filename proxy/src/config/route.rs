//! Route configurations.

use std::sync::Arc;
use std::time::Duration;

use super::Name;
use super::balancing::SubsetCriteria;
use super::filter::{FilterOverrides, RateLimit, RouteRateLimits};
use super::hash::HashPolicy;
use crate::config::ClusterRef;
use crate::matcher::{HeaderMatch, HeaderName, MetadataMatch, QueryMatch};

/// The part that does not change when a cluster does.
pub struct RouteTable {
    pub name: Name,
    pub virtual_hosts: Vec<VirtualHost>,
    /// Canonical authority (lower case) → index of its virtual host.
    pub exact: foldhash::HashMap<Box<str>, u32>,
    /// `*suffix` domains without the star, longest first.
    pub suffix: Vec<(Box<str>, u32)>,
    /// `prefix*` domains without the star, longest first.
    pub prefix: Vec<(Box<str>, u32)>,
    /// `*`.
    pub any: Option<u32>,
    /// Domains carry no port: compare without it.
    pub ignore_port: bool,
    pub request_headers: HeaderEdits,
    pub response_headers: HeaderEdits,
    /// Envoy's `most_specific_header_mutations_wins`: false applies route, host, table in turn.
    pub most_specific_wins: bool,
    pub internal_only_headers: Vec<HeaderName>,
}

pub struct VirtualHost {
    pub name: Name,
    /// The first redirects to `https` where the host has `require_tls`.
    pub routes: Vec<Arc<Route>>,
    pub request_headers: HeaderEdits,
    pub response_headers: HeaderEdits,
    pub rate_limits: Vec<RateLimit>,
    pub include_attempt_count: bool,
    pub include_attempt_count_in_response: bool,
}

pub struct Route {
    pub name: Name,
    pub matches: RouteMatch,
    pub action: Action,
    pub request_headers: HeaderEdits,
    pub response_headers: HeaderEdits,
    /// `typed_per_filter_config`, also of virtual host and table; `None`: there is none.
    pub filters: Option<Arc<FilterOverrides>>,
}

pub struct RouteMatch {
    pub path: PathMatch,
    /// Only paths are compared without regard to case.
    pub case_sensitive: bool,
    pub headers: Vec<HeaderMatch>,
    pub query: Vec<QueryMatch>,
    /// All of them.
    pub metadata: Vec<MetadataMatch>,
    /// Only gRPC requests (content-type application/grpc[+…]).
    pub grpc: bool,
    /// Share of requests in parts per million; `None`: all.
    pub fraction: Option<u32>,
    /// Only requests that came without TLS: see [`VirtualHost::routes`].
    pub plaintext: Option<PlaintextRequests>,
}

/// Requests whose `x-forwarded-proto` is not `https`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PlaintextRequests {
    All,
    /// Those that no internal client sent (`x-envoy-internal`).
    External,
}

pub enum PathMatch {
    Prefix(Box<str>),
    /// `path_separated_prefix`: the prefix, then the end, `/` or `?`.
    SeparatedPrefix(Box<str>),
    Exact(Box<str>),
    Regex(Box<regex::bytes::Regex>),
    /// `connect_matcher`.
    Connect,
}

pub enum Action {
    Forward(Box<RouteAction>),
    Redirect(Box<Redirect>),
    Direct { status: u16, body: bytes::Bytes },
}

/// envoy.config.route.v3.RouteAction.
pub struct RouteAction {
    pub target: ClusterSpecifier,
    /// Envoy's `cluster_not_found_response_code`; 503 by default.
    pub cluster_not_found: u16,
    pub rewrite: PathRewrite,
    pub host_rewrite: HostRewrite,
    /// Append the original host as `x-forwarded-host`.
    pub append_x_forwarded_host: bool,
    /// From the end of the request to the end of the response; `None`: off. Envoy: 15 s.
    pub timeout: Option<Duration>,
    /// Overrides the manager's `stream_idle_timeout`.
    pub idle_timeout: Option<Option<Duration>>,
    /// The longest a stream may last, whatever it does. Overrides the manager's.
    pub max_stream_duration: Option<Option<Duration>>,
    /// Honour `grpc-timeout`, up to this. `Some(ZERO)`: without bound.
    pub max_grpc_timeout: Option<Duration>,
    pub retry: Option<Arc<RetryPolicy>>,
    /// For clusters that balance by hash.
    pub hash_policy: Option<Arc<HashPolicy>>,
    /// For clusters that have subsets.
    pub subset: Option<Arc<SubsetCriteria>>,
    /// Overrides per upgrade type.
    pub upgrades: Vec<UpgradeOverride>,
    pub rate_limits: RouteRateLimits,
    pub mirrors: Vec<Mirror>,
}

pub enum ClusterSpecifier {
    Cluster(ClusterRef),
    /// Cumulative weights: the first entry whose bound exceeds a number drawn below `total`.
    Weighted {
        total: u64,
        clusters: Vec<WeightedCluster>,
    },
    /// The cluster is named by this request header.
    ClusterHeader(HeaderName),
}

pub struct WeightedCluster {
    pub bound: u64,
    pub cluster: ClusterRef,
    /// The route's own included; `None`: as the route has it.
    pub subset: Option<Arc<SubsetCriteria>>,
    pub host_rewrite: Option<Box<str>>,
    pub request_headers: HeaderEdits,
    pub response_headers: HeaderEdits,
    /// `typed_per_filter_config`, also of the levels above; `None`: as the route has it.
    pub filters: Option<Arc<FilterOverrides>>,
}

#[derive(Clone, Debug)]
pub struct Mirror {
    pub cluster: ClusterRef,
    /// Parts per million.
    pub fraction: u32,
    /// Without it `-shadow` is appended to the mirrored request's host.
    pub keep_host: bool,
}

pub struct UpgradeOverride {
    /// Lower case.
    pub kind: Box<str>,
    pub enabled: bool,
    /// CONNECT is terminated here and its bytes forwarded as TCP.
    pub terminate_connect: bool,
}

pub enum PathRewrite {
    None,
    /// Replaces what a prefix or exact match matched.
    Prefix(Box<str>),
    /// Replaces the whole path, the query stays.
    Full(Box<str>),
    /// Every match is replaced; `substitution` is in the regex crate's syntax (`${1}`).
    Regex {
        pattern: Box<regex::bytes::Regex>,
        substitution: Box<str>,
    },
}

impl PathRewrite {
    /// Whether the replacement has a query, which then replaces the request's.
    pub fn has_query(&self) -> bool {
        matches!(self, Self::Full(to) if to.contains('?'))
    }
}

pub enum HostRewrite {
    None,
    Literal(Box<str>),
    /// The upstream endpoint's host name.
    Auto,
    Header(HeaderName),
    PathRegex {
        pattern: Box<regex::bytes::Regex>,
        substitution: Box<str>,
    },
}

/// envoy.config.route.v3.RedirectAction.
pub struct Redirect {
    pub status: u16,
    pub scheme: Option<Box<str>>,
    pub host: Option<Box<str>>,
    pub port: Option<u16>,
    /// The request's port stays, whatever it is.
    pub keeps_port: bool,
    pub path: PathRewrite,
    pub strip_query: bool,
}

/// Envoy's retry conditions, as bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RetryOn(pub u32);

impl RetryOn {
    pub const FIVE_XX: Self = Self(1);
    pub const GATEWAY_ERROR: Self = Self(1 << 1);
    pub const RESET: Self = Self(1 << 2);
    pub const CONNECT_FAILURE: Self = Self(1 << 3);
    pub const RETRIABLE_4XX: Self = Self(1 << 4);
    pub const REFUSED_STREAM: Self = Self(1 << 5);
    pub const RETRIABLE_STATUS_CODES: Self = Self(1 << 6);
    pub const RETRIABLE_HEADERS: Self = Self(1 << 7);
    pub const GRPC_CANCELLED: Self = Self(1 << 8);
    pub const GRPC_DEADLINE_EXCEEDED: Self = Self(1 << 9);
    pub const GRPC_INTERNAL: Self = Self(1 << 10);
    pub const GRPC_RESOURCE_EXHAUSTED: Self = Self(1 << 11);
    pub const GRPC_UNAVAILABLE: Self = Self(1 << 12);
    pub const RESET_BEFORE_REQUEST: Self = Self(1 << 13);

    /// A condition by its name, as in `retry_on` and in what clients may send in
    /// `x-envoy-retry-on` and `x-envoy-retry-grpc-on`.
    pub fn parse(name: &str) -> Option<Self> {
        Some(match name {
            "5xx" => Self::FIVE_XX,
            "gateway-error" => Self::GATEWAY_ERROR,
            "reset" => Self::RESET,
            "reset-before-request" => Self::RESET_BEFORE_REQUEST,
            "connect-failure" => Self::CONNECT_FAILURE,
            "retriable-4xx" => Self::RETRIABLE_4XX,
            "refused-stream" => Self::REFUSED_STREAM,
            "retriable-status-codes" => Self::RETRIABLE_STATUS_CODES,
            "retriable-headers" => Self::RETRIABLE_HEADERS,
            "cancelled" => Self::GRPC_CANCELLED,
            "deadline-exceeded" => Self::GRPC_DEADLINE_EXCEEDED,
            "internal" => Self::GRPC_INTERNAL,
            "resource-exhausted" => Self::GRPC_RESOURCE_EXHAUSTED,
            "unavailable" => Self::GRPC_UNAVAILABLE,
            _ => return None,
        })
    }

    pub fn has(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }
}

impl std::ops::BitOr for RetryOn {
    type Output = Self;
    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// envoy.config.route.v3.RetryPolicy.
pub struct RetryPolicy {
    pub on: RetryOn,
    pub num_retries: u32,
    pub per_try_timeout: Option<Duration>,
    pub per_try_idle_timeout: Option<Duration>,
    pub retriable_status_codes: Vec<u16>,
    pub retriable_headers: Vec<HeaderMatch>,
    /// No retry is earlier than this.
    pub back_off_floor: Duration,
    pub back_off_base: Duration,
    pub back_off_max: Duration,
    /// previous_hosts predicate: a retry avoids endpoints already tried, this many picks long.
    pub avoid_previous_hosts: bool,
}

/// Headers to add, set and remove. `HeaderValueOption`s with formatted values are compiled.
#[derive(Default)]
pub struct HeaderEdits {
    pub append: Vec<HeaderAppend>,
    pub remove: Vec<HeaderName>,
}

impl HeaderEdits {
    pub fn is_empty(&self) -> bool {
        self.append.is_empty() && self.remove.is_empty()
    }
}

pub struct HeaderAppend {
    /// As written: the case is kept on HTTP/1.
    pub spelling: Box<str>,
    pub name: HeaderName,
    pub value: super::access_log::Format,
    pub action: AppendAction,
    pub keep_empty_value: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AppendAction {
    AppendIfExistsOrAdd,
    AddIfAbsent,
    OverwriteIfExistsOrAdd,
    OverwriteIfExists,
}
