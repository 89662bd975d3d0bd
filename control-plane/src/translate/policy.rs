//! Authorisation: policies into RBAC filters of the inbound side; and the filter that refuses all that
//! would leave the mesh.
//!
//! DENY and AUDIT go into one filter, ALLOW into the next: what is denied is denied whatever else
//! allows it. Where nothing HTTP is known of a connection, an ALLOW rule with HTTP fields does
//! not match and a DENY rule with HTTP fields matches without them: both fail closed.

use xds_proto::envoy::config::listener::v3 as listener;
use xds_proto::envoy::config::rbac::v3 as rbac;
use xds_proto::envoy::config::route::v3::HeaderMatcher;
use xds_proto::envoy::config::route::v3::header_matcher::HeaderMatchSpecifier;
use xds_proto::envoy::extensions::filters::network::rbac::v3 as network;
use xds_proto::envoy::r#type::matcher::v3 as matcher;

use super::http::filter;
use super::proto::{cidr, exact, glob, prefix, typed};
use crate::model::Mesh;
use crate::model::manifest::authorization::{
    Action, AuthorizationPolicy, AuthorizationRule, HeaderTest, Operation, RuleSource,
};
use crate::model::manifest::values::Glob;
use crate::model::mesh::WorkloadEntry;
use rbac::{permission, principal};

/// What rules apply to: connections, or requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layer {
    Tcp,
    Http,
}

/// Rules for one filter chain.
#[derive(Clone, Debug, Default)]
pub struct Authorization {
    pub deny: Option<rbac::Rbac>,
    pub allow: Option<rbac::Rbac>,
    pub audit: Option<rbac::Rbac>,
}

/// Rules that hold for a port of a workload (`None`: undeclared ports).
pub fn authorization(
    mesh: &Mesh,
    entry: &WorkloadEntry,
    port: Option<u16>,
    layer: Layer,
) -> Authorization {
    let mut all = Authorization::default();
    for policy in mesh.authorization_for(entry, port) {
        let (slot, action) = match policy.action {
            Action::Allow => (&mut all.allow, rbac::rbac::Action::Allow),
            Action::Deny => (&mut all.deny, rbac::rbac::Action::Deny),
            Action::Audit => (&mut all.audit, rbac::rbac::Action::Log),
        };
        // An ALLOW policy without a rule that can match still refuses all other callers.
        let rules = slot.get_or_insert_with(|| rbac::Rbac {
            action: action as i32,
            ..rbac::Rbac::default()
        });
        for (index, rule) in policy.rules.iter().enumerate() {
            if let Some(compiled) = compile(mesh, policy, rule, layer) {
                rules.policies.insert(rule_name(policy, index), compiled);
            }
        }
    }
    all
}

/// A filter for connections.
pub fn network_rbac(
    rules: Option<rbac::Rbac>,
    shadow_rules: Option<rbac::Rbac>,
    what: &str,
) -> listener::Filter {
    let rbac = network::Rbac {
        rules,
        shadow_rules,
        stat_prefix: format!("{what}."),
        ..network::Rbac::default()
    };
    filter("envoy.filters.network.rbac", typed(&rbac))
}

/// The filter of `egress: Block`. By the cluster alone, an open connection to outside would go on:
/// clusters are chosen when a connection begins, rules are evaluated for as long as it is open.
pub fn blocks_egress() -> listener::Filter {
    let all = rbac::Policy {
        permissions: vec![ask(permission::Rule::Any(true))],
        principals: vec![who(principal::Identifier::Any(true))],
        ..rbac::Policy::default()
    };
    let rules = rbac::Rbac {
        action: rbac::rbac::Action::Deny as i32,
        policies: [("egress: Block".to_owned(), all)].into(),
        ..rbac::Rbac::default()
    };
    network_rbac(Some(rules), None, "egress")
}

/// Whether a policy that decides looks at the paths of requests to a port of a workload.
pub fn looks_at_paths(mesh: &Mesh, entry: &WorkloadEntry, port: Option<u16>) -> bool {
    mesh.authorization_for(entry, port).iter().any(|policy| {
        let mut operations = policy.rules.iter().flat_map(|rule| &rule.to);
        policy.action != Action::Audit && operations.any(Operation::looks_at_paths)
    })
}

fn rule_name(policy: &AuthorizationPolicy, index: usize) -> String {
    format!(
        "ns[{}]-policy[{}]-rule[{index}]",
        policy.meta.namespace, policy.meta.name
    )
}

fn compile(
    mesh: &Mesh,
    policy: &AuthorizationPolicy,
    rule: &AuthorizationRule,
    layer: Layer,
) -> Option<rbac::Policy> {
    let blind = layer == Layer::Tcp;
    let keeps =
        |operation: &&Operation| !blind || policy.action == Action::Deny || !operation.needs_http();
    let permissions: Vec<_> = rule
        .to
        .iter()
        .filter(keeps)
        .map(|operation| permission(operation, blind))
        .collect();
    if permissions.is_empty() && !rule.to.is_empty() {
        return None;
    }
    let domain = &mesh.options.trust_domain;
    let principals: Vec<_> = rule
        .from
        .iter()
        .map(|source| principal(source, domain))
        .collect();
    Some(rbac::Policy {
        permissions: if permissions.is_empty() {
            vec![ask(permission::Rule::Any(true))]
        } else {
            permissions
        },
        principals: if principals.is_empty() {
            vec![who(principal::Identifier::Any(true))]
        } else {
            principals
        },
        ..rbac::Policy::default()
    })
}

fn ask(rule: permission::Rule) -> rbac::Permission {
    rbac::Permission { rule: Some(rule) }
}

fn who(identifier: principal::Identifier) -> rbac::Principal {
    rbac::Principal {
        identifier: Some(identifier),
    }
}

/// What has to hold of an operation, field by field: values it may have, values it may not.
#[derive(Default)]
struct Permissions(Vec<rbac::Permission>);

/// The same of a source.
#[derive(Default)]
struct Principals(Vec<rbac::Principal>);

impl Permissions {
    fn add<V>(&mut self, values: &[V], not: &[V], one: impl Fn(&V) -> rbac::Permission) {
        let any = |values: &[V]| {
            ask(permission::Rule::OrRules(permission::Set {
                rules: values.iter().map(&one).collect(),
            }))
        };
        if !values.is_empty() {
            self.0.push(any(values));
        }
        if !not.is_empty() {
            self.0
                .push(ask(permission::Rule::NotRule(Box::new(any(not)))));
        }
    }
}

impl Principals {
    fn add<V>(&mut self, values: &[V], not: &[V], one: impl Fn(&V) -> rbac::Principal) {
        let any = |values: &[V]| {
            who(principal::Identifier::OrIds(principal::Set {
                ids: values.iter().map(&one).collect(),
            }))
        };
        if !values.is_empty() {
            self.0.push(any(values));
        }
        if !not.is_empty() {
            self.0
                .push(who(principal::Identifier::NotId(Box::new(any(not)))));
        }
    }
}

fn permission(operation: &Operation, blind: bool) -> rbac::Permission {
    let mut all = Permissions::default();
    all.add(&operation.ports, &operation.not_ports, |port| {
        ask(permission::Rule::DestinationPort(u32::from(port.get())))
    });
    if !blind {
        all.add(&operation.methods, &operation.not_methods, |method| {
            ask(permission::Rule::Header(header(":method", method)))
        });
        all.add(&operation.paths, &operation.not_paths, path);
        all.add(&operation.hosts, &operation.not_hosts, host);
        for HeaderTest {
            name,
            values,
            not_values,
        } in &operation.headers
        {
            let name = name.lower();
            all.add(values, not_values, |value| {
                ask(permission::Rule::Header(header(&name, value)))
            });
        }
    }
    match all.0.is_empty() {
        true => ask(permission::Rule::Any(true)),
        false => ask(permission::Rule::AndRules(permission::Set { rules: all.0 })),
    }
}

fn header(name: &str, value: &Glob) -> HeaderMatcher {
    let test = match glob(value) {
        None => HeaderMatchSpecifier::PresentMatch(true),
        Some(text) => HeaderMatchSpecifier::StringMatch(text),
    };
    HeaderMatcher {
        name: name.to_owned(),
        header_match_specifier: Some(test),
        ..HeaderMatcher::default()
    }
}

fn path(value: &Glob) -> rbac::Permission {
    match glob(value) {
        None => ask(permission::Rule::Any(true)),
        Some(text) => ask(permission::Rule::UrlPath(matcher::PathMatcher {
            rule: Some(matcher::path_matcher::Rule::Path(text)),
        })),
    }
}

/// A host in any case, with and without port and trailing dot.
fn host(value: &Glob) -> rbac::Permission {
    let any_case = |text: matcher::StringMatcher| {
        let text = matcher::StringMatcher {
            ignore_case: true,
            ..text
        };
        ask(permission::Rule::Header(HeaderMatcher {
            name: ":authority".to_owned(),
            header_match_specifier: Some(HeaderMatchSpecifier::StringMatch(text)),
            ..HeaderMatcher::default()
        }))
    };
    let mut rules = Vec::new();
    match value {
        Glob::Exact(name) => {
            rules.push(any_case(exact(name)));
            rules.push(any_case(exact(format!("{name}."))));
            rules.push(any_case(prefix(format!("{name}:"))));
            rules.push(any_case(prefix(format!("{name}.:"))));
        }
        // A port may follow, so the end of a suffix is found by an expression; the name in it is
        // taken literally.
        Glob::Suffix(name) => rules.push(any_case(super::proto::safe_regex(format!(
            "(?i).*{}\\.?(:[0-9]+)?",
            regex::escape(name)
        )))),
        Glob::Prefix(_) | Glob::Any => match glob(value) {
            Some(text) => rules.push(any_case(text)),
            None => return ask(permission::Rule::Header(header(":authority", value))),
        },
    }
    ask(permission::Rule::OrRules(permission::Set { rules }))
}

fn principal(source: &RuleSource, trust_domain: &str) -> rbac::Principal {
    let mut all = Principals::default();
    all.add(&source.principals, &source.not_principals, |id| {
        authenticated(identity(id))
    });
    all.add(&source.namespaces, &source.not_namespaces, |namespace| {
        authenticated(match namespace {
            Glob::Any => None,
            Glob::Exact(name) => Some(prefix(format!("spiffe://{trust_domain}/ns/{name}/"))),
            // A suffix is refused when the policy is read.
            Glob::Prefix(name) | Glob::Suffix(name) => {
                Some(prefix(format!("spiffe://{trust_domain}/ns/{name}")))
            }
        })
    });
    all.add(&source.ip_blocks, &source.not_ip_blocks, |range| {
        who(principal::Identifier::DirectRemoteIp(cidr(range)))
    });
    match all.0.is_empty() {
        true => who(principal::Identifier::Any(true)),
        false => who(principal::Identifier::AndIds(principal::Set { ids: all.0 })),
    }
}

/// The scheme may be left out in policies.
fn identity(id: &Glob) -> Option<matcher::StringMatcher> {
    let full = |text: &str| match text.starts_with("spiffe://") {
        true => text.to_owned(),
        false => format!("spiffe://{text}"),
    };
    match id {
        Glob::Exact(text) => Some(exact(full(text))),
        Glob::Prefix(text) => Some(prefix(full(text))),
        Glob::Suffix(_) | Glob::Any => glob(id),
    }
}

fn authenticated(name: Option<matcher::StringMatcher>) -> rbac::Principal {
    who(principal::Identifier::Authenticated(
        principal::Authenticated {
            principal_name: name,
        },
    ))
}
