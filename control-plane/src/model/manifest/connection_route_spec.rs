//! TCPRoute and TLSRoute as Gateway API writes them, into [`super::route`].

use serde::Deserialize;
use serde::de::IgnoredAny;

use super::object::{FieldError, Kind, Meta};
use super::reference::reference;
use super::route::{Backend, Filters, Match, Route, Rule, Timeouts};
use super::route_spec::{MAX_BACKENDS, MAX_PARENTS, MAX_RULES, ParentRef, bounded, check_weight};
use super::values;

/// Gateway API's own bound.
const MAX_HOSTNAMES: usize = 1024;

/// `spec` of a TCPRoute.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TcpRouteSpec {
    #[serde(default)]
    parent_refs: Vec<ParentRef>,
    rules: Vec<ConnectionRuleSpec>,
    /// About Gateways, whose controllers read it.
    #[serde(default, rename = "useDefaultGateways")]
    _use_default_gateways: IgnoredAny,
}

/// `spec` of a TLSRoute.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TlsRouteSpec {
    #[serde(default)]
    parent_refs: Vec<ParentRef>,
    /// v1 requires one; before, none meant all.
    #[serde(default)]
    hostnames: Vec<String>,
    rules: Vec<ConnectionRuleSpec>,
    /// About Gateways, whose controllers read it.
    #[serde(default, rename = "useDefaultGateways")]
    _use_default_gateways: IgnoredAny,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct ConnectionRuleSpec {
    #[serde(default, deserialize_with = "values::optional_subdomain")]
    name: Option<String>,
    #[serde(default)]
    backend_refs: Vec<ConnectionBackendRef>,
}

reference! {
    struct ConnectionBackendRef {
        #[serde(default)]
        weight: Option<u32>,
    }
}

impl Route {
    /// # Errors
    /// Fields that contradict each other or are not supported.
    pub fn of_tcp(meta: Meta, spec: TcpRouteSpec) -> Result<Self, Vec<FieldError>> {
        let errors = Vec::new();
        let parts = (spec.parent_refs, Vec::new(), spec.rules);
        of_connections(Kind::TcpRoute, meta, parts, errors)
    }

    /// # Errors
    /// Fields that contradict each other or are not supported.
    pub fn of_tls(meta: Meta, spec: TlsRouteSpec) -> Result<Self, Vec<FieldError>> {
        let mut errors = Vec::new();
        let names = spec.hostnames;
        bounded(&mut errors, "spec.hostnames", names.len(), MAX_HOSTNAMES);
        for (index, name) in names.iter().enumerate() {
            if let Err(message) = values::check_server_name(name) {
                let at = format!("spec.hostnames[{index}]");
                errors.push(FieldError::new(at, message));
            }
        }
        let parts = (spec.parent_refs, names, spec.rules);
        of_connections(Kind::TlsRoute, meta, parts, errors)
    }
}

/// What both kinds have.
type Parts = (Vec<ParentRef>, Vec<String>, Vec<ConnectionRuleSpec>);

fn of_connections(
    kind: Kind,
    meta: Meta,
    (parents, hostnames, rules): Parts,
    mut errors: Vec<FieldError>,
) -> Result<Route, Vec<FieldError>> {
    bounded(&mut errors, "spec.parentRefs", parents.len(), MAX_PARENTS);
    let rules = read_rules(rules, &meta.namespace, &mut errors);
    let parents = parents.into_iter().map(|it| it.read(&meta.namespace));
    let parents = parents.collect();
    match errors.is_empty() {
        true => Ok(Route {
            kind,
            meta,
            parents,
            hostnames,
            rules,
        }),
        false => Err(errors),
    }
}

fn read_rules(
    specs: Vec<ConnectionRuleSpec>,
    namespace: &str,
    errors: &mut Vec<FieldError>,
) -> Vec<Rule> {
    bounded(errors, "spec.rules", specs.len(), MAX_RULES);
    if specs.is_empty() {
        errors.push(FieldError::new("spec.rules", "at least one rule is needed"));
    }
    let read = specs.into_iter().enumerate();
    let read =
        read.map(|(index, rule)| rule.read(&format!("spec.rules[{index}]"), namespace, errors));
    read.collect()
}

impl ConnectionRuleSpec {
    fn read(self, at: &str, namespace: &str, errors: &mut Vec<FieldError>) -> Rule {
        let backends = self.backend_refs;
        let list = format!("{at}.backendRefs");
        bounded(errors, &list, backends.len(), MAX_BACKENDS);
        let backends = backends.into_iter().enumerate();
        let backends = backends.map(|(index, mut backend)| {
            check_weight(backend.weight, &format!("{list}[{index}]"), errors);
            Backend {
                to: backend.destination(namespace),
                weight: backend.weight.unwrap_or(1),
                filters: Filters::default(),
            }
        });
        Rule {
            name: self.name,
            backends: backends.collect(),
            matches: vec![Match::default()],
            session: None,
            filters: Filters::default(),
            timeouts: Timeouts::default(),
            retry: None,
        }
    }
}
