//! Filters of routes as Gateway API v1 writes them.

use std::num::{NonZeroU16, NonZeroU32};

use serde::Deserialize;

use super::cors_spec::CorsSpec;
use super::object::FieldError;
use super::path_edit_spec::{self, PathEditSpec};
use super::reference::reference;
use super::route::{Filters, HeaderEdits, Match, Mirror, PathEdit, PathMatch, Redirect, Rewrite};
use super::values::{HeaderName, HeaderText, check_name};

/// Gateway API's bound.
const MAX_FILTERS: usize = 16;

/// One entry of `filters`.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct FilterSpec {
    #[serde(rename = "type")]
    kind: FilterKind,
    #[serde(default)]
    request_header_modifier: Option<HeaderModifierSpec>,
    #[serde(default)]
    response_header_modifier: Option<HeaderModifierSpec>,
    #[serde(default)]
    request_redirect: Option<RedirectSpec>,
    #[serde(default, rename = "urlRewrite")]
    url_rewrite: Option<RewriteSpec>,
    #[serde(default)]
    request_mirror: Option<MirrorSpec>,
    #[serde(default)]
    cors: Option<CorsSpec>,
}

#[derive(Clone, Copy, PartialEq, Deserialize)]
enum FilterKind {
    RequestHeaderModifier,
    ResponseHeaderModifier,
    RequestRedirect,
    #[serde(rename = "URLRewrite")]
    UrlRewrite,
    RequestMirror,
    #[serde(rename = "CORS")]
    Cors,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct HeaderModifierSpec {
    #[serde(default)]
    set: Vec<HeaderValue>,
    #[serde(default)]
    add: Vec<HeaderValue>,
    #[serde(default)]
    remove: Vec<HeaderName>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct HeaderValue {
    name: HeaderName,
    value: HeaderText,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct RedirectSpec {
    #[serde(default)]
    scheme: Option<Scheme>,
    #[serde(default)]
    hostname: Option<String>,
    #[serde(default)]
    path: Option<PathEditSpec>,
    #[serde(default)]
    port: Option<NonZeroU16>,
    #[serde(default)]
    status_code: Option<u16>,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Scheme {
    Http,
    Https,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RewriteSpec {
    #[serde(default)]
    hostname: Option<String>,
    #[serde(default)]
    path: Option<PathEditSpec>,
}

/// GEP-3171: all requests, or a share of them.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct MirrorSpec {
    backend_ref: MirrorRef,
    #[serde(default)]
    percent: Option<u32>,
    #[serde(default)]
    fraction: Option<FractionSpec>,
}

reference! {
    struct MirrorRef {}
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FractionSpec {
    numerator: u32,
    #[serde(default = "hundred")]
    denominator: NonZeroU32,
}

fn hundred() -> NonZeroU32 {
    const { NonZeroU32::new(100).unwrap() }
}

/// Reads all filters of a rule or a backend of a route in `namespace`; what is wrong goes to
/// `errors`.
pub fn read(
    specs: Vec<FilterSpec>,
    namespace: &str,
    at: &str,
    errors: &mut Vec<FieldError>,
) -> Filters {
    let mut filters = Filters::default();
    if specs.len() > MAX_FILTERS {
        errors.push(FieldError::new(
            at,
            format!("{MAX_FILTERS} entries are allowed"),
        ));
    }
    let mut seen = [false; 6];
    for (index, spec) in specs.into_iter().enumerate() {
        let at = format!("{at}[{index}]");
        let again = std::mem::replace(&mut seen[spec.kind as usize], true);
        if again && spec.kind != FilterKind::RequestMirror {
            errors.push(FieldError::new(format!("{at}.type"), "is there twice"));
        }
        if let Err(error) = one(spec, namespace, &at, &mut filters) {
            errors.push(error);
        }
    }
    filters
}

fn one(
    spec: FilterSpec,
    namespace: &str,
    at: &str,
    filters: &mut Filters,
) -> Result<(), FieldError> {
    let field = match spec.kind {
        FilterKind::RequestHeaderModifier => "requestHeaderModifier",
        FilterKind::ResponseHeaderModifier => "responseHeaderModifier",
        FilterKind::RequestRedirect => "requestRedirect",
        FilterKind::UrlRewrite => "urlRewrite",
        FilterKind::RequestMirror => "requestMirror",
        FilterKind::Cors => "cors",
    };
    let given = [
        spec.request_header_modifier.is_some(),
        spec.response_header_modifier.is_some(),
        spec.request_redirect.is_some(),
        spec.url_rewrite.is_some(),
        spec.request_mirror.is_some(),
        spec.cors.is_some(),
    ];
    if given.iter().filter(|given| **given).count() != 1 || !given[spec.kind as usize] {
        return Err(FieldError::new(
            at,
            format!("must have `{field}` and no other settings"),
        ));
    }
    if let Some(spec) = spec.request_header_modifier {
        filters.request = spec.read(&format!("{at}.{field}"))?;
    }
    if let Some(spec) = spec.response_header_modifier {
        filters.response = spec.read(&format!("{at}.{field}"))?;
    }
    if let Some(spec) = spec.request_redirect {
        filters.redirect = Some(spec.read(&format!("{at}.{field}"))?);
    }
    if let Some(spec) = spec.url_rewrite {
        filters.rewrite = Some(Rewrite {
            hostname: hostname(spec.hostname, &format!("{at}.{field}"))?,
            path: path_edit_spec::rewrite(spec.path, &format!("{at}.{field}"))?,
        });
    }
    if let Some(spec) = spec.request_mirror {
        let mirror = spec.read(namespace, &format!("{at}.{field}"))?;
        filters.mirrors.push(mirror);
    }
    if let Some(spec) = spec.cors {
        filters.cors = Some(spec.read(&format!("{at}.{field}"))?);
    }
    Ok(())
}

impl MirrorSpec {
    fn read(self, namespace: &str, at: &str) -> Result<Mirror, FieldError> {
        const ALL: u32 = 1_000_000;
        let share = match (self.percent, self.fraction) {
            (None, None) => ALL,
            (Some(percent), None) if percent <= 100 => percent * (ALL / 100),
            (Some(percent), None) => {
                let message = format!("{percent} is more than 100");
                return Err(FieldError::new(format!("{at}.percent"), message));
            }
            (None, Some(fraction)) => fraction.of(ALL, &format!("{at}.fraction"))?,
            (Some(_), Some(_)) => {
                let message = "percent and fraction exclude each other";
                return Err(FieldError::new(format!("{at}.fraction"), message));
            }
        };
        let mut to = self.backend_ref;
        Ok(Mirror {
            to: to.destination(namespace),
            share,
        })
    }
}

impl FractionSpec {
    fn of(&self, all: u32, at: &str) -> Result<u32, FieldError> {
        let (numerator, denominator) = (self.numerator, self.denominator.get());
        if numerator > denominator {
            let message = format!("{numerator} is more than the denominator {denominator}");
            return Err(FieldError::new(format!("{at}.numerator"), message));
        }
        let share = u64::from(numerator) * u64::from(all) / u64::from(denominator);
        // Not more than `all`.
        Ok(share as u32)
    }
}

impl HeaderModifierSpec {
    fn read(self, at: &str) -> Result<HeaderEdits, FieldError> {
        let refused = |name: &HeaderName| {
            let name = name.lower();
            name == "host" || name.starts_with("x-envoy-") || name.starts_with("x-anyam-")
        };
        // Of entries with the same name, the first counts (Gateway API).
        let pairs = |field: &str, headers: Vec<HeaderValue>| {
            let mut pairs: Vec<(String, String)> = Vec::new();
            for (index, header) in headers.into_iter().enumerate() {
                if refused(&header.name) {
                    let message = "cannot be changed this way; URLRewrite changes the host";
                    return Err(FieldError::new(
                        format!("{at}.{field}[{index}].name"),
                        message,
                    ));
                }
                let name = header.name.0;
                if !pairs
                    .iter()
                    .any(|(other, _)| other.eq_ignore_ascii_case(&name))
                {
                    pairs.push((name, header.value.0));
                }
            }
            Ok(pairs)
        };
        if let Some(index) = self.remove.iter().position(refused) {
            let message = "cannot be removed; the mesh needs it";
            return Err(FieldError::new(format!("{at}.remove[{index}]"), message));
        }
        Ok(HeaderEdits {
            set: pairs("set", self.set)?,
            add: pairs("add", self.add)?,
            remove: self.remove.into_iter().map(|name| name.0).collect(),
        })
    }
}

impl RedirectSpec {
    fn read(self, at: &str) -> Result<Redirect, FieldError> {
        let status = self.status_code.unwrap_or(302);
        if ![301, 302, 303, 307, 308].contains(&status) {
            let message = format!("{status} is no redirect; allowed: 301, 302, 303, 307, 308");
            return Err(FieldError::new(format!("{at}.statusCode"), message));
        }
        Ok(Redirect {
            scheme: self.scheme.map(|scheme| match scheme {
                Scheme::Http => "http".to_owned(),
                Scheme::Https => "https".to_owned(),
            }),
            hostname: hostname(self.hostname, at)?,
            path: path_edit_spec::redirect(self.path, at)?,
            port: self.port.map(NonZeroU16::get),
            status,
        })
    }
}

fn hostname(text: Option<String>, at: &str) -> Result<Option<String>, FieldError> {
    if let Some(text) = &text {
        check_name(text, true).map_err(|e| FieldError::new(format!("{at}.hostname"), e))?;
    }
    Ok(text)
}

/// What Gateway API forbids together.
pub fn check_rule(
    filters: &Filters,
    matches: &[Match],
    at: &str,
    has_backends: bool,
    errors: &mut Vec<FieldError>,
) {
    let mut wrong = |message: &str| errors.push(FieldError::new(format!("{at}.filters"), message));
    if filters.redirect.is_some() && filters.rewrite.is_some() {
        wrong("RequestRedirect and URLRewrite exclude each other");
    }
    if filters.redirect.is_some() && has_backends {
        wrong("a rule with RequestRedirect has no backendRefs");
    }
    if filters.redirect.is_some() && !filters.mirrors.is_empty() {
        wrong("RequestRedirect and RequestMirror exclude each other: a redirect sends nothing on");
    }
    if filters.redirect.is_some() && filters.cors.is_some() {
        wrong("RequestRedirect and CORS exclude each other: a redirect has no headers for CORS");
    }
    if !filters.mirrors.is_empty() && filters.redirect.is_none() && !has_backends {
        wrong("a rule with RequestMirror needs backendRefs: without them nothing is sent on");
    }
    let edits = [
        filters
            .redirect
            .as_ref()
            .and_then(|redirect| redirect.path.as_ref()),
        filters
            .rewrite
            .as_ref()
            .and_then(|rewrite| rewrite.path.as_ref()),
    ];
    let by_prefix = edits
        .into_iter()
        .flatten()
        .any(|edit| matches!(edit, PathEdit::Prefix(_)));
    let prefixes = matches
        .iter()
        .all(|one| matches!(one.path, PathMatch::Prefix(_)));
    if by_prefix && !prefixes {
        wrong("replacePrefixMatch needs matches of type PathPrefix only");
    }
}
