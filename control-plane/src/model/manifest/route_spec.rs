//! HTTPRoute and GRPCRoute as Gateway API v1 writes them, into [`super::route`].

use std::num::NonZeroU16;

use serde::Deserialize;

use super::filter_spec::{self, FilterSpec};
use super::match_spec::MatchSpec;
use super::object::{FieldError, Kind, Meta};
use super::reference::reference;
use super::route::{Backend, Match, Parent, Retry, Route, Rule, Timeouts};
use super::values::{self, Span};

/// Gateway API's own bounds.
const MAX_RULES: usize = 16;
const MAX_MATCHES: usize = 64;
const MAX_BACKENDS: usize = 16;
const MAX_PARENTS: usize = 32;
/// Retries of one request.
const MAX_ATTEMPTS: u32 = 10;

/// `spec` of an HTTPRoute (`M` is [`super::match_spec::HttpMatch`]) or a GRPCRoute ([`super::match_spec::GrpcMatch`]).
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RouteSpec<M> {
    #[serde(default)]
    parent_refs: Vec<ParentRef>,
    /// Without effect for Service parents (GEP-1294), which the route's conditions report.
    #[serde(default)]
    hostnames: Vec<String>,
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
    retry: Option<RetrySpec>,
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
struct RetrySpec {
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
        let mut rules: Vec<Rule> = Vec::new();
        for (index, rule) in spec.rules.into_iter().enumerate() {
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
                hostnames: !spec.hostnames.is_empty(),
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
        let filters = filter_spec::read(self.filters, namespace, &format!("{at}.filters"), errors);
        filter_spec::check_rule(
            &filters,
            &matches,
            at,
            !self.backend_refs.is_empty(),
            errors,
        );
        if M::KIND == Kind::GrpcRoute && (filters.redirect.is_some() || filters.rewrite.is_some()) {
            let message = "a GRPCRoute has no RequestRedirect and no URLRewrite";
            errors.push(FieldError::new(format!("{at}.filters"), message));
        }
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
    fn read(mut self, at: &str, namespace: &str, errors: &mut Vec<FieldError>) -> Backend {
        let to = self.destination(namespace);
        let filters = filter_spec::read(self.filters, namespace, &format!("{at}.filters"), errors);
        if filters.redirect.is_some() || filters.rewrite.is_some() || !filters.mirrors.is_empty() {
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
            to,
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
