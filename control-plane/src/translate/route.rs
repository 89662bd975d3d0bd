//! Route configurations of the outbound side. The destination was chosen by its address, so a
//! configuration has one virtual host for every `Host`.

use std::cmp::Reverse;

use xds_proto::envoy::config::route::v3 as route;
use xds_proto::envoy::config::route::v3::header_matcher::HeaderMatchSpecifier;
use xds_proto::envoy::config::route::v3::query_parameter_matcher::QueryParameterMatchSpecifier;
use xds_proto::envoy::config::route::v3::route_match::PathSpecifier;

use super::action::{self, RuleContext};
use super::naming::{Carries, OutboundName};
use super::proto::{exact, regex_matcher, safe_regex};
use super::resilience::Calls;
use crate::ads::resources::Scope;
use crate::model::Mesh;
use crate::model::manifest::policy::Defaults;
use crate::model::manifest::route::{Match, PathMatch, Route, Timeouts, ValueMatch, ValueTest};
use crate::model::manifest::service::AppProtocol;
use crate::model::mesh::PortEntry;

/// `outbound|<port>|<subset>|<host or address>`.
pub fn outbound(
    mesh: &Mesh,
    scope: &Scope,
    name: &OutboundName,
) -> Option<route::RouteConfiguration> {
    if let Some(ip) = name.ip() {
        let entry = mesh.workload_by_ip(ip)?;
        let protocol = entry.protocol(name.port);
        let defaults = mesh.defaults(&entry.workload.meta.namespace);
        let policy = mesh.policy_at(entry, name.port);
        let calls = Calls {
            own: policy.map(|policy| &policy.spec),
            defaults: &defaults,
        };
        return carried(protocol, name).then(|| whole(name, vec![plain(name, protocol, &calls)]));
    }
    let service = mesh.service_by_host(&name.host)?;
    let port = service
        .port(name.port)
        .filter(|port| carried(port.protocol, name))?;
    let defaults = mesh.defaults(&service.service.meta.namespace);
    let calls = Calls::of(service, &defaults);
    let attached = port.request_routes_for(&scope.namespace);
    if attached.is_empty() {
        return Some(whole(name, vec![plain(name, port.protocol, &calls)]));
    }
    let context = RuleContext {
        mesh,
        calls: &calls,
        port: name.port,
        http2: is_http2(port, name),
        grpc: is_grpc(port.protocol, name),
    };
    Some(whole(name, ordered(attached, &context)))
}

fn carried(protocol: AppProtocol, name: &OutboundName) -> bool {
    name.carries.is_http(protocol) && Carries::of(protocol).contains(&name.carries)
}

fn is_http2(port: &PortEntry, name: &OutboundName) -> bool {
    name.carries == Carries::Http2
        || matches!(port.protocol, AppProtocol::Http2 | AppProtocol::Grpc)
}

fn is_grpc(protocol: AppProtocol, name: &OutboundName) -> bool {
    protocol == AppProtocol::Grpc || name.carries == Carries::Http2
}

/// The app beside the sidecar: everything to one cluster, no time-out but the caller's.
pub fn inbound(cluster: &str) -> route::RouteConfiguration {
    let defaults = Defaults::default();
    let calls = Calls {
        own: None,
        defaults: &defaults,
    };
    let forward = route::RouteAction {
        retry_policy: None,
        ..action::forward(cluster.to_owned(), &Timeouts::default(), None, &calls, true)
    };
    let routes = vec![route::Route {
        name: "default".to_owned(),
        r#match: Some(prefix_match("/")),
        action: Some(route::route::Action::Route(forward)),
        ..route::Route::default()
    }];
    configuration(cluster.to_owned(), routes)
}

fn whole(name: &OutboundName, routes: Vec<route::Route>) -> route::RouteConfiguration {
    configuration(name.to_string(), routes)
}

fn configuration(name: String, routes: Vec<route::Route>) -> route::RouteConfiguration {
    route::RouteConfiguration {
        virtual_hosts: vec![route::VirtualHost {
            name: name.clone(),
            domains: vec!["*".to_owned()],
            routes,
            ..route::VirtualHost::default()
        }],
        name,
        ..route::RouteConfiguration::default()
    }
}

fn plain(name: &OutboundName, protocol: AppProtocol, calls: &Calls<'_>) -> route::Route {
    let grpc = is_grpc(protocol, name);
    let forward = action::forward(name.to_string(), &Timeouts::default(), None, calls, grpc);
    route::Route {
        name: "default".to_owned(),
        r#match: Some(prefix_match("/")),
        action: Some(route::route::Action::Route(forward)),
        ..route::Route::default()
    }
}

fn prefix_match(prefix: &str) -> route::RouteMatch {
    route::RouteMatch {
        path_specifier: Some(PathSpecifier::Prefix(prefix.to_owned())),
        ..route::RouteMatch::default()
    }
}

/// All matches of all routes in Gateway API's order: exact paths, expressions, longer prefixes,
/// those with a method, more headers, more parameters; of GRPCRoutes those that name more of a
/// service, then of a method, then more headers. Then by the routes' precedence (their order here)
/// and the order within them.
fn ordered(routes: &[std::sync::Arc<Route>], context: &RuleContext<'_>) -> Vec<route::Route> {
    let mut all = Vec::new();
    for route in routes {
        for (index, rule) in route.rules.iter().enumerate() {
            for (which, one) in rule.matches.iter().enumerate() {
                let compiled = route::Route {
                    name: rule_name(route, index, which),
                    r#match: Some(compile(one)),
                    ..action::route(context, route, rule, one)
                };
                all.push((rank(one), compiled));
            }
        }
    }
    all.sort_by_key(|(rank, _)| *rank);
    all.into_iter().map(|(_, route)| route).collect()
}

type Rank = (
    u8,
    (Reverse<usize>, Reverse<usize>),
    bool,
    Reverse<usize>,
    Reverse<usize>,
);

/// Routes of both kinds are never compared: one kind governs a port.
fn rank(one: &Match) -> Rank {
    let (kind, first, second) = match (&one.grpc, &one.path) {
        (Some(names), _) => (u8::from(names.regex), names.service, names.method),
        (None, PathMatch::Exact(path)) => (0, path.len(), 0),
        (None, PathMatch::Regex(pattern)) => (1, pattern.0.len(), 0),
        (None, PathMatch::Prefix(path)) => (2, path.len(), 0),
    };
    (
        kind,
        (Reverse(first), Reverse(second)),
        one.method.is_none(),
        Reverse(one.headers.len()),
        Reverse(one.query.len()),
    )
}

/// `<kind>/<namespace>/<name>/<rule>[.<match>]`, for logs and explanations.
pub fn rule_name(route: &Route, index: usize, which: usize) -> String {
    let rule = &route.rules[index];
    let name = rule.name.clone().unwrap_or_else(|| index.to_string());
    let suffix = if rule.matches.len() > 1 {
        format!(".{which}")
    } else {
        String::new()
    };
    format!("{}/{}/{name}{suffix}", route.kind, route.meta.key())
}

fn compile(one: &Match) -> route::RouteMatch {
    let path = match &one.path {
        PathMatch::Exact(path) => PathSpecifier::Path(path.clone()),
        PathMatch::Prefix(path) if path.is_empty() => PathSpecifier::Prefix("/".to_owned()),
        PathMatch::Prefix(path) => PathSpecifier::PathSeparatedPrefix(path.clone()),
        PathMatch::Regex(pattern) => PathSpecifier::SafeRegex(regex_matcher(&pattern.0)),
    };
    let method = one.method.as_ref().map(|method| route::HeaderMatcher {
        name: ":method".to_owned(),
        header_match_specifier: Some(HeaderMatchSpecifier::StringMatch(exact(method))),
        ..route::HeaderMatcher::default()
    });
    let header = |header: &ValueMatch| route::HeaderMatcher {
        name: header.name.clone(),
        header_match_specifier: Some(HeaderMatchSpecifier::StringMatch(value(&header.value))),
        ..route::HeaderMatcher::default()
    };
    let query = |parameter: &ValueMatch| route::QueryParameterMatcher {
        name: parameter.name.clone(),
        query_parameter_match_specifier: Some(QueryParameterMatchSpecifier::StringMatch(value(
            &parameter.value,
        ))),
    };
    route::RouteMatch {
        path_specifier: Some(path),
        headers: method
            .into_iter()
            .chain(one.headers.iter().map(header))
            .collect(),
        query_parameters: one.query.iter().map(query).collect(),
        ..route::RouteMatch::default()
    }
}

fn value(test: &ValueTest) -> xds_proto::envoy::r#type::matcher::v3::StringMatcher {
    match test {
        ValueTest::Exact(text) => exact(text),
        ValueTest::Regex(pattern) => safe_regex(&pattern.0),
    }
}
