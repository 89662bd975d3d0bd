//! AuthorizationPolicy: which callers may call what. The semantics are Istio's: what a DENY policy
//! matches is refused; where an ALLOW policy holds, what none of them matches is refused.

use std::num::NonZeroU16;

use serde::Deserialize;

use super::object::{self, FieldError, Meta, Target, TargetRef};
use super::values::{Cidr, Glob, HeaderName};

const MAX_RULES: usize = 256;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuthorizationPolicy {
    pub meta: Meta,
    /// Empty: the namespace; in the root namespace, the mesh.
    pub targets: Vec<Target>,
    pub action: Action,
    pub rules: Vec<AuthorizationRule>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
pub enum Action {
    #[default]
    #[serde(alias = "ALLOW")]
    Allow,
    #[serde(alias = "DENY")]
    Deny,
    /// Never decides; what matches is counted and logged.
    #[serde(alias = "AUDIT")]
    Audit,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AuthorizationSpec {
    #[serde(default)]
    target_refs: Vec<TargetRef>,
    #[serde(default)]
    action: Action,
    #[serde(default)]
    rules: Vec<AuthorizationRule>,
}

/// Matches when one of `from` (if there are any) and one of `to` (if there are any) match.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AuthorizationRule {
    #[serde(default)]
    pub from: Vec<RuleSource>,
    #[serde(default)]
    pub to: Vec<Operation>,
}

/// Matches when all of its fields do; a list matches when one of its entries does.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RuleSource {
    /// SPIFFE ids, with or without `spiffe://`.
    #[serde(default)]
    pub principals: Vec<Glob>,
    #[serde(default)]
    pub not_principals: Vec<Glob>,
    #[serde(default)]
    pub namespaces: Vec<Glob>,
    #[serde(default)]
    pub not_namespaces: Vec<Glob>,
    /// The address the connection comes from.
    #[serde(default)]
    pub ip_blocks: Vec<Cidr>,
    #[serde(default)]
    pub not_ip_blocks: Vec<Cidr>,
}

/// Matches when all of its fields do; a list matches when one of its entries does.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Operation {
    /// Of the workload, not of the service.
    #[serde(default)]
    pub ports: Vec<NonZeroU16>,
    #[serde(default)]
    pub not_ports: Vec<NonZeroU16>,
    #[serde(default)]
    pub methods: Vec<Glob>,
    #[serde(default)]
    pub not_methods: Vec<Glob>,
    #[serde(default)]
    pub paths: Vec<Glob>,
    #[serde(default)]
    pub not_paths: Vec<Glob>,
    #[serde(default)]
    pub hosts: Vec<Glob>,
    #[serde(default)]
    pub not_hosts: Vec<Glob>,
    #[serde(default)]
    pub headers: Vec<HeaderTest>,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HeaderTest {
    pub name: HeaderName,
    #[serde(default)]
    pub values: Vec<Glob>,
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
        let (targets, mut errors) = match object::targets(&spec.target_refs, true) {
            Ok(targets) => (targets, Vec::new()),
            Err(errors) => (Vec::new(), errors),
        };
        if spec.rules.len() > MAX_RULES {
            errors.push(FieldError::new(
                "spec.rules",
                format!("{MAX_RULES} entries are allowed"),
            ));
        }
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

impl AuthorizationRule {
    fn check(&self, at: &str, errors: &mut Vec<FieldError>) {
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
            for (index, header) in operation.headers.iter().enumerate() {
                if header.values.is_empty() && header.not_values.is_empty() {
                    let message = "needs `values` or `notValues`; `values: [\"*\"]` means present";
                    errors.push(FieldError::new(format!("{at}.headers[{index}]"), message));
                }
            }
        }
    }
}
