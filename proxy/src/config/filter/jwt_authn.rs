//! The filter that verifies JSON Web Tokens.

use std::sync::Arc;
use std::time::Duration;

use super::FilterName;
use crate::config::route::RouteMatch;
use crate::jwt::remote::RemoteKeys;
use crate::jwt::{CacheSettings, Jwks};
use crate::matcher::{HeaderName, StringMatch};
use crate::metrics::JwtAuthnMetrics;

/// envoy.extensions.filters.http.jwt_authn.v3.JwtAuthentication.
pub struct JwtAuthn {
    /// Sorted by name.
    pub providers: Vec<JwtProvider>,
    /// The first that matches holds.
    pub rules: Vec<JwtRule>,
    /// `requirement_map`; routes name these.
    pub requirements: Vec<(FilterName, JwtRequirement)>,
    /// Where all providers look for tokens.
    pub locations: TokenLocations,
    /// Headers that the filter sets, and that are taken from no client.
    pub reserved: Vec<HeaderName>,
    pub bypass_cors_preflight: bool,
    pub strip_failure_response: bool,
    pub metrics: Arc<JwtAuthnMetrics>,
}

/// envoy.extensions.filters.http.jwt_authn.v3.PerRouteConfig.
#[derive(Clone)]
pub enum JwtAuthnOverride {
    /// No token is required.
    Disabled,
    /// The requirement of this name; interned together with [`JwtAuthn::requirements`].
    Requirement(FilterName),
}

pub struct JwtRule {
    pub matches: RouteMatch,
    /// `None`: no token is required.
    pub requirement: Option<JwtRequirement>,
}

/// Tokens that a request must have, and the providers whose keys may be needed for that.
pub struct JwtRequirement {
    pub kind: RequirementKind,
    /// Indices of the providers whose keys are fetched.
    pub remote: Vec<usize>,
}

/// envoy.extensions.filters.http.jwt_authn.v3.JwtRequirement.
pub enum RequirementKind {
    /// Nothing is required, nor verified.
    Nothing,
    Provider {
        /// Index.
        provider: usize,
        /// In place of the provider's own.
        audiences: Option<Audiences>,
    },
    Any {
        of: Vec<RequirementKind>,
        allow: Option<Allowance>,
    },
    All(Vec<RequirementKind>),
    /// Tokens of any provider.
    Allow(Allowance),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Allowance {
    Missing,
    MissingOrFailed,
}

/// envoy.extensions.filters.http.jwt_authn.v3.JwtProvider.
pub struct JwtProvider {
    pub name: Box<str>,
    /// Empty: any.
    pub issuer: Box<str>,
    pub audiences: Audiences,
    pub subjects: Option<StringMatch>,
    pub lifetime: TokenLifetime,
    /// Seconds.
    pub clock_skew: u64,
    pub keys: KeySource,
    pub locations: TokenLocations,
    /// The token stays in the request.
    pub forward: bool,
    pub payload_header: Option<PayloadHeader>,
    pub claim_headers: Vec<ClaimHeader>,
    /// Keys of dynamic metadata.
    pub payload_metadata: Option<Box<str>>,
    pub header_metadata: Option<Box<str>>,
    pub failure_metadata: Option<Box<str>>,
    /// Claims that are lists in the metadata.
    pub space_delimited: Vec<Box<str>>,
    pub clear_route_cache: bool,
    /// `None`: verified tokens are not kept.
    pub cache: Option<Arc<CacheSettings>>,
}

/// How long tokens may be valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenLifetime {
    Any,
    /// They must expire.
    Finite,
    /// They must expire within this time from now.
    Below(Duration),
}

pub enum KeySource {
    Local(Arc<Jwks>),
    Remote(Arc<RemoteKeys>),
}

/// A header with a token's payload.
pub struct PayloadHeader {
    pub name: HeaderName,
    /// base64url with padding.
    pub padded: bool,
}

/// A header with a claim.
pub struct ClaimHeader {
    pub name: HeaderName,
    /// Keys from the payload's top.
    pub path: Vec<Box<str>>,
}

/// Audiences of which a token must have one; none: any audience will do. Schemes and a slash at the end
/// do not count, as in Envoy.
#[derive(Debug, Default)]
pub struct Audiences(Vec<Box<str>>);

impl Audiences {
    pub fn new<'a>(all: impl IntoIterator<Item = &'a str>) -> Self {
        let all = all.into_iter().map(|audience| bare(audience).into());
        Self(all.collect())
    }

    pub fn allow<'a>(&self, mut claimed: impl Iterator<Item = &'a str>) -> bool {
        let is_allowed = |one: &str| self.0.iter().any(|known| **known == *bare(one));
        self.0.is_empty() || claimed.any(is_allowed)
    }
}

fn bare(audience: &str) -> &str {
    let schemes = ["http://", "https://"];
    let found = schemes
        .iter()
        .find_map(|scheme| audience.strip_prefix(scheme));
    let rest = found.unwrap_or(audience);
    rest.strip_suffix('/').unwrap_or(rest)
}

/// Where tokens are looked for, each kind sorted as Envoy sorts it: tokens are verified from the last to
/// the first.
#[derive(Default)]
pub struct TokenLocations {
    pub headers: Vec<HeaderLocation>,
    pub params: Vec<NamedLocation>,
    pub cookies: Vec<NamedLocation>,
}

pub struct HeaderLocation {
    pub name: HeaderName,
    /// The token follows it; empty: the token is the value.
    pub prefix: Box<str>,
    pub issuers: Issuers,
}

/// A query parameter or a cookie.
pub struct NamedLocation {
    pub name: Box<str>,
    pub issuers: Issuers,
}

/// Issuers whose tokens may stand in a place.
#[derive(Debug, Default)]
pub struct Issuers {
    any: bool,
    of: Vec<Box<str>>,
}

impl Issuers {
    pub fn add(&mut self, issuer: &str) {
        match issuer {
            "" => self.any = true,
            issuer => self.of.push(issuer.into()),
        }
    }

    pub fn allow(&self, issuer: &str) -> bool {
        self.any || self.of.iter().any(|known| **known == *issuer)
    }
}

impl TokenLocations {
    pub fn add_header(&mut self, name: &HeaderName, prefix: &str, issuer: &str) {
        let key = |name: &str, prefix: &str| [name, prefix].concat();
        let wanted = key(&name.name, prefix);
        let found = self
            .headers
            .binary_search_by(|known| key(&known.name.name, &known.prefix).cmp(&wanted));
        let at = found.unwrap_or_else(|at| {
            let fresh = HeaderLocation {
                name: name.clone(),
                prefix: prefix.into(),
                issuers: Issuers::default(),
            };
            self.headers.insert(at, fresh);
            at
        });
        if let Some(location) = self.headers.get_mut(at) {
            location.issuers.add(issuer);
        }
    }

    pub fn add_param(&mut self, name: &str, issuer: &str) {
        add(&mut self.params, name, issuer);
    }

    pub fn add_cookie(&mut self, name: &str, issuer: &str) {
        add(&mut self.cookies, name, issuer);
    }
}

fn add(list: &mut Vec<NamedLocation>, name: &str, issuer: &str) {
    let found = list.binary_search_by(|known| (*known.name).cmp(name));
    let at = found.unwrap_or_else(|at| {
        let fresh = NamedLocation {
            name: name.into(),
            issuers: Issuers::default(),
        };
        list.insert(at, fresh);
        at
    });
    if let Some(location) = list.get_mut(at) {
        location.issuers.add(issuer);
    }
}

impl JwtProvider {
    /// Whether a verified token changes the request's head.
    pub fn edits_requests(&self) -> bool {
        !self.forward || self.payload_header.is_some() || !self.claim_headers.is_empty()
    }
}

impl JwtAuthn {
    /// The provider of tokens by this issuer, where no requirement names one: the first with the issuer,
    /// else the first for any.
    pub fn by_issuer(&self, issuer: &str) -> Option<&JwtProvider> {
        let find = |issuer: &str| self.providers.iter().find(|one| *one.issuer == *issuer);
        find(issuer).or_else(|| find(""))
    }

    /// The clusters that keys are fetched from.
    pub fn clusters(&self) -> impl Iterator<Item = &str> {
        self.providers
            .iter()
            .filter_map(|provider| match &provider.keys {
                KeySource::Remote(remote) => Some(&*remote.settings.cluster),
                KeySource::Local(_) => None,
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn audiences_are_compared_without_scheme_and_slash() {
        let allowed = Audiences::new(["https://shop/", "cart"]);
        for (claimed, wanted) in [
            (vec!["shop"], true),
            (vec!["http://shop"], true),
            (vec!["https://shop"], true),
            (vec!["none", "cart/"], true),
            (vec!["cart//"], false),
            (vec!["ftp://shop"], false),
            (vec![""], false),
            (vec![], false),
        ] {
            assert_eq!(
                allowed.allow(claimed.iter().copied()),
                wanted,
                "{claimed:?}"
            );
        }
        assert!(Audiences::default().allow([].into_iter()));
    }

    #[test]
    fn places_are_sorted_and_each_is_there_once() {
        let mut all = TokenLocations::default();
        let name = |name| HeaderName::parse(name).unwrap();
        all.add_header(&name("x-b"), "", "one");
        all.add_header(&name("x-a"), "P ", "one");
        all.add_header(&name("x-b"), "", "two");
        all.add_param("q", "");
        all.add_param("p", "one");
        let headers: Vec<_> = all.headers.iter().map(|one| &*one.name.name).collect();
        assert_eq!(headers, ["x-a", "x-b"]);
        assert!(all.headers[1].issuers.allow("two") && !all.headers[1].issuers.allow("three"));
        assert!(all.params[1].issuers.allow("three") && !all.params[0].issuers.allow("three"));
    }
}
