//! HTTP filters, compiled: the chain of a connection manager, and the routes' overrides of its
//! filters.
//!
//! - `name`: by which routes override filters; `rate_limit`: the local rate limit and the actions that describe requests to it
//! - `compression`: the compressor; `decompression`: the decompressor
//! - `csrf`: cross-site request forgery; `header_to_metadata`: dynamic metadata by headers
//! - `health_check`: answers to health checks; `stateful_session`: sessions that stay on an endpoint;
//!   `jwt_authn`: JSON Web Tokens

mod compression;
mod csrf;
mod decompression;
mod header_to_metadata;
mod health_check;
mod jwt_authn;
mod name;
mod rate_limit;
mod stateful_session;

use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::time::Duration;

use bytes::Bytes;

pub use self::compression::{
    CommonDirection, Compression, CompressionLibrary, CompressionOverride, ContentCoding,
    EtagPolicy, ResponseCompression, ZstdParameters,
};
pub use self::csrf::{Csrf, CsrfPolicy};
pub use self::decompression::{Decompression, DecompressionDirection, DecompressionLibrary};
pub use self::header_to_metadata::{
    HeaderToMetadata, HeaderToMetadataRule, MetadataFromHeader, MetadataSource, MetadataText,
};
pub use self::health_check::{HealthCheckFilter, HealthCheckMode, HealthSwitch, KeptHealth};
pub use self::jwt_authn::{
    Allowance, Audiences, ClaimHeader, HeaderLocation, Issuers, JwtAuthn, JwtAuthnOverride,
    JwtProvider, JwtRequirement, JwtRule, KeySource, NamedLocation, PayloadHeader, RequirementKind,
    TokenLifetime, TokenLocations,
};
pub use self::name::{FilterName, FilterNames};
pub use self::rate_limit::{
    Buckets, Descriptor, DescriptorMatch, LocalRateLimit, RateLimit, RateLimitAction,
    RouteRateLimits, VhRateLimits,
};
pub use self::stateful_session::{SessionCookie, SessionState, StatefulSession};
use super::policy::Rbac;
use super::route::HeaderAppend;
use crate::matcher::{HeaderMatch, HeaderName, StringMatch};
use crate::metadata::Object;

/// envoy.extensions.filters.network.http_connection_manager.v3.HttpFilter.
pub struct HttpFilter {
    /// By which routes override it.
    pub name: FilterName,
    /// Off, unless a route switches it on.
    pub disabled: bool,
    pub config: FilterConfig,
}

/// What a filter does: its own configuration, or a route's for it.
#[derive(Clone)]
pub enum FilterConfig {
    Rbac(Arc<Rbac>),
    Fault(Arc<FaultInjection>),
    LocalRateLimit(Arc<LocalRateLimit>),
    /// `None`: the filter's own configuration, which has no policy.
    Cors(Option<Arc<CorsPolicy>>),
    HeaderMutation(HeaderMutation),
    /// Bytes of a request's body that are waited for at most (`max_request_bytes`).
    Buffer(usize),
    Compressor(Arc<Compression>),
    Decompressor(Arc<Decompression>),
    /// Of routes only.
    CompressorOfRoute(CompressionOverride),
    /// `None`: no session, the filter's own configuration where only routes have one.
    StatefulSession(Option<Arc<StatefulSession>>),
    HeaderToMetadata(Arc<HeaderToMetadata>),
    Csrf(Csrf),
    /// Of routes only.
    CsrfOfRoute(Arc<CsrfPolicy>),
    JwtAuthn(Arc<JwtAuthn>),
    /// Of routes only.
    JwtAuthnOfRoute(JwtAuthnOverride),
    HealthCheck(Arc<HealthCheckFilter>),
}

impl FilterConfig {
    /// Whether the filter has something to do with responses.
    pub fn sees_responses(&self) -> bool {
        match self {
            Self::LocalRateLimit(_)
            | Self::Cors(_)
            | Self::HeaderMutation(_)
            | Self::HeaderToMetadata(_)
            | Self::Compressor(_)
            | Self::Decompressor(_)
            | Self::StatefulSession(_)
            | Self::HealthCheck(_) => true,
            Self::Rbac(_)
            | Self::Fault(_)
            | Self::Buffer(_)
            | Self::CompressorOfRoute(_)
            | Self::Csrf(_)
            | Self::CsrfOfRoute(_)
            | Self::JwtAuthn(_)
            | Self::JwtAuthnOfRoute(_) => false,
        }
    }

    /// Clusters that the filter itself sends requests to.
    pub fn clusters(&self) -> impl Iterator<Item = &str> {
        let jwt_authn = match self {
            Self::JwtAuthn(own) => Some(own),
            _ => None,
        };
        jwt_authn.into_iter().flat_map(|own| own.clusters())
    }
}

/// `typed_per_filter_config` of one filter. The most specific level that names the filter holds.
#[derive(Clone)]
pub enum FilterOverride {
    /// The filter does nothing on this route.
    Disabled,
    /// The filter runs, by this, also where the chain has it off.
    Config(FilterConfig),
}

/// `typed_per_filter_config` of a route or weighted cluster, those of the levels around it merged
/// in; few enough for a linear search.
#[derive(Clone, Default)]
pub struct FilterOverrides(pub Vec<(FilterName, FilterOverride)>);

impl FilterOverrides {
    /// The override of the filter called `name`.
    pub fn of(&self, name: &FilterName) -> Option<&FilterOverride> {
        let named = self.0.iter().find(|(known, _)| known == name);
        named.map(|(_, said)| said)
    }

    /// As a route keeps it: `None` when empty.
    pub fn shared(self) -> Option<Arc<Self>> {
        (!self.0.is_empty()).then(|| Arc::new(self))
    }
}

impl HttpFilter {
    /// Whether the filter runs on a route, and the route's configuration for it.
    pub fn on_route<'a>(
        &'a self,
        overrides: Option<&'a FilterOverrides>,
    ) -> Option<(&'a FilterConfig, Option<&'a FilterConfig>)> {
        let said = overrides.and_then(|overrides| overrides.of(&self.name));
        match said {
            None if self.disabled => None,
            None => Some((&self.config, None)),
            Some(FilterOverride::Disabled) => None,
            Some(FilterOverride::Config(own)) => Some((&self.config, Some(own))),
        }
    }
}

/// A share: envoy.type.v3.FractionalPercent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Percent {
    pub numerator: u32,
    /// 100, 10,000 or 1,000,000.
    pub denominator: u32,
}

impl Percent {
    /// Never.
    pub const ZERO: Self = Self {
        numerator: 0,
        denominator: 100,
    };

    /// Whether a number drawn at random falls within the share.
    pub fn draw(self) -> bool {
        self.numerator > 0 && fastrand::u32(..self.denominator) < self.numerator
    }
}

/// envoy.extensions.filters.http.fault.v3.HTTPFault.
pub struct FaultInjection {
    pub delay: Option<FaultPart<Duration>>,
    pub abort: Option<Abort>,
    /// Rate of the response's body, KiB a second, for each stream.
    pub response_rate: Option<FaultPart<u64>>,
    /// Only requests to this cluster.
    pub upstream_cluster: Option<Box<str>>,
    /// Only requests whose headers satisfy all of these.
    pub headers: Vec<HeaderMatch>,
    /// Only requests whose `x-envoy-downstream-service-node` is one of these; empty: all.
    pub downstream_nodes: Vec<Box<str>>,
    /// Streams with a fault at a time; `None`: any number.
    pub max_active: Option<u32>,
    /// Set as the request's dynamic metadata, under the filter's name, when a fault is injected.
    pub metadata: Object,
    /// Streams with a fault now. A filter and the routes' overrides of it share one count.
    pub active: Arc<AtomicU32>,
}

/// A delay or a rate.
#[derive(Clone, Copy)]
pub struct FaultPart<T> {
    pub percent: Percent,
    /// `None`: given by the request's own headers.
    pub fixed: Option<T>,
}

pub struct Abort {
    pub percent: Percent,
    /// `None`: given by the request's own headers.
    pub status: Option<AbortStatus>,
    pub body: Bytes,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AbortStatus {
    Http(u16),
    Grpc(u32),
}

/// envoy.extensions.filters.http.cors.v3.CorsPolicy, with the settings of less specific levels
/// merged in.
#[derive(Clone)]
pub struct CorsPolicy {
    pub origins: Vec<StringMatch>,
    /// Headers' values; empty: not sent.
    pub methods: Box<str>,
    pub headers: Box<str>,
    pub expose: Box<str>,
    pub max_age: Box<str>,
    pub credentials: Option<bool>,
    pub private_network: Option<bool>,
    pub forward_not_matching: Option<bool>,
    pub enabled: Percent,
}

impl CorsPolicy {
    /// Takes from `outer`, a less specific level, what this level does not set.
    pub fn within(mut self, outer: &Self) -> Self {
        if self.origins.is_empty() {
            self.origins.clone_from(&outer.origins);
        }
        let texts = [
            (&mut self.methods, &outer.methods),
            (&mut self.headers, &outer.headers),
            (&mut self.expose, &outer.expose),
            (&mut self.max_age, &outer.max_age),
        ];
        for (own, outer) in texts {
            if own.is_empty() {
                own.clone_from(outer);
            }
        }
        self.credentials = self.credentials.or(outer.credentials);
        self.private_network = self.private_network.or(outer.private_network);
        self.forward_not_matching = self.forward_not_matching.or(outer.forward_not_matching);
        self
    }
}

/// envoy.extensions.filters.http.header_mutation.v3.HeaderMutation, or what routes add to it.
#[derive(Clone)]
pub struct HeaderMutation {
    /// Of each level that has some, the most specific first.
    pub levels: Vec<Arc<Mutations>>,
    /// Of the filter's own: the most specific level comes last.
    pub most_specific_wins: bool,
}

#[derive(Default)]
pub struct Mutations {
    pub request: Vec<Mutation>,
    pub response: Vec<Mutation>,
}

/// envoy.config.common.mutation_rules.v3.HeaderMutation.
pub enum Mutation {
    Append(HeaderAppend),
    Remove(HeaderName),
    RemoveOnMatch(StringMatch),
}
