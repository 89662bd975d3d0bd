//! AuthorizationPolicy: which callers may call what. The semantics are Istio's: what a DENY policy
//! matches is refused; where an ALLOW policy holds, what none of them matches is refused.

use std::num::NonZeroU16;

use schemars::JsonSchema;
use serde::Deserialize;

use super::object::{self, FieldError, MAX_TARGETS, Meta, Target, TargetRef};
use super::schema;
use super::selector::{self, WorkloadSelector};
use super::values::{Cidr, Glob, HeaderName};

const MAX_RULES: usize = 256;
/// Entries of `from`, and of `to`. Their lists have no bound.
const MAX_ENTRIES: usize = 64;
/// Entries of `headers`.
const MAX_HEADERS: usize = 32;
/// The lists of a [`RuleSource`] and of an [`Operation`].
const SOURCE: [&str; 6] = [
    "principals",
    "notPrincipals",
    "namespaces",
    "notNamespaces",
    "ipBlocks",
    "notIpBlocks",
];
const OPERATION: [&str; 9] = [
    "ports",
    "notPorts",
    "methods",
    "notMethods",
    "paths",
    "notPaths",
    "hosts",
    "notHosts",
    "headers",
];

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuthorizationPolicy {
    pub meta: Meta,
    /// Empty: the namespace; in the root namespace, the mesh.
    pub targets: Vec<Target>,
    pub action: Action,
    pub rules: Vec<AuthorizationRule>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[schemars(extend("enum" = ["Allow", "Deny", "Audit", "ALLOW", "DENY", "AUDIT"]))]
pub enum Action {
    /// Matching requests are allowed; others are denied unless another Allow policy matches.
    #[default]
    #[serde(alias = "ALLOW")]
    Allow,
    /// Matching requests are denied, even if an Allow policy matches.
    #[serde(alias = "DENY")]
    Deny,
    /// Matching requests are counted and logged; no decision.
    #[serde(alias = "AUDIT")]
    Audit,
}

/// Access control for services and workloads. Requests that a Deny policy matches are denied; where
/// Allow policies apply, requests that none of them matches are denied.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(extend("x-kubernetes-validations" = schema::rules(&[(
    "!has(self.action) || self.action in ['Allow', 'ALLOW'] || (has(self.rules) && size(self.rules) > 0)",
    "rules is required for Deny and Audit; `[{}]` matches everything",
), selector::ONE_OF_BOTH])))]
pub struct AuthorizationSpec {
    /// Services and workloads of the policy's namespace. Default: the namespace; in the root
    /// namespace, which is the control plane's (in a folder `anyam-system`), the mesh.
    #[serde(default)]
    #[schemars(length(max = MAX_TARGETS), extend("x-kubernetes-validations" = schema::rule(
        "self.all(t, (t.kind == 'Service' && (!has(t.group) || t.group in ['', 'core'])) || \
            (t.kind == 'Workload' && (!has(t.group) || t.group in ['', 'mesh.anyam.dev']) && \
            !has(t.sectionName)))",
        "only a Service (group \"\") or a whole Workload (group mesh.anyam.dev) can be targeted",
    )))]
    target_refs: Vec<TargetRef>,
    /// Workloads of the policy's namespace by labels, as of the pods of a Deployment.
    #[serde(default)]
    selector: Option<WorkloadSelector>,
    /// Action on requests that match a rule. Default: `Allow`.
    #[serde(default)]
    action: Action,
    /// The policy matches when one of its rules does.
    #[serde(default)]
    #[schemars(length(max = MAX_RULES))]
    rules: Vec<AuthorizationRule>,
}

/// Matches when one of `from` (if there are any) and one of `to` (if there are any) match.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AuthorizationRule {
    /// Sources. Default: all.
    #[serde(default)]
    #[schemars(length(max = MAX_ENTRIES))]
    pub from: Vec<RuleSource>,
    /// Operations. Default: all.
    #[serde(default)]
    #[schemars(length(max = MAX_ENTRIES))]
    pub to: Vec<Operation>,
}

/// Matches when all of its fields do; a list matches when one of its entries does.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(extend("x-kubernetes-validations" = schema::not_empty(
    &SOURCE,
    "is empty; leave `from` out to mean anyone",
)))]
pub struct RuleSource {
    /// SPIFFE ids, with or without `spiffe://`; `*` at one end is a wildcard.
    #[serde(default)]
    pub principals: Vec<Glob>,
    /// None of these.
    #[serde(default)]
    pub not_principals: Vec<Glob>,
    /// Namespaces of the caller; `*` at the end is a wildcard.
    #[serde(default)]
    #[schemars(schema_with = "schema::namespaces")]
    pub namespaces: Vec<Glob>,
    /// None of these.
    #[serde(default)]
    #[schemars(schema_with = "schema::namespaces")]
    pub not_namespaces: Vec<Glob>,
    /// Source addresses and ranges of the connection.
    #[serde(default)]
    pub ip_blocks: Vec<Cidr>,
    /// None of these.
    #[serde(default)]
    pub not_ip_blocks: Vec<Cidr>,
}

/// Matches when all of its fields do; a list matches when one of its entries does.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(extend("x-kubernetes-validations" = schema::not_empty(
    &OPERATION,
    "is empty; leave `to` out to mean anything",
)))]
pub struct Operation {
    /// Ports of the workload, not of the service.
    #[serde(default)]
    pub ports: Vec<NonZeroU16>,
    /// None of these.
    #[serde(default)]
    pub not_ports: Vec<NonZeroU16>,
    /// Request methods, such as GET; `*` at one end is a wildcard.
    #[serde(default)]
    pub methods: Vec<Glob>,
    /// None of these.
    #[serde(default)]
    pub not_methods: Vec<Glob>,
    /// Paths without the query; `*` at one end is a wildcard.
    #[serde(default)]
    #[schemars(schema_with = "schema::paths")]
    pub paths: Vec<Glob>,
    /// None of these.
    #[serde(default)]
    #[schemars(schema_with = "schema::paths")]
    pub not_paths: Vec<Glob>,
    /// Values of the Host header; `*` at one end is a wildcard.
    #[serde(default)]
    pub hosts: Vec<Glob>,
    /// None of these.
    #[serde(default)]
    pub not_hosts: Vec<Glob>,
    /// All of them must match.
    #[serde(default)]
    #[schemars(length(max = MAX_HEADERS))]
    pub headers: Vec<HeaderTest>,
}

/// A header of the request.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(extend("x-kubernetes-validations" = schema::not_empty(
    &["values", "notValues"],
    "needs `values` or `notValues`; `values: [\"*\"]` means present",
)))]
pub struct HeaderTest {
    /// Name, case-insensitive.
    pub name: HeaderName,
    /// Values; `*` at one end is a wildcard, `*` alone means present.
    #[serde(default)]
    pub values: Vec<Glob>,
    /// None of these.
    #[serde(default)]
    pub not_values: Vec<Glob>,
}

impl Operation {
    pub fn looks_at_paths(&self) -> bool {
        !(self.paths.is_empty() && self.not_paths.is_empty())
    }

    /// Whether it has fields that only apply to HTTP.
    pub fn needs_http(&self) -> bool {
        !(self.methods.is_empty()
            && self.not_methods.is_empty()
            && self.paths.is_empty()
            && self.not_paths.is_empty()
            && self.hosts.is_empty()
            && self.not_hosts.is_empty()
            && self.headers.is_empty())
    }
}

impl AuthorizationPolicy {
    /// # Errors
    /// Fields that contradict each other or are not supported.
    pub fn new(meta: Meta, spec: AuthorizationSpec) -> Result<Self, Vec<FieldError>> {
        let (mut targets, mut errors) = match object::targets(&spec.target_refs, true) {
            Ok(targets) => (targets, Vec::new()),
            Err(errors) => (Vec::new(), errors),
        };
        targets.extend(selector::target(spec.selector, &targets, &mut errors));
        bounded(spec.rules.len(), MAX_RULES, "spec.rules", &mut errors);
        if spec.action != Action::Allow && spec.rules.is_empty() {
            let message = "is required for Deny and Audit; `[{}]` matches everything";
            errors.push(FieldError::new("spec.rules", message));
        }
        for (index, rule) in spec.rules.iter().enumerate() {
            rule.check(&format!("spec.rules[{index}]"), &mut errors);
        }
        match errors.is_empty() {
            true => Ok(AuthorizationPolicy {
                meta,
                targets,
                action: spec.action,
                rules: spec.rules,
            }),
            false => Err(errors),
        }
    }
}

fn bounded(count: usize, most: usize, at: &str, errors: &mut Vec<FieldError>) {
    if count > most {
        errors.push(FieldError::new(at, format!("{most} entries are allowed")));
    }
}

impl AuthorizationRule {
    fn check(&self, at: &str, errors: &mut Vec<FieldError>) {
        for (field, count) in [("from", self.from.len()), ("to", self.to.len())] {
            bounded(count, MAX_ENTRIES, &format!("{at}.{field}"), errors);
        }
        for (index, source) in self.from.iter().enumerate() {
            let at = format!("{at}.from[{index}]");
            if *source == RuleSource::default() {
                errors.push(FieldError::new(
                    &at,
                    "is empty; leave `from` out to mean anyone",
                ));
            }
            let globs = [
                ("namespaces", &source.namespaces),
                ("notNamespaces", &source.not_namespaces),
            ];
            for (field, globs) in globs {
                let suffix = globs
                    .iter()
                    .position(|glob| matches!(glob, Glob::Suffix(_)));
                if let Some(index) = suffix {
                    let message = "`*` may only stand at the end of a namespace";
                    errors.push(FieldError::new(format!("{at}.{field}[{index}]"), message));
                }
            }
        }
        for (index, operation) in self.to.iter().enumerate() {
            let at = format!("{at}.to[{index}]");
            if *operation == Operation::default() {
                errors.push(FieldError::new(
                    &at,
                    "is empty; leave `to` out to mean anything",
                ));
            }
            for (field, globs) in [
                ("paths", &operation.paths),
                ("notPaths", &operation.not_paths),
            ] {
                let relative = globs.iter().position(|glob| match glob {
                    Glob::Exact(path) | Glob::Prefix(path) => !path.starts_with('/'),
                    Glob::Suffix(_) | Glob::Any => false,
                });
                if let Some(index) = relative {
                    let message = "must begin with `/` or `*`";
                    errors.push(FieldError::new(format!("{at}.{field}[{index}]"), message));
                }
            }
            let headers = operation.headers.len();
            bounded(headers, MAX_HEADERS, &format!("{at}.headers"), errors);
            for (index, header) in operation.headers.iter().enumerate() {
                if header.values.is_empty() && header.not_values.is_empty() {
                    let message = "needs `values` or `notValues`; `values: [\"*\"]` means present";
                    errors.push(FieldError::new(format!("{at}.headers[{index}]"), message));
                }
            }
        }
    }
}
