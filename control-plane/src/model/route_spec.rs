//! HTTPRoute and GRPCRoute as Gateway API v1 writes them, into [`super::route`].

use std::num::NonZeroU16;

use serde::Deserialize;

use super::filter_spec::{self, FilterSpec};
use super::object::{FieldError, Kind, Meta};
use super::route::{
    Backend, Match, Parent, PathMatch, Retry, Route, Rule, Timeouts, ValueMatch, ValueTest,
};
use super::values::{self, HeaderName, HeaderText, PathText, Pattern, Span};

/// Gateway API's own bounds.
const MAX_RULES: usize = 16;
const MAX_MATCHES: usize = 64;
const MAX_BACKENDS: usize = 16;
const MAX_PARENTS: usize = 32;
/// Retries of one request.
const MAX_ATTEMPTS: u32 = 10;

/// `spec` of an HTTPRoute (`M` is [`HttpMatch`]) or a GRPCRoute ([`GrpcMatch`]).
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RouteSpec<M> {
    #[serde(default)]
    parent_refs: Vec<ParentRef>,
    /// Without effect for Service parents (GEP-1294).
    #[serde(default, rename = "hostnames")]
    _hostnames: Vec<String>,
    #[serde(default = "Vec::new")]
    rules: Vec<RuleSpec<M>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct ParentRef {
    #[serde(default = "gateway_group")]
    group: String,
    #[serde(default = "gateway_kind")]
    kind: String,
    #[serde(deserialize_with = "values::subdomain")]
    name: String,
    #[serde(default, deserialize_with = "values::optional_label")]
    namespace: Option<String>,
    #[serde(default)]
    port: Option<NonZeroU16>,
    #[serde(default)]
    section_name: Option<String>,
}

fn gateway_group() -> String {
    "gateway.networking.k8s.io".to_owned()
}

fn gateway_kind() -> String {
    "Gateway".to_owned()
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct RuleSpec<M> {
    #[serde(default)]
    name: Option<String>,
    #[serde(default = "Vec::new")]
    matches: Vec<M>,
    #[serde(default)]
    filters: Vec<FilterSpec>,
    #[serde(default)]
    backend_refs: Vec<BackendRef>,
    #[serde(default)]
    timeouts: TimeoutSpec,
    #[serde(default)]
    retry: Option<RetrySpec>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct BackendRef {
    #[serde(default)]
    group: String,
    #[serde(default = "service_kind")]
    kind: String,
    #[serde(deserialize_with = "values::subdomain")]
    name: String,
    #[serde(default, deserialize_with = "values::optional_label")]
    namespace: Option<String>,
    #[serde(default)]
    port: Option<NonZeroU16>,
    #[serde(default)]
    weight: Option<u32>,
    #[serde(default)]
    filters: Vec<FilterSpec>,
}

fn service_kind() -> String {
    "Service".to_owned()
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct TimeoutSpec {
    #[serde(default)]
    request: Option<Span>,
    #[serde(default)]
    backend_request: Option<Span>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct RetrySpec {
    #[serde(default)]
    codes: Vec<u16>,
    #[serde(default)]
    attempts: Option<u32>,
    #[serde(default)]
    backoff: Option<Span>,
}

/// A match of an HTTPRoute.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HttpMatch {
    #[serde(default)]
    path: Option<PathSpec>,
    #[serde(default)]
    headers: Vec<HeaderSpec>,
    #[serde(default)]
    query_params: Vec<QuerySpec>,
    #[serde(default)]
    method: Option<Method>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PathSpec {
    #[serde(default, rename = "type")]
    kind: PathKind,
    #[serde(default = "root")]
    value: String,
}

fn root() -> String {
    "/".to_owned()
}

#[derive(Clone, Copy, Default, Deserialize)]
enum PathKind {
    Exact,
    #[default]
    PathPrefix,
    RegularExpression,
}

#[derive(Clone, Copy, Default, Deserialize)]
enum ValueKind {
    #[default]
    Exact,
    RegularExpression,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct HeaderSpec {
    #[serde(default, rename = "type")]
    kind: ValueKind,
    name: HeaderName,
    value: HeaderText,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct QuerySpec {
    #[serde(default, rename = "type")]
    kind: ValueKind,
    name: HeaderName,
    value: String,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
enum Method {
    Get,
    Head,
    Post,
    Put,
    Delete,
    Connect,
    Options,
    Trace,
    Patch,
}

/// A match of a GRPCRoute.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct GrpcMatch {
    #[serde(default)]
    method: Option<GrpcMethod>,
    #[serde(default)]
    headers: Vec<HeaderSpec>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct GrpcMethod {
    #[serde(default, rename = "type")]
    kind: ValueKind,
    #[serde(default)]
    service: Option<String>,
    #[serde(default)]
    method: Option<String>,
}

/// A match of either kind.
pub trait MatchSpec {
    const KIND: Kind;

    /// # Errors
    /// Fields below `path` that contradict each other.
    fn read(self, path: &str) -> Result<Match, FieldError>;
}

impl MatchSpec for HttpMatch {
    const KIND: Kind = Kind::HttpRoute;

    fn read(self, at: &str) -> Result<Match, FieldError> {
        let path = match self.path {
            None => PathMatch::default(),
            Some(spec) => spec.read(&format!("{at}.path.value"))?,
        };
        Ok(Match {
            path,
            method: self
                .method
                .map(|method| format!("{method:?}").to_uppercase()),
            headers: headers(self.headers, at)?,
            query: query(self.query_params, at)?,
        })
    }
}

impl PathSpec {
    fn read(self, at: &str) -> Result<PathMatch, FieldError> {
        let wrong = |message| FieldError::new(at, message);
        let path = |text: &str| text.parse::<PathText>().map_err(wrong);
        Ok(match self.kind {
            PathKind::Exact => PathMatch::Exact(path(&self.value)?.0),
            PathKind::PathPrefix => {
                PathMatch::Prefix(path(&self.value)?.0.trim_end_matches('/').to_owned())
            }
            PathKind::RegularExpression => PathMatch::Regex(self.value.parse().map_err(wrong)?),
        })
    }
}

impl MatchSpec for GrpcMatch {
    const KIND: Kind = Kind::GrpcRoute;

    fn read(self, at: &str) -> Result<Match, FieldError> {
        let path = match self.method {
            None => PathMatch::default(),
            Some(method) => method.read(&format!("{at}.method"))?,
        };
        Ok(Match {
            path,
            headers: headers(self.headers, at)?,
            ..Match::default()
        })
    }
}

impl GrpcMethod {
    fn read(self, at: &str) -> Result<PathMatch, FieldError> {
        let text = |field: &str, value: Option<String>| match value {
            None => Ok(None),
            Some(value) if value.is_empty() => Ok(None),
            Some(value) => match self.kind {
                ValueKind::Exact if !is_grpc_name(&value) => Err(FieldError::new(
                    format!("{at}.{field}"),
                    format!("`{}` is no gRPC {field}", value.escape_debug()),
                )),
                ValueKind::RegularExpression => match value.parse::<Pattern>() {
                    Ok(pattern) => Ok(Some(pattern.0)),
                    Err(error) => Err(FieldError::new(format!("{at}.{field}"), error)),
                },
                ValueKind::Exact => Ok(Some(value)),
            },
        };
        let service = text("service", self.service)?;
        let method = text("method", self.method)?;
        let pattern = |text: String| PathMatch::Regex(Pattern(text));
        Ok(match (self.kind, service, method) {
            (_, None, None) => {
                return Err(FieldError::new(at, "one of service and method is required"));
            }
            (ValueKind::Exact, Some(service), Some(method)) => {
                PathMatch::Exact(format!("/{service}/{method}"))
            }
            (ValueKind::Exact, Some(service), None) => PathMatch::Prefix(format!("/{service}")),
            (ValueKind::Exact, None, Some(method)) => {
                pattern(format!("/[^/]+/{}", regex::escape(&method)))
            }
            (ValueKind::RegularExpression, service, method) => {
                let part = |text: Option<String>| {
                    text.map_or("[^/]+".to_owned(), |text| format!("(?:{text})"))
                };
                pattern(format!("/{}/{}", part(service), part(method)))
            }
        })
    }
}

fn is_grpc_name(text: &str) -> bool {
    text.len() <= 1024
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'.' || b == b'-')
}

/// Of entries with the same name, the first counts (Gateway API).
fn headers(specs: Vec<HeaderSpec>, at: &str) -> Result<Vec<ValueMatch>, FieldError> {
    let mut all: Vec<ValueMatch> = Vec::new();
    for (index, spec) in specs.into_iter().enumerate() {
        let at = format!("{at}.headers[{index}].value");
        push(
            &mut all,
            spec.name.lower(),
            value(spec.kind, spec.value.0, &at)?,
        );
    }
    Ok(all)
}

fn query(specs: Vec<QuerySpec>, at: &str) -> Result<Vec<ValueMatch>, FieldError> {
    let mut all: Vec<ValueMatch> = Vec::new();
    for (index, spec) in specs.into_iter().enumerate() {
        let at = format!("{at}.queryParams[{index}].value");
        push(&mut all, spec.name.0, value(spec.kind, spec.value, &at)?);
    }
    Ok(all)
}

fn push(all: &mut Vec<ValueMatch>, name: String, value: ValueTest) {
    if !all.iter().any(|other| other.name == name) {
        all.push(ValueMatch { name, value });
    }
}

fn value(kind: ValueKind, text: String, at: &str) -> Result<ValueTest, FieldError> {
    Ok(match kind {
        ValueKind::Exact => ValueTest::Exact(text),
        ValueKind::RegularExpression => {
            ValueTest::Regex(text.parse().map_err(|e: String| FieldError::new(at, e))?)
        }
    })
}

impl Route {
    /// # Errors
    /// Fields that contradict each other or ask for what the mesh does not do.
    pub fn new<M: MatchSpec>(meta: Meta, spec: RouteSpec<M>) -> Result<Self, Vec<FieldError>> {
        let mut errors = Vec::new();
        bounded(&mut errors, "spec.rules", spec.rules.len(), MAX_RULES);
        bounded(
            &mut errors,
            "spec.parentRefs",
            spec.parent_refs.len(),
            MAX_PARENTS,
        );
        let namespace = meta.namespace.clone();
        let parents = spec
            .parent_refs
            .into_iter()
            .map(|parent| parent.read(&namespace))
            .collect();
        let mut rules = Vec::new();
        for (index, rule) in spec.rules.into_iter().enumerate() {
            rules.push(rule.read(&format!("spec.rules[{index}]"), &namespace, &mut errors));
        }
        match errors.is_empty() {
            true => Ok(Route {
                kind: M::KIND,
                meta,
                parents,
                rules,
            }),
            false => Err(errors),
        }
    }
}

fn bounded(errors: &mut Vec<FieldError>, at: &str, count: usize, most: usize) {
    if count > most {
        errors.push(FieldError::new(
            at,
            format!("has {count} entries; {most} are allowed"),
        ));
    }
}

impl ParentRef {
    fn read(self, namespace: &str) -> Parent {
        Parent {
            service: self.kind == "Service" && matches!(self.group.as_str(), "" | "core"),
            namespace: self.namespace.unwrap_or_else(|| namespace.to_owned()),
            name: self.name,
            port: self.port.map(NonZeroU16::get),
            section: self.section_name,
        }
    }
}

impl<M: MatchSpec> RuleSpec<M> {
    fn read(self, at: &str, namespace: &str, errors: &mut Vec<FieldError>) -> Rule {
        bounded(
            errors,
            &format!("{at}.matches"),
            self.matches.len(),
            MAX_MATCHES,
        );
        bounded(
            errors,
            &format!("{at}.backendRefs"),
            self.backend_refs.len(),
            MAX_BACKENDS,
        );
        let mut matches = Vec::new();
        for (index, one) in self.matches.into_iter().enumerate() {
            match one.read(&format!("{at}.matches[{index}]")) {
                Ok(one) => matches.push(one),
                Err(error) => errors.push(error),
            }
        }
        if matches.is_empty() {
            matches.push(Match::default());
        }
        let filters = filter_spec::read(self.filters, &format!("{at}.filters"), errors);
        filter_spec::check_rule(
            &filters,
            &matches,
            at,
            !self.backend_refs.is_empty(),
            errors,
        );
        let mut backends = Vec::new();
        for (index, backend) in self.backend_refs.into_iter().enumerate() {
            let at = format!("{at}.backendRefs[{index}]");
            backends.push(backend.read(&at, namespace, errors));
        }
        Rule {
            name: self.name,
            matches,
            filters,
            backends,
            timeouts: self.timeouts.read(&format!("{at}.timeouts"), errors),
            retry: self
                .retry
                .map(|retry| retry.read(&format!("{at}.retry"), errors)),
        }
    }
}

impl BackendRef {
    fn read(self, at: &str, namespace: &str, errors: &mut Vec<FieldError>) -> Backend {
        let filters = filter_spec::read(self.filters, &format!("{at}.filters"), errors);
        if filters.redirect.is_some() || filters.rewrite.is_some() {
            let message =
                "only RequestHeaderModifier and ResponseHeaderModifier are supported here";
            errors.push(FieldError::new(format!("{at}.filters"), message));
        }
        if self.weight.is_some_and(|weight| weight > 1_000_000) {
            errors.push(FieldError::new(
                format!("{at}.weight"),
                "may be 1000000 at most",
            ));
        }
        Backend {
            service: self.kind == "Service" && matches!(self.group.as_str(), "" | "core"),
            namespace: self.namespace.unwrap_or_else(|| namespace.to_owned()),
            name: self.name,
            port: self.port.map(NonZeroU16::get),
            weight: self.weight.unwrap_or(1),
            filters,
        }
    }
}

impl TimeoutSpec {
    fn read(self, at: &str, errors: &mut Vec<FieldError>) -> Timeouts {
        let (request, backend) = (self.request.map(|s| s.0), self.backend_request.map(|s| s.0));
        if let (Some(request), Some(backend)) = (request, backend)
            && !request.is_zero()
            && backend > request
        {
            let message = "must not be longer than timeouts.request";
            errors.push(FieldError::new(format!("{at}.backendRequest"), message));
        }
        Timeouts {
            request,
            backend_request: backend,
        }
    }
}

impl RetrySpec {
    fn read(self, at: &str, errors: &mut Vec<FieldError>) -> Retry {
        for (index, code) in self.codes.iter().enumerate() {
            if !(400..600).contains(code) {
                let message = format!("{code} is no status to retry; allowed: 400 to 599");
                errors.push(FieldError::new(format!("{at}.codes[{index}]"), message));
            }
        }
        if self
            .attempts
            .is_some_and(|attempts| attempts > MAX_ATTEMPTS)
        {
            let message = format!("may be {MAX_ATTEMPTS} at most");
            errors.push(FieldError::new(format!("{at}.attempts"), message));
        }
        Retry {
            codes: self.codes,
            attempts: self.attempts,
            backoff: self.backoff.map(|span| span.0),
        }
    }
}
