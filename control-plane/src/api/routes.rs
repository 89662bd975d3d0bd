//! Routes as proxies are given them, in words: read from the same resources that ADS serves, so
//! that what people see is what is in force.

use std::collections::HashSet;
use std::net::IpAddr;

use prost::Message;
use xds_proto::envoy::config::route::v3::header_matcher::HeaderMatchSpecifier;
use xds_proto::envoy::config::route::v3::route::Action;
use xds_proto::envoy::config::route::v3::route_action::ClusterSpecifier;
use xds_proto::envoy::config::route::v3::route_match::PathSpecifier;
use xds_proto::envoy::config::route::v3::{
    HeaderMatcher, Route, RouteAction, RouteConfiguration, RouteMatch,
};
use xds_proto::envoy::r#type::matcher::v3::StringMatcher;
use xds_proto::envoy::r#type::matcher::v3::string_matcher::MatchPattern;
use xds_proto::type_url::{CLUSTER, ROUTE};

use super::backend::{backend, parts};
use super::connection_routes;
use crate::ads::{Scope, View};
use crate::types::{RouteRule, Routes, ServiceRoutes};

/// `service`: a host, its first labels, `namespace/name`, or a workload's address; empty for all
/// services.
pub fn routes(view: &dyn View, scope: &Scope, service: &str) -> Routes {
    let mut services = Vec::new();
    let mut routed = HashSet::new();
    let of_connections = connection_routes::all(view, scope);
    let is_whole = |name: &str| {
        let found = of_connections.get(name);
        found.is_some_and(connection_routes::are_whole)
    };
    for resource in view.list(ROUTE, scope) {
        routed.insert(resource.name.to_string());
        if is_whole(&resource.name) {
            continue;
        }
        if let Ok(decoded) = RouteConfiguration::decode(resource.body) {
            services.extend(of_configuration(view, scope, &decoded));
        }
    }
    for resource in view.list(CLUSTER, scope) {
        let name = &resource.name;
        let Some((port, "", host)) = parts(name) else {
            continue;
        };
        if !routed.contains(&**name) && !of_connections.contains_key(&**name) {
            services.push(ServiceRoutes {
                name: name.to_string(),
                service: host.to_owned(),
                port,
                hosts: vec![host.to_owned()],
                rules: vec![RouteRule {
                    matches: vec!["every connection".into()],
                    backends: vec![backend(view, scope, name, 100)],
                    ..RouteRule::default()
                }],
            });
        }
    }
    services.extend(of_connections.into_values());
    // `namespace/name`, as the other commands spell it.
    let turned = service
        .split_once('/')
        .map(|(namespace, name)| format!("{name}.{namespace}"));
    let service = turned.as_deref().unwrap_or(service);
    let wanted = |one: &ServiceRoutes| {
        (service.is_empty() && one.service.parse::<IpAddr>().is_err())
            || one.service == service
            || one.hosts.iter().any(|host| host == service)
            || one
                .service
                .strip_prefix(service)
                .is_some_and(|rest| rest.starts_with('.'))
    };
    services.retain(wanted);
    services.sort_by(|a, b| (&a.service, a.port).cmp(&(&b.service, b.port)));
    Routes { services }
}

fn of_configuration(
    view: &dyn View,
    scope: &Scope,
    configuration: &RouteConfiguration,
) -> Vec<ServiceRoutes> {
    let (port, _, host) = parts(&configuration.name).unwrap_or((0, "", &configuration.name));
    let of_host = |virtual_host: &xds_proto::envoy::config::route::v3::VirtualHost| ServiceRoutes {
        name: configuration.name.clone(),
        service: host.to_owned(),
        port,
        hosts: virtual_host.domains.clone(),
        rules: virtual_host
            .routes
            .iter()
            .map(|route| rule(view, scope, route))
            .collect(),
    };
    configuration.virtual_hosts.iter().map(of_host).collect()
}

fn rule(view: &dyn View, scope: &Scope, route: &Route) -> RouteRule {
    let mut rule = RouteRule {
        name: route.name.clone(),
        matches: route.r#match.as_ref().map(matches).unwrap_or_default(),
        ..RouteRule::default()
    };
    for header in &route.request_headers_to_add {
        if let Some(header) = &header.header {
            rule.actions.push(format!(
                "set request header {}: {}",
                header.key, header.value
            ));
        }
    }
    for name in &route.request_headers_to_remove {
        rule.actions.push(format!("remove request header {name}"));
    }
    for header in &route.response_headers_to_add {
        if let Some(header) = &header.header {
            rule.actions.push(format!(
                "set response header {}: {}",
                header.key, header.value
            ));
        }
    }
    for name in &route.response_headers_to_remove {
        rule.actions.push(format!("remove response header {name}"));
    }
    match &route.action {
        Some(Action::Route(action)) => forward(view, scope, action, &mut rule),
        Some(Action::Redirect(redirect)) => {
            let host = &redirect.host_redirect;
            rule.actions
                .push(format!("redirect {host} ({:?})", redirect.response_code()));
        }
        Some(Action::DirectResponse(response)) => {
            rule.actions.push(format!("answer {}", response.status));
        }
        _ => {}
    }
    rule
}

fn forward(view: &dyn View, scope: &Scope, action: &RouteAction, rule: &mut RouteRule) {
    match &action.cluster_specifier {
        Some(ClusterSpecifier::Cluster(name)) => {
            rule.backends.push(backend(view, scope, name, 100));
        }
        Some(ClusterSpecifier::WeightedClusters(weighted)) => {
            for cluster in &weighted.clusters {
                let weight = cluster.weight.as_ref().map_or(0, |weight| weight.value);
                rule.backends
                    .push(backend(view, scope, &cluster.name, weight));
            }
        }
        _ => {}
    }
    if !action.prefix_rewrite.is_empty() {
        rule.actions
            .push(format!("rewrite prefix to {}", action.prefix_rewrite));
    }
    if let Some(rewrite) = &action.regex_rewrite {
        rule.actions
            .push(format!("rewrite path to {}", rewrite.substitution));
    }
    for mirror in &action.request_mirror_policies {
        rule.actions.push(format!("mirror to {}", mirror.cluster));
    }
    if let Some(timeout) = &action.timeout {
        let seconds = timeout.seconds.max(0).unsigned_abs();
        let millis = u64::from(timeout.nanos.max(0).unsigned_abs()) / 1_000_000;
        let ms = seconds.saturating_mul(1000).saturating_add(millis);
        rule.timeout_ms = (ms > 0).then_some(ms);
    }
    if let Some(retry) = &action.retry_policy {
        let count = retry.num_retries.as_ref().map_or(1, |count| count.value);
        rule.retries = (count > 0).then(|| format!("{count} on {}", retry.retry_on));
    }
}

fn matches(found: &RouteMatch) -> Vec<String> {
    let mut words = Vec::new();
    match &found.path_specifier {
        Some(PathSpecifier::Prefix(prefix)) if prefix == "/" => words.push("every path".into()),
        Some(PathSpecifier::Prefix(prefix)) => words.push(format!("path ~ {prefix}*")),
        Some(PathSpecifier::Path(path)) => words.push(format!("path = {path}")),
        Some(PathSpecifier::SafeRegex(regex)) => words.push(format!("path ~ /{}/", regex.regex)),
        Some(PathSpecifier::PathSeparatedPrefix(prefix)) => {
            words.push(format!("path = {prefix} or {prefix}/*"));
        }
        Some(PathSpecifier::ConnectMatcher(_)) => words.push("CONNECT".into()),
        _ => {}
    }
    words.extend(found.headers.iter().map(header));
    for parameter in &found.query_parameters {
        words.push(format!("query {}", parameter.name));
    }
    if found.grpc.is_some() {
        words.push("gRPC only".into());
    }
    words
}

fn header(matcher: &HeaderMatcher) -> String {
    let name = match &*matcher.name {
        ":method" => "method".to_owned(),
        ":authority" => "host".to_owned(),
        name => format!("header {name}"),
    };
    let not = if matcher.invert_match { "not " } else { "" };
    match &matcher.header_match_specifier {
        Some(HeaderMatchSpecifier::StringMatch(value)) => format!("{not}{name} {}", string(value)),
        Some(HeaderMatchSpecifier::PresentMatch(true)) => format!("{not}{name} present"),
        Some(HeaderMatchSpecifier::PresentMatch(false)) => format!("{not}{name} absent"),
        _ => format!("{not}{name}"),
    }
}

fn string(matcher: &StringMatcher) -> String {
    match &matcher.match_pattern {
        Some(MatchPattern::Exact(value)) => format!("= {value}"),
        Some(MatchPattern::Prefix(value)) => format!("~ {value}*"),
        Some(MatchPattern::Suffix(value)) => format!("~ *{value}"),
        Some(MatchPattern::Contains(value)) => format!("~ *{value}*"),
        Some(MatchPattern::SafeRegex(value)) => format!("~ /{}/", value.regex),
        _ => "= ?".into(),
    }
}
