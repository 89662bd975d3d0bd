//! The filter that verifies JSON Web Tokens.
//!
//! - `provider`: how an issuer's tokens are found, verified and passed on; `remote`: keys that are fetched
//! - `requirement`: which tokens a request must have

mod provider;
mod remote;
mod requirement;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use xds_proto::envoy::config::route::v3 as route;
use xds_proto::envoy::extensions::filters::http::jwt_authn::v3 as pb;

use self::requirement::{Providers, requirement};
use super::FilterScope;
use crate::config::compile::route::route_match;
use crate::config::compile::support::{At, CompileError, each, required, unsupported};
use crate::config::filter::{
    FilterConfig, JwtAuthn, JwtAuthnOverride, JwtProvider, JwtRule, TokenLocations,
};
use crate::config::route::RouteMatch;
use crate::matcher::HeaderName;

pub fn filter(
    at: At<'_>,
    m: &pb::JwtAuthentication,
    scope: FilterScope<'_>,
) -> Result<FilterConfig, CompileError> {
    let pb::JwtAuthentication {
        providers,
        rules,
        filter_state_rules,
        bypass_cors_preflight,
        requirement_map,
        strip_failure_response,
        stat_prefix,
    } = m;
    unsupported!(at, filter_state_rules);
    let metrics = Arc::new(scope.jwt_authn.handles(&scope.stats(stat_prefix)));
    let sorted: BTreeMap<_, _> = providers.iter().collect();
    let compiled = sorted.into_iter().map(|(name, m)| {
        let at = at.key("providers", name);
        provider::provider(at, name, m, &metrics, scope)
    });
    let providers: Vec<JwtProvider> = compiled.collect::<Result<_, _>>()?;
    let known = Providers(&providers);
    let requirements = named(at, requirement_map, known)?;
    let rules = each(at, "rules", rules, |at, m| {
        rule(at, m, requirement_map, known)
    })?;
    let requirements = requirements.into_iter();
    Ok(FilterConfig::JwtAuthn(Arc::new(JwtAuthn {
        rules,
        requirements: requirements
            .map(|(name, requirement)| (scope.names.intern(name), requirement))
            .collect(),
        locations: locations_of_all(&providers),
        reserved: reserved(&providers),
        bypass_cors_preflight: *bypass_cors_preflight,
        strip_failure_response: *strip_failure_response,
        providers,
        metrics,
    })))
}

pub fn per_route(
    at: At<'_>,
    m: &pb::PerRouteConfig,
    scope: FilterScope<'_>,
) -> Result<FilterConfig, CompileError> {
    use pb::per_route_config::RequirementSpecifier as Kind;
    let pb::PerRouteConfig {
        requirement_specifier,
    } = m;
    Ok(FilterConfig::JwtAuthnOfRoute(
        match required!(at, requirement_specifier) {
            Kind::Disabled(true) => JwtAuthnOverride::Disabled,
            Kind::Disabled(false) => return at.field("disabled").fail("must be true"),
            Kind::RequirementName(name) if name.is_empty() => {
                return at.field("requirement_name").fail("is required");
            }
            Kind::RequirementName(name) => JwtAuthnOverride::Requirement(scope.names.intern(name)),
        },
    ))
}

type Requirements = HashMap<String, pb::JwtRequirement>;

/// `requirement_map`, sorted by name.
fn named<'m>(
    at: At<'_>,
    map: &'m Requirements,
    providers: Providers<'_>,
) -> Result<BTreeMap<&'m str, crate::config::filter::JwtRequirement>, CompileError> {
    let compiled = map.iter().map(|(name, m)| {
        let at = at.key("requirement_map", name);
        Ok((name.as_str(), requirement(at, m, providers)?))
    });
    compiled.collect()
}

fn rule(
    at: At<'_>,
    m: &pb::RequirementRule,
    map: &Requirements,
    providers: Providers<'_>,
) -> Result<JwtRule, CompileError> {
    use pb::requirement_rule::RequirementType as Kind;
    let pb::RequirementRule {
        r#match,
        requirement_type,
    } = m;
    let matches = required!(at, r#match);
    Ok(JwtRule {
        matches: rule_match(at.field("match"), matches)?,
        requirement: match requirement_type {
            None => None,
            Some(Kind::Requires(m)) => Some(requirement(at.field("requires"), m, providers)?),
            Some(Kind::RequirementName(name)) => {
                let at = at.field("requirement_name");
                let Some(m) = map.get(name) else {
                    return at.fail(format_args!("`{name}` is not in requirement_map"));
                };
                Some(requirement(at, m, providers)?)
            }
        },
    })
}

/// What Envoy does not look at here is refused: the rule would hold for more requests there than here.
fn rule_match(at: At<'_>, m: &route::RouteMatch) -> Result<RouteMatch, CompileError> {
    let set = [
        ("runtime_fraction", m.runtime_fraction.is_some()),
        ("grpc", m.grpc.is_some()),
        ("dynamic_metadata", !m.dynamic_metadata.is_empty()),
    ];
    if let Some((field, _)) = set.into_iter().find(|(_, is_set)| *is_set) {
        return at.field(field).fail("is not supported in a rule");
    }
    route_match(at, m)
}

fn locations_of_all(providers: &[JwtProvider]) -> TokenLocations {
    let mut all = TokenLocations::default();
    for provider in providers {
        let own = &provider.locations;
        for header in &own.headers {
            all.add_header(&header.name, &header.prefix, &provider.issuer);
        }
        for param in &own.params {
            all.add_param(&param.name, &provider.issuer);
        }
        for cookie in &own.cookies {
            all.add_cookie(&cookie.name, &provider.issuer);
        }
    }
    all
}

/// The headers that the filter sets.
fn reserved(providers: &[JwtProvider]) -> Vec<HeaderName> {
    let mut all: Vec<HeaderName> = Vec::new();
    for provider in providers {
        let payload = provider.payload_header.iter().map(|header| &header.name);
        let claims = provider.claim_headers.iter().map(|header| &header.name);
        for name in payload.chain(claims) {
            if !all.contains(name) {
                all.push(name.clone());
            }
        }
    }
    all
}
