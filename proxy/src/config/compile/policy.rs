//! RBAC. What is not supported is rejected, never skipped: a DENY policy without one of its rules
//! would let requests through.

use std::sync::Arc;

use xds_proto::envoy::config::rbac::v3 as pb;
use xds_proto::envoy::extensions::filters::http::rbac::v3 as http;
use xds_proto::envoy::extensions::filters::network::rbac::v3 as network;
use xds_proto::envoy::r#type::matcher::v3::{PathMatcher, path_matcher};
use xds_proto::envoy::r#type::v3::Int32Range;
use xds_proto::google::protobuf::Any;

use super::matcher::{header, string};
use super::metadata_match::metadata;
use super::support::{At, CompileError, decode, each, ignored, known, port, required, unsupported};
use super::values::cidr;
use crate::config::filter::{FilterConfig, FilterOverride};
use crate::config::policy::{Permission, Policy, Principal, Rbac, RbacAction, Rules};
use crate::matcher::StringMatch;

/// Nesting of and, or, not.
const MAX_DEPTH: u32 = 32;

/// Which filter the rules are for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Layer {
    Network,
    Http,
}

/// The HTTP filter.
pub fn http_rbac(at: At<'_>, m: &http::Rbac) -> Result<Arc<Rbac>, CompileError> {
    let http::Rbac {
        rules: enforced,
        rules_stat_prefix,
        matcher,
        shadow_rules,
        shadow_matcher,
        shadow_rules_stat_prefix,
        track_per_rule_stats,
    } = m;
    unsupported!(at, matcher, shadow_matcher);
    ignored!(
        "refusals are counted by listener and named in the access log",
        rules_stat_prefix,
        shadow_rules_stat_prefix,
        track_per_rule_stats
    );
    Ok(Arc::new(Rbac {
        enforced: rules(at.field("rules"), enforced, Layer::Http)?,
        shadow: rules(at.field("shadow_rules"), shadow_rules, Layer::Http)?,
    }))
}

/// The HTTP filter's `typed_per_filter_config`.
pub fn per_route(at: At<'_>, any: &Any) -> Result<FilterOverride, CompileError> {
    let http::RbacPerRoute { rbac } = decode(at, any)?;
    Ok(match rbac {
        None => FilterOverride::Disabled,
        Some(m) => FilterOverride::Config(FilterConfig::Rbac(http_rbac(at.field("rbac"), &m)?)),
    })
}

/// The network filter.
pub fn network_rbac(at: At<'_>, m: &network::Rbac) -> Result<Arc<Rbac>, CompileError> {
    let network::Rbac {
        rules: enforced,
        matcher,
        shadow_rules,
        shadow_matcher,
        shadow_rules_stat_prefix,
        stat_prefix,
        enforcement_type,
        delay_deny,
    } = m;
    unsupported!(at, matcher, shadow_matcher);
    ignored!(
        "refusals are counted by listener",
        stat_prefix,
        shadow_rules_stat_prefix
    );
    ignored!(
        "what L4 rules look at does not change while a connection lasts",
        enforcement_type
    );
    ignored!("a refused connection is closed at once", delay_deny);
    Ok(Arc::new(Rbac {
        enforced: rules(at.field("rules"), enforced, Layer::Network)?,
        shadow: rules(at.field("shadow_rules"), shadow_rules, Layer::Network)?,
    }))
}

fn rules(at: At<'_>, m: &Option<pb::Rbac>, layer: Layer) -> Result<Option<Rules>, CompileError> {
    let Some(m) = m else {
        return Ok(None);
    };
    let pb::Rbac {
        action,
        policies,
        audit_logging_options,
    } = m;
    unsupported!(at, audit_logging_options);
    let mut compiled = policies
        .iter()
        .map(|(name, m)| policy(at.key("policies", name), name, m, layer))
        .collect::<Result<Vec<_>, _>>()?;
    compiled.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(Some(Rules {
        action: match known(at.field("action"), *action)? {
            pb::rbac::Action::Allow => RbacAction::Allow,
            pb::rbac::Action::Deny => RbacAction::Deny,
            pb::rbac::Action::Log => RbacAction::Log,
        },
        policies: compiled,
    }))
}

fn policy(at: At<'_>, name: &str, m: &pb::Policy, layer: Layer) -> Result<Policy, CompileError> {
    let pb::Policy {
        permissions,
        principals,
        condition,
        checked_condition,
        cel_config,
    } = m;
    unsupported!(at, condition, checked_condition, cel_config);
    if permissions.is_empty() {
        return at.field("permissions").fail("is required");
    }
    if principals.is_empty() {
        return at.field("principals").fail("is required");
    }
    Ok(Policy {
        name: name.into(),
        permissions: each(at, "permissions", permissions, |at, m| {
            permission(at, m, layer, 0)
        })?,
        principals: each(at, "principals", principals, |at, m| {
            principal(at, m, layer, 0)
        })?,
    })
}

fn permission(
    at: At<'_>,
    m: &pb::Permission,
    layer: Layer,
    depth: u32,
) -> Result<Permission, CompileError> {
    use pb::permission::Rule;
    too_deep(at, depth)?;
    let pb::Permission { rule } = m;
    let set = |at: At<'_>, set: &pb::permission::Set| {
        let pb::permission::Set { rules } = set;
        each(at, "rules", rules, |at, m| {
            permission(at, m, layer, depth + 1)
        })
    };
    Ok(match required!(at, rule) {
        Rule::AndRules(m) => Permission::And(set(at.field("and_rules"), m)?),
        Rule::OrRules(m) => Permission::Or(set(at.field("or_rules"), m)?),
        Rule::NotRule(m) => Permission::Not(Box::new(permission(
            at.field("not_rule"),
            m,
            layer,
            depth + 1,
        )?)),
        Rule::Any(any) => any_or_fail(at, *any, Permission::Any)?,
        Rule::Header(m) => {
            http_only(at.field("header"), layer)?;
            Permission::Header(header(at.field("header"), m)?)
        }
        Rule::UrlPath(m) => Permission::UrlPath(url_path(at.field("url_path"), m, layer)?),
        Rule::DestinationIp(m) => Permission::DestinationIp(cidr(at.field("destination_ip"), m)?),
        Rule::DestinationPort(number) => {
            Permission::DestinationPort(port(at.field("destination_port"), *number)?)
        }
        Rule::DestinationPortRange(m) => port_range(at.field("destination_port_range"), m)?,
        Rule::RequestedServerName(m) => {
            Permission::RequestedServerName(string(at.field("requested_server_name"), m)?)
        }
        Rule::Metadata(m) => {
            http_only(at.field("metadata"), layer)?;
            Permission::Metadata(metadata(at.field("metadata"), m)?)
        }
        Rule::Matcher(_) => return not_supported(at, "matcher"),
        Rule::UriTemplate(_) => return not_supported(at, "uri_template"),
        Rule::SourcedMetadata(_) => return not_supported(at, "sourced_metadata"),
    })
}

fn principal(
    at: At<'_>,
    m: &pb::Principal,
    layer: Layer,
    depth: u32,
) -> Result<Principal, CompileError> {
    use pb::principal::Identifier as Id;
    too_deep(at, depth)?;
    let pb::Principal { identifier } = m;
    let set = |at: At<'_>, set: &pb::principal::Set| {
        let pb::principal::Set { ids } = set;
        each(at, "ids", ids, |at, m| principal(at, m, layer, depth + 1))
    };
    Ok(match required!(at, identifier) {
        Id::AndIds(m) => Principal::And(set(at.field("and_ids"), m)?),
        Id::OrIds(m) => Principal::Or(set(at.field("or_ids"), m)?),
        Id::NotId(m) => Principal::Not(Box::new(principal(
            at.field("not_id"),
            m,
            layer,
            depth + 1,
        )?)),
        Id::Any(any) => any_or_fail(at, *any, Principal::Any)?,
        Id::Authenticated(m) => {
            let at = at.field("authenticated");
            let pb::principal::Authenticated { principal_name } = m;
            Principal::Authenticated(match principal_name {
                Some(m) => Some(string(at.field("principal_name"), m)?),
                None => None,
            })
        }
        // Deprecated; Envoy takes it for the connection's own address.
        Id::SourceIp(m) => Principal::DirectRemoteIp(cidr(at.field("source_ip"), m)?),
        Id::DirectRemoteIp(m) => Principal::DirectRemoteIp(cidr(at.field("direct_remote_ip"), m)?),
        Id::RemoteIp(m) => Principal::RemoteIp(cidr(at.field("remote_ip"), m)?),
        Id::Header(m) => {
            http_only(at.field("header"), layer)?;
            Principal::Header(header(at.field("header"), m)?)
        }
        Id::UrlPath(m) => Principal::UrlPath(url_path(at.field("url_path"), m, layer)?),
        Id::Metadata(m) => {
            http_only(at.field("metadata"), layer)?;
            Principal::Metadata(metadata(at.field("metadata"), m)?)
        }
        Id::FilterState(_) => return not_supported(at, "filter_state"),
        Id::SourcedMetadata(_) => return not_supported(at, "sourced_metadata"),
        Id::Custom(_) => return not_supported(at, "custom"),
    })
}

fn too_deep(at: At<'_>, depth: u32) -> Result<(), CompileError> {
    if depth > MAX_DEPTH {
        return at.fail("is nested too deep");
    }
    Ok(())
}

fn not_supported<T>(at: At<'_>, field: &str) -> Result<T, CompileError> {
    at.field(field).fail("is not supported by this proxy")
}

fn http_only(at: At<'_>, layer: Layer) -> Result<(), CompileError> {
    match layer {
        Layer::Http => Ok(()),
        Layer::Network => at.fail("there is no request at L4; use the HTTP filter"),
    }
}

/// Envoy demands `any: true`.
fn any_or_fail<T>(at: At<'_>, any: bool, value: T) -> Result<T, CompileError> {
    if any {
        Ok(value)
    } else {
        at.field("any").fail("must be true")
    }
}

fn url_path(at: At<'_>, m: &PathMatcher, layer: Layer) -> Result<StringMatch, CompileError> {
    http_only(at, layer)?;
    let PathMatcher { rule } = m;
    let path_matcher::Rule::Path(m) = required!(at, rule);
    string(at.field("path"), m)
}

fn port_range(at: At<'_>, m: &Int32Range) -> Result<Permission, CompileError> {
    let Int32Range { start, end } = m;
    // The end is exclusive: 65536 is its largest valid value.
    match (u32::try_from(*start), u32::try_from(*end)) {
        (Ok(start), Ok(end)) if start < end && end <= 65_536 => {
            Ok(Permission::DestinationPortRange { start, end })
        }
        _ => at.fail(format_args!("[{start}, {end}) is not a range of ports")),
    }
}
