//! HTTPRoute and GRPCRoute as Gateway API v1 writes them, into [`super::route`].

use std::num::NonZeroU16;

use serde::Deserialize;
use serde::de::IgnoredAny;

use super::filter_spec::{self, FilterSpec};
use super::match_spec::MatchSpec;
use super::object::{FieldError, Kind, Meta};
use super::reference::reference;
use super::route::{Backend, Filters, Match, Parent, Retry, Rewrite, Route, Rule, Timeouts};
use super::session_spec::SessionSpec;
use super::values::{self, Span};

/// Gateway API's own bounds.
pub(super) const MAX_RULES: usize = 16;
const MAX_MATCHES: usize = 64;
pub(super) const MAX_BACKENDS: usize = 16;
pub(super) const MAX_PARENTS: usize = 32;
/// Of a backend's weight.
pub(super) const MAX_WEIGHT: u32 = 1_000_000;
/// Retries of one request.
pub const MAX_ATTEMPTS: u32 = 10;

/// `spec` of an HTTPRoute (`M` is [`super::match_spec::HttpMatch`]) or a GRPCRoute ([`super::match_spec::GrpcMatch`]).
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RouteSpec<M> {
    #[serde(default)]
    parent_refs: Vec<ParentRef>,
    /// Without effect for Service parents (GEP-1294), which the route's conditions report.
    #[serde(default)]
    hostnames: Vec<String>,
    /// Absent from an HTTPRoute: one rule, which matches everything and has no backend.
    rules: Option<Vec<RuleSpec<M>>>,
    /// About Gateways, whose controllers read it.
    #[serde(default, rename = "useDefaultGateways")]
    _use_default_gateways: IgnoredAny,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct ParentRef {
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
    #[serde(default, deserialize_with = "values::optional_subdomain")]
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
    retry: Option<RouteRetrySpec>,
    #[serde(default)]
    session_persistence: Option<SessionSpec>,
}

reference! {
    struct BackendRef {
        #[serde(default)]
        weight: Option<u32>,
        #[serde(default)]
        filters: Vec<FilterSpec>,
    }
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
struct RouteRetrySpec {
    #[serde(default)]
    codes: Vec<u16>,
    #[serde(default)]
    attempts: Option<u32>,
    #[serde(default)]
    backoff: Option<Span>,
}

impl Route {
    /// # Errors
    /// Fields that contradict each other or are not supported.
    pub fn new<M: MatchSpec>(meta: Meta, spec: RouteSpec<M>) -> Result<Self, Vec<FieldError>> {
        let mut errors = Vec::new();
        let mut rules: Vec<Rule> = Vec::new();
        if spec.rules.is_none() && M::KIND == Kind::HttpRoute {
            rules.push(Rule {
                name: None,
                matches: vec![Match::default()],
                filters: Filters::default(),
                backends: Vec::new(),
                timeouts: Timeouts::default(),
                retry: None,
                session: None,
            });
        }
        let specs = spec.rules.unwrap_or_default();
        bounded(&mut errors, "spec.rules", specs.len(), MAX_RULES);
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
        for (index, rule) in specs.into_iter().enumerate() {
            let named = |other: &Rule| rule.name.is_some() && other.name == rule.name;
            if rules.iter().any(named) {
                let at = format!("spec.rules[{index}].name");
                errors.push(FieldError::new(at, "is the name of another rule too"));
            }
            rules.push(rule.read(&format!("spec.rules[{index}]"), &namespace, &mut errors));
        }
        match errors.is_empty() {
            true => Ok(Route {
                kind: M::KIND,
                meta,
                parents,
                hostnames: spec.hostnames,
                rules,
            }),
            false => Err(errors),
        }
    }
}

pub(super) fn bounded(errors: &mut Vec<FieldError>, at: &str, count: usize, most: usize) {
    if count > most {
        errors.push(FieldError::new(
            at,
            format!("has {count} entries; {most} are allowed"),
        ));
    }
}

pub(super) fn check_weight(weight: Option<u32>, at: &str, errors: &mut Vec<FieldError>) {
    if weight.is_some_and(|weight| weight > MAX_WEIGHT) {
        let message = format!("may be {MAX_WEIGHT} at most");
        errors.push(FieldError::new(format!("{at}.weight"), message));
    }
}

impl ParentRef {
    pub(super) fn read(self, namespace: &str) -> Parent {
        Parent {
            service: self.kind == "Service" && matches!(self.group.as_str(), "" | "core"),
            group: self.group,
            kind: self.kind,
            has_namespace: self.namespace.is_some(),
            namespace: self.namespace.unwrap_or_else(|| namespace.to_owned()),
            name: self.name,
            port: self.port.map(NonZeroU16::get),
            section: self.section_name.filter(|name| !name.is_empty()),
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
        let mut filters =
            filter_spec::read(self.filters, namespace, &format!("{at}.filters"), errors);
        let mut backends = Vec::new();
        let alone = self.backend_refs.len() == 1;
        for (index, backend) in self.backend_refs.into_iter().enumerate() {
            let at = format!("{at}.backendRefs[{index}]");
            let mut backend = backend.read(&at, namespace, errors);
            if alone {
                backend.lift(&mut filters);
            }
            if let Some(which) = backend.filters.unsupported() {
                let message = format!(
                    "{which} is not supported here, but among the rule's filters, or where this is the only backend"
                );
                errors.push(FieldError::new(format!("{at}.filters"), message));
            }
            backends.push(backend);
        }
        filter_spec::check_rule(&filters, &matches, at, !backends.is_empty(), errors);
        let foreign = [
            (filters.redirect.is_some(), "RequestRedirect"),
            (filters.rewrite.is_some(), "URLRewrite"),
            (filters.cors.is_some(), "CORS"),
        ];
        if let Some((_, which)) = foreign.into_iter().find(|(given, _)| *given)
            && M::KIND == Kind::GrpcRoute
        {
            let message = format!("a GRPCRoute has no {which}");
            errors.push(FieldError::new(format!("{at}.filters"), message));
        }
        let at_session = format!("{at}.sessionPersistence");
        let session = self
            .session_persistence
            .map(|session| session.read(&at_session, &backends, errors));
        Rule {
            name: self.name,
            matches,
            session,
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
    fn read(mut self, at: &str, namespace: &str, errors: &mut Vec<FieldError>) -> Backend {
        let to = self.destination(namespace);
        let filters = filter_spec::read(self.filters, namespace, &format!("{at}.filters"), errors);
        check_weight(self.weight, at, errors);
        Backend {
            to,
            weight: self.weight.unwrap_or(1),
            filters,
        }
    }
}

impl Backend {
    /// A rule's only backend gets every request that is forwarded: its filters are the rule's, but
    /// for those that each backend may have.
    fn lift(&mut self, rule: &mut Filters) {
        let own = &mut self.filters;
        if rule.rewrite.is_none() {
            rule.rewrite = own.rewrite.take();
        }
        if rule.cors.is_none() {
            rule.cors = own.cors.take();
        }
        rule.mirrors.append(&mut own.mirrors);
    }
}

impl Filters {
    /// The name of a filter that a backend can't have of its own.
    fn unsupported(&self) -> Option<&'static str> {
        let rewrites_path =
            |rewrite: &Rewrite| rewrite.path.is_some() || rewrite.hostname.is_none();
        let which = [
            (self.redirect.is_some(), "RequestRedirect"),
            (
                self.rewrite.as_ref().is_some_and(rewrites_path),
                "URLRewrite of the path",
            ),
            (!self.mirrors.is_empty(), "RequestMirror"),
            (self.cors.is_some(), "CORS"),
        ];
        let found = which.into_iter().find(|(given, _)| *given);
        found.map(|(_, name)| name)
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

impl RouteRetrySpec {
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
