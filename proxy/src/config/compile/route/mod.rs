//! Route configurations and virtual hosts.
//!
//! - `action`: a route's match and action; `rewrite`, `retry`, `mirror`, `hash`: parts of it
//! - `overrides`: filter configuration per route

pub(super) mod action;
pub(super) mod hash;
pub(super) mod mirror;
pub(super) mod overrides;
pub(super) mod retry;
pub(super) mod rewrite;
use std::sync::Arc;

use xds_proto::envoy::config::route::v3 as pb;

use super::filter::FilterScope;
use super::filter::rate_limit::rate_limits;
use super::headers::{request_edits, response_edits};
use super::matcher::{header, header_name, query, whole_regex};
use super::metadata_match::metadata as metadata_match;
use super::refs::ClusterNames;
use super::route::action::{ActionContext, Inherited};
use super::route::overrides::OuterOverrides;
use super::support::{
    At, CompileError, bool_or, each, elsewhere, ignored, known, required, u32_or, unsupported,
};
use super::values::{is_minimum_back_off, runtime_fraction};
use crate::config::route::{
    Action, HeaderEdits, PathMatch, PathRewrite, PlaintextRequests, Redirect, Route, RouteMatch,
    RouteTable, VirtualHost,
};
use crate::snapshot::RouteConfig;

/// Envoy's default for `max_direct_response_body_size_bytes`.
const MAX_DIRECT_BODY: u32 = 4096;

/// envoy.config.route.v3.RouteConfiguration, not yet linked.
pub fn route_config(
    at: At<'_>,
    m: &pb::RouteConfiguration,
    scope: FilterScope<'_>,
) -> Result<RouteConfig, CompileError> {
    let pb::RouteConfiguration {
        name,
        virtual_hosts,
        vhds,
        internal_only_headers,
        response_headers_to_add,
        response_headers_to_remove,
        request_headers_to_add,
        request_headers_to_remove,
        most_specific_header_mutations_wins,
        validate_clusters,
        max_direct_response_body_size_bytes,
        cluster_specifier_plugins,
        request_mirror_policies,
        ignore_port_in_host_matching,
        vhost_header,
        ignore_path_parameters_in_path_matching,
        typed_per_filter_config,
        metadata,
        route_specifiers,
    } = m;
    unsupported!(
        at,
        vhds,
        cluster_specifier_plugins,
        vhost_header,
        ignore_path_parameters_in_path_matching,
        route_specifiers,
    );
    ignored!(
        "a cluster that is not known fails its requests with NC",
        validate_clusters
    );
    ignored!("metadata of routes is not read", metadata);
    let mut clusters = ClusterNames::default();
    let overrides = OuterOverrides::nothing(scope).with(at, typed_per_filter_config)?;
    let filters = OuterOverrides {
        overrides: &overrides,
        scope,
    };
    let mirrors = mirror::mirrors(at, request_mirror_policies, &mut clusters)?;
    let inherited = Inherited {
        max_body: u32_or(max_direct_response_body_size_bytes, MAX_DIRECT_BODY) as usize,
        retry: None,
        mirrors: &mirrors,
    };
    let virtual_hosts = each(at, "virtual_hosts", virtual_hosts, |at, m| {
        let host = virtual_host(at, m, &inherited, filters, &mut clusters)?;
        Ok((host, m.domains.as_slice()))
    })?;
    let mut table = RouteTable {
        name: name.as_str().into(),
        virtual_hosts: Vec::new(),
        exact: foldhash::HashMap::default(),
        suffix: Vec::new(),
        prefix: Vec::new(),
        any: None,
        ignore_port: *ignore_port_in_host_matching,
        request_headers: request_edits(at, request_headers_to_add, request_headers_to_remove)?,
        response_headers: response_edits(at, response_headers_to_add, response_headers_to_remove)?,
        most_specific_wins: *most_specific_header_mutations_wins,
        internal_only_headers: each(
            at,
            "internal_only_headers",
            internal_only_headers,
            |at, n| header_name(at, n),
        )?,
    };
    for (index, (host, domains)) in virtual_hosts.into_iter().enumerate() {
        add_domains(
            at.index("virtual_hosts", index),
            &mut table,
            domains,
            index as u32,
        )?;
        table.virtual_hosts.push(host);
    }
    let longest_first = |a: &(Box<str>, u32), b: &(Box<str>, u32)| b.0.len().cmp(&a.0.len());
    table.suffix.sort_by(longest_first);
    table.prefix.sort_by(longest_first);
    Ok(RouteConfig {
        table: Arc::new(table),
        clusters: clusters.links(),
    })
}

fn add_domains(
    at: At<'_>,
    table: &mut RouteTable,
    domains: &[String],
    host: u32,
) -> Result<(), CompileError> {
    if domains.is_empty() {
        return at.field("domains").fail("is required");
    }
    for (index, domain) in domains.iter().enumerate() {
        let at = at.index("domains", index);
        let lower = domain.to_ascii_lowercase();
        let twice = if lower == "*" {
            table.any.replace(host).is_some()
        } else if let Some(suffix) = lower.strip_prefix('*') {
            add_wildcard(&mut table.suffix, suffix, host)
        } else if let Some(prefix) = lower.strip_suffix('*') {
            add_wildcard(&mut table.prefix, prefix, host)
        } else if lower.is_empty() {
            return at.fail("is empty");
        } else {
            table.exact.insert(lower.as_str().into(), host).is_some()
        };
        if lower.trim_matches('*').contains('*') {
            return at.fail(format_args!("`{domain}`: a star stands first or last"));
        }
        if twice {
            return at.fail(format_args!("`{domain}` is in more than one place"));
        }
    }
    Ok(())
}

fn add_wildcard(list: &mut Vec<(Box<str>, u32)>, rest: &str, host: u32) -> bool {
    let twice = list.iter().any(|(known, _)| **known == *rest);
    list.push((rest.into(), host));
    twice
}

fn virtual_host(
    at: At<'_>,
    m: &pb::VirtualHost,
    inherited: &Inherited<'_>,
    outer: OuterOverrides<'_>,
    clusters: &mut ClusterNames,
) -> Result<VirtualHost, CompileError> {
    let pb::VirtualHost {
        name,
        domains,
        routes,
        matcher,
        require_tls: require_tls_of,
        virtual_clusters,
        rate_limits: own_rate_limits,
        request_headers_to_add,
        request_headers_to_remove,
        response_headers_to_add,
        response_headers_to_remove,
        cors,
        typed_per_filter_config,
        include_request_attempt_count,
        include_attempt_count_in_response,
        retry_policy,
        retry_policy_typed_config,
        hedge_policy,
        include_is_timeout_retry_header,
        per_request_buffer_limit_bytes,
        request_body_buffer_limit,
        request_mirror_policies,
        metadata,
        route_specifiers,
    } = m;
    unsupported!(
        at,
        matcher,
        cors,
        retry_policy_typed_config,
        hedge_policy,
        include_is_timeout_retry_header,
        route_specifiers,
    );
    elsewhere!(domains);
    ignored!("virtual clusters only label statistics", virtual_clusters);
    ignored!(
        "bodies are streamed; what a retry may need is kept within a bound of our own",
        per_request_buffer_limit_bytes,
        request_body_buffer_limit
    );
    ignored!("metadata of routes is not read", metadata);
    let own_mirrors = mirror::mirrors(at, request_mirror_policies, clusters)?;
    let retry = match retry_policy {
        Some(m) => Some(Arc::new(super::route::retry::retry_policy(
            at.field("retry_policy"),
            m,
            false,
        )?)),
        None => None,
    };
    let inherited = Inherited {
        max_body: inherited.max_body,
        retry,
        mirrors: if own_mirrors.is_empty() {
            inherited.mirrors
        } else {
            &own_mirrors
        },
    };
    let overrides = outer.with(at, typed_per_filter_config)?;
    let filters = OuterOverrides {
        overrides: &overrides,
        ..outer
    };
    let written = each(at, "routes", routes, |at, m| {
        route(at, m, &inherited, filters, clusters).map(Arc::new)
    })?;
    let routes = require_tls(at, *require_tls_of)?;
    let routes = routes.into_iter().chain(written).collect();
    Ok(VirtualHost {
        name: name.as_str().into(),
        routes,
        request_headers: request_edits(at, request_headers_to_add, request_headers_to_remove)?,
        response_headers: response_edits(at, response_headers_to_add, response_headers_to_remove)?,
        rate_limits: rate_limits(at, own_rate_limits)?,
        include_attempt_count: *include_request_attempt_count,
        include_attempt_count_in_response: *include_attempt_count_in_response,
    })
}

fn route(
    at: At<'_>,
    m: &pb::Route,
    inherited: &Inherited<'_>,
    outer: OuterOverrides<'_>,
    clusters: &mut ClusterNames,
) -> Result<Route, CompileError> {
    let pb::Route {
        name,
        r#match,
        metadata,
        decorator,
        typed_per_filter_config,
        request_headers_to_add,
        request_headers_to_remove,
        response_headers_to_add,
        response_headers_to_remove,
        tracing,
        per_request_buffer_limit_bytes,
        stat_prefix,
        request_body_buffer_limit,
        route_specifiers,
        action,
    } = m;
    unsupported!(at, route_specifiers);
    ignored!("spans are not made yet", decorator, tracing);
    ignored!("statistics are kept by edge, not by route", stat_prefix);
    ignored!(
        "bodies are streamed; what a retry may need is kept within a bound of our own",
        per_request_buffer_limit_bytes,
        request_body_buffer_limit
    );
    ignored!(
        "of a route's metadata only the minimum back-off of our control plane is read",
        metadata
    );
    let matches = required!(at, r#match);
    let action = required!(at, action);
    let overrides = outer.with(at, typed_per_filter_config)?;
    let context = ActionContext {
        inherited,
        filters: OuterOverrides {
            overrides: &overrides,
            ..outer
        },
        minimum_back_off: metadata.as_ref().is_some_and(is_minimum_back_off),
    };
    Ok(Route {
        name: name.as_str().into(),
        matches: route_match(at.field("match"), matches)?,
        action: action::action(at, action, context, clusters)?,
        request_headers: request_edits(at, request_headers_to_add, request_headers_to_remove)?,
        response_headers: response_edits(at, response_headers_to_add, response_headers_to_remove)?,
        filters: overrides.shared(),
    })
}

pub(super) fn route_match(at: At<'_>, m: &pb::RouteMatch) -> Result<RouteMatch, CompileError> {
    use pb::route_match::PathSpecifier as Path;
    let pb::RouteMatch {
        case_sensitive,
        runtime_fraction: share,
        headers,
        query_parameters,
        cookies,
        grpc,
        tls_context,
        dynamic_metadata,
        filter_state,
        path_specifier,
    } = m;
    unsupported!(at, cookies, tls_context, filter_state);
    let path = match required!(at, path_specifier) {
        Path::Prefix(prefix) => PathMatch::Prefix(prefix.as_str().into()),
        Path::Path(path) => PathMatch::Exact(path.as_str().into()),
        Path::SafeRegex(m) => PathMatch::Regex(whole_regex(at.field("safe_regex"), m)?),
        Path::ConnectMatcher(pb::route_match::ConnectMatcher {}) => PathMatch::Connect,
        Path::PathSeparatedPrefix(prefix) => {
            if prefix.is_empty() || prefix.ends_with('/') || prefix.contains(['?', '#']) {
                let at = at.field("path_separated_prefix");
                return at.fail("must not be empty, end in `/`, or hold `?` or `#`");
            }
            PathMatch::SeparatedPrefix(prefix.as_str().into())
        }
        Path::PathMatchPolicy(_) => {
            return at
                .field("path_match_policy")
                .fail("is not supported by this proxy");
        }
    };
    Ok(RouteMatch {
        path,
        case_sensitive: bool_or(case_sensitive, true),
        headers: each(at, "headers", headers, header)?,
        query: each(at, "query_parameters", query_parameters, query)?,
        metadata: each(at, "dynamic_metadata", dynamic_metadata, metadata_match)?,
        grpc: grpc.is_some(),
        fraction: match share {
            Some(share) => Some(runtime_fraction(at.field("runtime_fraction"), share)?),
            None => None,
        },
        plaintext: None,
    })
}

/// The route that takes requests without TLS where they are not wanted; `None`: they are.
fn require_tls(at: At<'_>, m: i32) -> Result<Option<Arc<Route>>, CompileError> {
    use pb::virtual_host::TlsRequirementType as Kind;
    let plaintext = match known(at.field("require_tls"), m)? {
        Kind::None => return Ok(None),
        Kind::All => PlaintextRequests::All,
        Kind::ExternalOnly => PlaintextRequests::External,
    };
    Ok(Some(Arc::new(Route {
        name: "".into(),
        matches: RouteMatch {
            path: PathMatch::Prefix("".into()),
            case_sensitive: true,
            headers: Vec::new(),
            query: Vec::new(),
            metadata: Vec::new(),
            grpc: false,
            fraction: None,
            plaintext: Some(plaintext),
        },
        action: Action::Redirect(Box::new(Redirect {
            status: 301,
            scheme: Some("https".into()),
            host: None,
            port: None,
            keeps_port: true,
            path: PathRewrite::None,
            strip_query: false,
        })),
        request_headers: HeaderEdits::default(),
        response_headers: HeaderEdits::default(),
        filters: None,
    })))
}
