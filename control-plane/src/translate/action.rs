//! What a rule of a route does.

use std::time::Duration;

use xds_proto::envoy::config::core::v3 as core;
use xds_proto::envoy::config::route::v3 as route;
use xds_proto::envoy::config::route::v3::route_action::ClusterSpecifier;
use xds_proto::envoy::r#type::matcher::v3::RegexMatchAndSubstitute;
use xds_proto::envoy::r#type::v3::{FractionalPercent, fractional_percent::DenominatorType};

use super::naming::{Carries, INVALID_BACKEND, OutboundName};
use super::proto::{duration, regex_matcher, u32v};
use super::resilience::Calls;
use super::route::inline;
use crate::model::Mesh;
use crate::model::manifest::route::{
    Backend, Destination, Filters, HeaderEdits, Match, Mirror, PathEdit, PathMatch, Redirect,
    Retry, Rewrite, Route, Rule, Timeouts,
};
use crate::model::manifest::service::AppProtocol;

/// What the routes of a rule depend on, besides the rule.
pub struct RuleContext<'a> {
    pub mesh: &'a Mesh,
    pub calls: &'a Calls<'a>,
    /// Whether the calls are HTTP/2, because the port declares it or because it was detected.
    pub http2: bool,
    pub grpc: bool,
}

/// A route without name and match.
pub fn route(context: &RuleContext<'_>, owner: &Route, rule: &Rule, one: &Match) -> route::Route {
    let action = match &rule.filters.redirect {
        Some(redirect) => route::route::Action::Redirect(redirect_action(redirect, one)),
        None => match target(context, owner, rule) {
            None => unforwardable(rule),
            Some(target) => {
                let mut forward = forward(
                    String::new(),
                    &rule.timeouts,
                    rule.retry.as_ref(),
                    context.calls,
                    context.grpc,
                );
                forward.cluster_not_found_response_code = not_found(&target) as i32;
                forward.cluster_specifier = Some(target);
                forward.request_mirror_policies = mirrors(context, owner, rule);
                if let Some(rewrite) = &rule.filters.rewrite {
                    apply_rewrite(&mut forward, rewrite, one);
                }
                route::route::Action::Route(forward)
            }
        },
    };
    let (request, response) = (&rule.filters.request, &rule.filters.response);
    route::Route {
        action: Some(action),
        request_headers_to_add: additions(request),
        request_headers_to_remove: request.remove.clone(),
        response_headers_to_add: additions(response),
        response_headers_to_remove: response.remove.clone(),
        ..route::Route::default()
    }
}

/// Shares without a valid backend name a cluster that does not exist: that is the route's fault.
fn not_found(target: &ClusterSpecifier) -> route::route_action::ClusterNotFoundResponseCode {
    use route::route_action::ClusterNotFoundResponseCode as Code;
    let invalid = match target {
        ClusterSpecifier::WeightedClusters(all) => all
            .clusters
            .iter()
            .any(|share| share.name == INVALID_BACKEND),
        _ => false,
    };
    if invalid {
        Code::InternalServerError
    } else {
        Code::ServiceUnavailable
    }
}

/// To one cluster.
pub fn forward(
    cluster: String,
    timeouts: &Timeouts,
    retry: Option<&Retry>,
    calls: &Calls<'_>,
    grpc: bool,
) -> route::RouteAction {
    use route::route_action::{ClusterNotFoundResponseCode, MaxStreamDuration};
    // gRPC callers set their own timeout: it applies, without bound.
    let caller_decides = MaxStreamDuration {
        grpc_timeout_header_max: duration(Duration::ZERO),
        ..MaxStreamDuration::default()
    };
    route::RouteAction {
        cluster_specifier: Some(ClusterSpecifier::Cluster(cluster)),
        cluster_not_found_response_code: ClusterNotFoundResponseCode::ServiceUnavailable as i32,
        timeout: duration(calls.timeout(timeouts)),
        retry_policy: calls.retry(retry, timeouts),
        max_stream_duration: grpc.then_some(caller_decides),
        ..route::RouteAction::default()
    }
}

fn direct(status: u32, body: &str) -> route::route::Action {
    route::route::Action::DirectResponse(route::DirectResponseAction {
        status,
        body: Some(inline(body)),
        ..route::DirectResponseAction::default()
    })
}

/// The answer where nothing can be forwarded: no backend is valid, or all weights are 0.
fn unforwardable(rule: &Rule) -> route::route::Action {
    let none_wanted = rule.backends.iter().all(|backend| backend.weight == 0);
    if none_wanted && !rule.backends.is_empty() {
        direct(503, "all backends of this route have weight 0\n")
    } else {
        direct(500, "no backend of this route is valid\n")
    }
}

/// `None`: no backend can be forwarded to.
fn target(context: &RuleContext<'_>, owner: &Route, rule: &Rule) -> Option<ClusterSpecifier> {
    let shares: Vec<_> = rule
        .backends
        .iter()
        .filter(|backend| backend.weight > 0)
        .map(|backend| (backend, cluster_name(context, owner, &backend.to)))
        .collect();
    if shares.iter().all(|(_, name)| name.is_none()) {
        return None;
    }
    if let [(backend, Some(name))] = shares.as_slice()
        && backend.filters == Filters::default()
    {
        return Some(ClusterSpecifier::Cluster(name.clone()));
    }
    let share = |(backend, name): (&Backend, Option<String>)| {
        let (request, response) = (&backend.filters.request, &backend.filters.response);
        route::weighted_cluster::ClusterWeight {
            name: name.unwrap_or_else(|| INVALID_BACKEND.to_owned()),
            weight: u32v(backend.weight),
            request_headers_to_add: additions(request),
            request_headers_to_remove: request.remove.clone(),
            response_headers_to_add: additions(response),
            response_headers_to_remove: response.remove.clone(),
            ..route::weighted_cluster::ClusterWeight::default()
        }
    };
    Some(ClusterSpecifier::WeightedClusters(route::WeightedCluster {
        clusters: shares.into_iter().map(share).collect(),
        ..route::WeightedCluster::default()
    }))
}

/// Mirrors whose backend resolves; the route's conditions report the others.
fn mirrors(
    context: &RuleContext<'_>,
    owner: &Route,
    rule: &Rule,
) -> Vec<route::route_action::RequestMirrorPolicy> {
    let policy = |mirror: &Mirror| {
        let share = FractionalPercent {
            numerator: mirror.share,
            denominator: DenominatorType::Million as i32,
        };
        Some(route::route_action::RequestMirrorPolicy {
            cluster: cluster_name(context, owner, &mirror.to)?,
            runtime_fraction: Some(core::RuntimeFractionalPercent {
                default_value: Some(share),
                ..core::RuntimeFractionalPercent::default()
            }),
            ..route::route_action::RequestMirrorPolicy::default()
        })
    };
    rule.filters.mirrors.iter().filter_map(policy).collect()
}

fn cluster_name(context: &RuleContext<'_>, owner: &Route, to: &Destination) -> Option<String> {
    let (service, number) = context.mesh.backend(owner, to).ok()?;
    let undeclared = service.port(number)?.protocol == AppProtocol::Undeclared;
    let carries = match undeclared && context.http2 {
        true => Carries::Http2,
        false => Carries::Declared,
    };
    Some(OutboundName::new(number, carries, &service.host).to_string())
}

fn additions(edits: &HeaderEdits) -> Vec<core::HeaderValueOption> {
    use core::header_value_option::HeaderAppendAction as Action;
    let option = |(name, value): &(String, String), action: Action| core::HeaderValueOption {
        header: Some(core::HeaderValue {
            key: name.clone(),
            // A percent sign begins a command in this place.
            value: value.replace('%', "%%"),
            ..core::HeaderValue::default()
        }),
        append_action: action as i32,
        keep_empty_value: true,
        ..core::HeaderValueOption::default()
    };
    let set = edits
        .set
        .iter()
        .map(|pair| option(pair, Action::OverwriteIfExistsOrAdd));
    let add = edits
        .add
        .iter()
        .map(|pair| option(pair, Action::AppendIfExistsOrAdd));
    set.chain(add).collect()
}

fn substitute(pattern: String, with: &str) -> RegexMatchAndSubstitute {
    RegexMatchAndSubstitute {
        pattern: Some(regex_matcher(pattern)),
        substitution: with.replace('\\', "\\\\"),
    }
}

/// How the prefix that matched is replaced.
enum Prefix {
    Plain(String),
    /// Where nothing but a slash is left, plain replacement would leave two.
    Regex(RegexMatchAndSubstitute),
}

fn prefix_edit(one: &Match, with: &str) -> Prefix {
    let PathMatch::Prefix(matched) = &one.path else {
        // Refused when the route is read.
        return Prefix::Plain(with.to_owned());
    };
    match (matched.is_empty(), with.is_empty()) {
        (true, _) => Prefix::Plain(format!("{with}/")),
        (false, true) => Prefix::Regex(substitute(format!("^{}/*", regex::escape(matched)), "/")),
        (false, false) => Prefix::Plain(with.to_owned()),
    }
}

fn apply_rewrite(forward: &mut route::RouteAction, rewrite: &Rewrite, one: &Match) {
    if let Some(host) = &rewrite.hostname {
        forward.host_rewrite_specifier =
            Some(route::route_action::HostRewriteSpecifier::HostRewriteLiteral(host.clone()));
    }
    match &rewrite.path {
        None => {}
        Some(PathEdit::Full(path)) => {
            forward.regex_rewrite = Some(substitute("^/.*$".to_owned(), path));
        }
        Some(PathEdit::Prefix(with)) => match prefix_edit(one, with) {
            Prefix::Plain(with) => forward.prefix_rewrite = with,
            Prefix::Regex(regex) => forward.regex_rewrite = Some(regex),
        },
    }
}

fn redirect_action(redirect: &Redirect, one: &Match) -> route::RedirectAction {
    use route::redirect_action::{
        PathRewriteSpecifier as Path, RedirectResponseCode as Code, SchemeRewriteSpecifier,
    };
    let code = match redirect.status {
        301 => Code::MovedPermanently,
        303 => Code::SeeOther,
        307 => Code::TemporaryRedirect,
        308 => Code::PermanentRedirect,
        _ => Code::Found,
    };
    route::RedirectAction {
        response_code: code as i32,
        host_redirect: redirect.hostname.clone().unwrap_or_default(),
        port_redirect: redirect.port.map_or(0, u32::from),
        scheme_rewrite_specifier: redirect
            .scheme
            .clone()
            .map(SchemeRewriteSpecifier::SchemeRedirect),
        path_rewrite_specifier: redirect.path.as_ref().map(|edit| match edit {
            PathEdit::Full(path) => Path::PathRedirect(path.clone()),
            PathEdit::Prefix(with) => match prefix_edit(one, with) {
                Prefix::Plain(with) => Path::PrefixRewrite(with),
                Prefix::Regex(regex) => Path::RegexRewrite(regex),
            },
        }),
        strip_query: false,
    }
}
