//! Providers of tokens.

use std::sync::Arc;

use xds_proto::envoy::extensions::filters::http::jwt_authn::v3 as pb;

use super::remote::remote;
use crate::config::compile::filter::FilterScope;
use crate::config::compile::headers::editable;
use crate::config::compile::matcher::string;
use crate::config::compile::support::{At, CompileError, duration, each, required};
use crate::config::compile::values::data_source;
use crate::config::filter::{
    Audiences, ClaimHeader, JwtProvider, KeySource, PayloadHeader, TokenLifetime, TokenLocations,
};
use crate::jwt::{CacheSettings, Jwks};
use crate::matcher::HeaderName;
use crate::message::head::HeaderId;
use crate::metrics::JwtAuthnMetrics;

/// Seconds that clocks may differ; Envoy's default.
const CLOCK_SKEW: u32 = 60;
/// Tokens that a provider may keep, on each worker.
const MOST_CACHED: u32 = 100_000;

pub fn provider(
    at: At<'_>,
    name: &str,
    m: &pb::JwtProvider,
    metrics: &Arc<JwtAuthnMetrics>,
    scope: FilterScope<'_>,
) -> Result<JwtProvider, CompileError> {
    let pb::JwtProvider {
        issuer,
        audiences,
        subjects,
        require_expiration,
        max_lifetime,
        forward,
        from_headers,
        from_params,
        from_cookies,
        forward_payload_header,
        pad_forward_payload_header,
        payload_in_metadata,
        normalize_payload_in_metadata,
        header_in_metadata,
        failed_status_in_metadata,
        clock_skew_seconds,
        jwt_cache_config,
        claim_to_headers,
        clear_route_cache,
        jwks_source_specifier,
    } = m;
    let source = required!(at, jwks_source_specifier);
    let lifetime = match duration(at.field("max_lifetime"), max_lifetime)? {
        Some(most) => TokenLifetime::Below(most),
        None if *require_expiration => TokenLifetime::Finite,
        None => TokenLifetime::Any,
    };
    let metadata_key = |key: &String| (!key.is_empty()).then(|| key.as_str().into());
    let payload_header = match forward_payload_header.as_str() {
        "" => None,
        name => Some(PayloadHeader {
            name: editable(at.field("forward_payload_header"), name)?,
            padded: *pad_forward_payload_header,
        }),
    };
    Ok(JwtProvider {
        name: name.into(),
        issuer: issuer.as_str().into(),
        audiences: Audiences::new(audiences.iter().map(String::as_str)),
        subjects: match subjects {
            Some(m) => Some(string(at.field("subjects"), m)?),
            None => None,
        },
        lifetime,
        clock_skew: match clock_skew_seconds {
            0 => CLOCK_SKEW.into(),
            seconds => (*seconds).into(),
        },
        locations: locations(at, issuer, (from_headers, from_params, from_cookies))?,
        forward: *forward,
        payload_header,
        claim_headers: each(at, "claim_to_headers", claim_to_headers, claim_header)?,
        payload_metadata: metadata_key(payload_in_metadata),
        header_metadata: metadata_key(header_in_metadata),
        failure_metadata: metadata_key(failed_status_in_metadata),
        space_delimited: match normalize_payload_in_metadata {
            Some(pb::jwt_provider::NormalizePayload {
                space_delimited_claims,
            }) => space_delimited_claims
                .iter()
                .map(|c| c.as_str().into())
                .collect(),
            None => Vec::new(),
        },
        clear_route_cache: *clear_route_cache,
        cache: match jwt_cache_config {
            Some(m) => Some(cache(at.field("jwt_cache_config"), m)?),
            None => None,
        },
        // Last: keys that are fetched are registered for that.
        keys: keys(at, source, metrics, scope)?,
    })
}

fn keys(
    at: At<'_>,
    source: &pb::jwt_provider::JwksSourceSpecifier,
    metrics: &Arc<JwtAuthnMetrics>,
    scope: FilterScope<'_>,
) -> Result<KeySource, CompileError> {
    use pb::jwt_provider::JwksSourceSpecifier as Source;
    match source {
        Source::LocalJwks(m) => {
            let at = at.field("local_jwks");
            let text = data_source(at, m)?;
            let keys = Jwks::parse(&text).map_err(|why| at.error(why))?;
            Ok(KeySource::Local(Arc::new(keys)))
        }
        Source::RemoteJwks(m) => {
            let keys = remote(at.field("remote_jwks"), m, metrics)?;
            scope.remote_keys.add(&keys);
            Ok(KeySource::Remote(keys))
        }
    }
}

type TokenPlaces<'m> = (&'m [pb::JwtHeader], &'m [String], &'m [String]);

fn locations(
    at: At<'_>,
    issuer: &str,
    (headers, params, cookies): TokenPlaces<'_>,
) -> Result<TokenLocations, CompileError> {
    let mut locations = TokenLocations::default();
    for (index, m) in headers.iter().enumerate() {
        let at = at.index("from_headers", index);
        let pb::JwtHeader { name, value_prefix } = m;
        let name = editable(at.field("name"), name)?;
        locations.add_header(&name, value_prefix, issuer);
    }
    for param in params {
        locations.add_param(param, issuer);
    }
    for cookie in cookies {
        locations.add_cookie(cookie, issuer);
    }
    if headers.is_empty() && params.is_empty() && cookies.is_empty() {
        let name = HeaderName {
            id: HeaderId::Authorization,
            name: HeaderId::Authorization.name().into(),
        };
        locations.add_header(&name, "Bearer ", issuer);
        locations.add_param("access_token", issuer);
    }
    Ok(locations)
}

fn claim_header(at: At<'_>, m: &pb::JwtClaimToHeader) -> Result<ClaimHeader, CompileError> {
    let pb::JwtClaimToHeader {
        header_name,
        claim_name,
        claim_path,
    } = m;
    let path: Vec<Box<str>> = match (claim_name.as_str(), claim_path.as_slice()) {
        ("", []) => return at.field("claim_name").fail("is required"),
        (name, []) => name.split('.').map(Into::into).collect(),
        ("", path) => each(at, "claim_path", path, |at, m| {
            let pb::jwt_claim_to_header::PathSegment { key } = m;
            match key.as_str() {
                "" => at.field("key").fail("is required"),
                key => Ok(key.into()),
            }
        })?,
        _ => {
            return at
                .field("claim_path")
                .fail("must not be set beside claim_name");
        }
    };
    Ok(ClaimHeader {
        name: editable(at.field("header_name"), header_name)?,
        path,
    })
}

fn cache(at: At<'_>, m: &pb::JwtCacheConfig) -> Result<Arc<CacheSettings>, CompileError> {
    let pb::JwtCacheConfig {
        jwt_cache_size,
        jwt_max_token_size,
    } = m;
    if *jwt_cache_size > MOST_CACHED {
        let at = at.field("jwt_cache_size");
        return at.fail(format_args!("is more than {MOST_CACHED}"));
    }
    let size = |value: u32| usize::try_from(value).unwrap_or(usize::MAX);
    let settings = CacheSettings::new(size(*jwt_cache_size), size(*jwt_max_token_size));
    Ok(Arc::new(settings))
}
