//! HTTP filters: their own configuration and their routes'.
//!
//! - `buffer`, `compressor`, `cors`, `csrf`, `decompressor`, `fault`, `header_mutation`,
//!   `header_to_metadata`, `health_check`, `jwt_authn`, `local_ratelimit` with `rate_limit` (how routes
//!   describe requests), `stateful_session`; RBAC is [`super::policy`]

mod buffer;
mod compressor;
mod cors;
mod csrf;
mod decompressor;
mod fault;
mod header_mutation;
mod header_to_metadata;
mod health_check;
mod jwt_authn;
mod local_ratelimit;
pub mod rate_limit;
mod stateful_session;

use std::sync::Arc;

use xds_proto::google::protobuf::Any;

use super::policy;
use super::support::{At, CompileError, decode, known, type_name};
use crate::config::compile::Counts;
use crate::config::filter::{FilterConfig, FilterNames, FilterOverride, HealthSwitch, Percent};
use crate::jwt::remote::NewRemoteKeys;
use crate::metrics::resource::{
    CompressorFamilies, CsrfFamilies, DecompressorFamilies, HeaderToMetadataFamilies,
    JwtAuthnFamilies,
};

/// What the filters of all chains and routes share while they compile.
#[derive(Clone, Copy)]
pub struct FilterScope<'a> {
    pub names: &'a FilterNames,
    pub counts: &'a Counts,
    pub compressors: &'a CompressorFamilies,
    pub decompressors: &'a DecompressorFamilies,
    pub csrf: &'a CsrfFamilies,
    pub header_to_metadata: &'a HeaderToMetadataFamilies,
    pub jwt_authn: &'a JwtAuthnFamilies,
    /// Key sets that are to be fetched.
    pub remote_keys: &'a NewRemoteKeys,
    /// The connection manager's `stat_prefix`; empty in a route configuration.
    pub stat_prefix: &'a str,
    pub health: &'a Arc<HealthSwitch>,
    /// The name of the node's cluster.
    pub local_cluster: &'a Arc<str>,
}

impl FilterScope<'_> {
    /// How Envoy's statistics of a filter are rooted, which may have a prefix of its own.
    fn stats(&self, own: &str) -> String {
        match (self.stat_prefix, own) {
            (manager, "") => manager.to_owned(),
            ("", own) => own.to_owned(),
            (manager, own) => format!("{manager}.{own}"),
        }
    }
}

/// A filter's configuration; `None`: of a type that is not known.
pub fn config(
    at: At<'_>,
    any: &Any,
    scope: FilterScope<'_>,
) -> Result<Option<FilterConfig>, CompileError> {
    Ok(Some(match type_name(any) {
        "envoy.extensions.filters.http.rbac.v3.RBAC" => {
            FilterConfig::Rbac(policy::http_rbac(at, &decode(at, any)?)?)
        }
        "envoy.extensions.filters.http.fault.v3.HTTPFault" => fault::fault(at, &decode(at, any)?)?,
        "envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit" => {
            local_ratelimit::filter(at, &decode(at, any)?)?
        }
        "envoy.extensions.filters.http.cors.v3.Cors" => cors::filter(&decode(at, any)?),
        "envoy.extensions.filters.http.header_mutation.v3.HeaderMutation" => {
            header_mutation::filter(at, &decode(at, any)?)?
        }
        "envoy.extensions.filters.http.buffer.v3.Buffer" => buffer::filter(at, &decode(at, any)?)?,
        "envoy.extensions.filters.http.compressor.v3.Compressor" => {
            compressor::filter(at, &decode(at, any)?, scope)?
        }
        "envoy.extensions.filters.http.decompressor.v3.Decompressor" => {
            decompressor::filter(at, &decode(at, any)?, scope)?
        }
        "envoy.extensions.filters.http.health_check.v3.HealthCheck" => {
            health_check::filter(at, &decode(at, any)?, scope)?
        }
        "envoy.extensions.filters.http.stateful_session.v3.StatefulSession" => {
            stateful_session::filter(at, &decode(at, any)?)?
        }
        "envoy.extensions.filters.http.csrf.v3.CsrfPolicy" => {
            csrf::filter(at, &decode(at, any)?, scope)?
        }
        "envoy.extensions.filters.http.header_to_metadata.v3.Config" => {
            header_to_metadata::filter(at, &decode(at, any)?, scope)?
        }
        "envoy.extensions.filters.http.jwt_authn.v3.JwtAuthentication" => {
            jwt_authn::filter(at, &decode(at, any)?, scope)?
        }
        _ => return Ok(None),
    }))
}

/// A route's configuration of a filter; `None`: of a type that is not known.
pub fn of_route(
    at: At<'_>,
    any: &Any,
    scope: FilterScope<'_>,
) -> Result<Option<FilterOverride>, CompileError> {
    Ok(Some(FilterOverride::Config(match type_name(any) {
        "envoy.extensions.filters.http.rbac.v3.RBACPerRoute" => {
            return policy::per_route(at, any).map(Some);
        }
        "envoy.extensions.filters.http.buffer.v3.BufferPerRoute" => {
            return buffer::per_route(at, &decode(at, any)?).map(Some);
        }
        "envoy.extensions.filters.http.compressor.v3.CompressorPerRoute" => {
            return compressor::per_route(at, &decode(at, any)?).map(Some);
        }
        "envoy.extensions.filters.http.stateful_session.v3.StatefulSessionPerRoute" => {
            return stateful_session::per_route(at, &decode(at, any)?).map(Some);
        }
        "envoy.extensions.filters.http.fault.v3.HTTPFault" => fault::fault(at, &decode(at, any)?)?,
        "envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit" => {
            local_ratelimit::per_route(at, &decode(at, any)?)?
        }
        "envoy.extensions.filters.http.cors.v3.CorsPolicy" => cors::policy(at, &decode(at, any)?)?,
        "envoy.extensions.filters.http.header_mutation.v3.HeaderMutationPerRoute" => {
            header_mutation::per_route(at, &decode(at, any)?)?
        }
        "envoy.extensions.filters.http.csrf.v3.CsrfPolicy" => {
            csrf::per_route(at, &decode(at, any)?)?
        }
        "envoy.extensions.filters.http.header_to_metadata.v3.Config" => {
            header_to_metadata::per_route(at, &decode(at, any)?, scope)?
        }
        "envoy.extensions.filters.http.jwt_authn.v3.PerRouteConfig" => {
            jwt_authn::per_route(at, &decode(at, any)?, scope)?
        }
        _ => return Ok(None),
    })))
}

/// A level's configuration of a filter, merged over that of the level around it.
pub fn on_top(own: FilterOverride, outer: Option<&FilterOverride>) -> FilterOverride {
    use FilterOverride::Config;
    match (own, outer) {
        (Config(FilterConfig::Cors(Some(own))), Some(Config(FilterConfig::Cors(Some(outer))))) => {
            let merged = (*own).clone().within(outer);
            Config(FilterConfig::Cors(Some(merged.into())))
        }
        (
            Config(FilterConfig::HeaderMutation(mut own)),
            Some(Config(FilterConfig::HeaderMutation(outer))),
        ) => {
            own.levels.extend_from_slice(&outer.levels);
            Config(FilterConfig::HeaderMutation(own))
        }
        (own, _) => own,
    }
}

/// A share; absent: none.
fn percent(
    at: At<'_>,
    share: &Option<xds_proto::envoy::r#type::v3::FractionalPercent>,
) -> Result<Percent, CompileError> {
    use xds_proto::envoy::r#type::v3::fractional_percent::DenominatorType as Of;
    let Some(share) = share else {
        return Ok(Percent::ZERO);
    };
    let xds_proto::envoy::r#type::v3::FractionalPercent {
        numerator,
        denominator,
    } = share;
    Ok(Percent {
        numerator: *numerator,
        denominator: match known(at.field("denominator"), *denominator)? {
            Of::Hundred => 100,
            Of::TenThousand => 10_000,
            Of::Million => 1_000_000,
        },
    })
}

/// A share that runtime could change; there is no runtime layer, so the default holds.
fn runtime_percent(
    at: At<'_>,
    share: &xds_proto::envoy::config::core::v3::RuntimeFractionalPercent,
) -> Result<Percent, CompileError> {
    let xds_proto::envoy::config::core::v3::RuntimeFractionalPercent {
        default_value,
        runtime_key,
    } = share;
    super::support::ignored!("there is no runtime layer; the default holds", runtime_key);
    percent(at.field("default_value"), default_value)
}
