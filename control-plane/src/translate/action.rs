//! What a rule of a route does.

use std::collections::HashMap;
use std::time::Duration;

use xds_proto::envoy::config::core::v3 as core;
use xds_proto::envoy::config::route::v3 as route;
use xds_proto::envoy::config::route::v3::route_action::ClusterSpecifier;
use xds_proto::envoy::r#type::matcher::v3::RegexMatchAndSubstitute;
use xds_proto::envoy::r#type::v3::{FractionalPercent, fractional_percent::DenominatorType};

use super::cors;
use super::edits::{EnvoyEdits, in_sequence};
use super::naming::{Carries, INVALID_BACKEND, OutboundName};
use super::proto::{duration, fields, inline, metadata, regex_matcher, text, u32v};
use super::resilience::Calls;
use super::session;
use crate::model::manifest::route::{
    Backend, Destination, Filters, Match, Mirror, PathEdit, PathMatch, Redirect, Retry, Rewrite,
    Route, Rule, Timeouts,
};
use crate::model::manifest::service::AppProtocol;
use crate::model::{Kind, Mesh};

/// What the routes of a rule depend on, besides the rule.
pub struct RuleContext<'a> {
    pub mesh: &'a Mesh,
    pub calls: &'a Calls<'a>,
    /// The port that is called.
    pub port: u16,
    /// Whether the calls are HTTP/2, because the port declares it or because it was detected.
    pub http2: bool,
    /// They may be gRPC.
    pub grpc: bool,
}

/// A route without name and match.
pub fn route(context: &RuleContext<'_>, owner: &Route, rule: &Rule, one: &Match) -> route::Route {
    // Part of the shares, where these have edits of their own.
    let mut request = Some(&rule.filters.request);
    let action = match &rule.filters.redirect {
        Some(redirect) => {
            route::route::Action::Redirect(redirect_action(redirect, one, context.port))
        }
        None => match target(context, owner, rule) {
            None => unforwardable(owner.kind, rule),
            Some(target) => {
                let mut forward = forward(
                    String::new(),
                    &rule.timeouts,
                    rule.retry.as_ref(),
                    context.calls,
                    context.grpc,
                );
                if matches!(target, ClusterSpecifier::WeightedClusters(_)) {
                    request = None;
                }
                forward.cluster_not_found_response_code = not_found(owner.kind, &target) as i32;
                forward.cluster_specifier = Some(target);
                forward.request_mirror_policies = mirrors(context, owner, rule);
                if let Some(rewrite) = &rule.filters.rewrite {
                    apply_rewrite(&mut forward, rewrite, one);
                }
                route::route::Action::Route(forward)
            }
        },
    };
    let request = request.map(EnvoyEdits::of).unwrap_or_default();
    let response = EnvoyEdits::of(&rule.filters.response);
    let cors = rule.filters.cors.as_ref();
    let cors = cors.map(|cors| (cors::NAME.to_owned(), cors::policy(cors)));
    let session = rule.session.as_ref();
    let session = session.map(|it| (session::NAME.to_owned(), session::policy(owner, rule, it)));
    route::Route {
        action: Some(action),
        request_headers_to_add: request.add,
        request_headers_to_remove: request.remove,
        response_headers_to_add: response.add,
        response_headers_to_remove: response.remove,
        metadata: minimum_back_off(rule),
        typed_per_filter_config: cors.into_iter().chain(session).collect::<HashMap<_, _>>(),
        ..route::Route::default()
    }
}

/// The back-off of a route's own retries is a minimum (GEP-1731), which our proxy understands so, while
/// Envoy takes it for the bound of a random pause.
fn minimum_back_off(rule: &Rule) -> Option<core::Metadata> {
    rule.retry.as_ref()?.backoff?;
    let ours = fields(&[("retry_back_off", text("minimum"))]);
    Some(metadata(&[("anyam", ours)]))
}

/// Shares without a valid backend name a cluster that does not exist: that is the route's fault. To
/// gRPC, 503 is UNAVAILABLE, as Gateway API wants it of a GRPCRoute.
fn not_found(
    kind: Kind,
    target: &ClusterSpecifier,
) -> route::route_action::ClusterNotFoundResponseCode {
    use route::route_action::ClusterNotFoundResponseCode as Code;
    let invalid = match target {
        ClusterSpecifier::WeightedClusters(all) => all
            .clusters
            .iter()
            .any(|share| share.name == INVALID_BACKEND),
        _ => false,
    };
    if invalid && kind != Kind::GrpcRoute {
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
fn unforwardable(kind: Kind, rule: &Rule) -> route::route::Action {
    let none_wanted = rule.backends.iter().all(|backend| backend.weight == 0);
    if none_wanted && !rule.backends.is_empty() {
        direct(503, "all backends of this route have weight 0\n")
    } else {
        let status = match kind {
            Kind::GrpcRoute => 503,
            _ => 500,
        };
        direct(status, "no backend of this route is valid\n")
    }
}

/// `None`: no backend can be forwarded to. The rule's edits of requests are part of its backends'.
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
        let own = &backend.filters;
        let request = EnvoyEdits::of(&in_sequence(&rule.filters.request, &own.request));
        let response = EnvoyEdits::of(&own.response);
        let host = own.rewrite.as_ref().and_then(|it| it.hostname.clone());
        route::weighted_cluster::ClusterWeight {
            name: name.unwrap_or_else(|| INVALID_BACKEND.to_owned()),
            weight: u32v(backend.weight),
            request_headers_to_add: request.add,
            request_headers_to_remove: request.remove,
            response_headers_to_add: response.add,
            response_headers_to_remove: response.remove,
            host_rewrite_specifier: host.map(
                route::weighted_cluster::cluster_weight::HostRewriteSpecifier::HostRewriteLiteral,
            ),
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
    let carries = match service.port(number)?.protocol {
        AppProtocol::Undeclared if context.http2 => Carries::Http2,
        AppProtocol::Tls => Carries::Http1,
        _ => Carries::Declared,
    };
    Some(OutboundName::new(number, carries, &service.host).to_string())
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

/// The port that a redirect names; 0: none, or that of the request's Host. Where it is not written it
/// is the scheme's, and without a scheme the one that was called (Gateway API).
fn redirect_port(redirect: &Redirect, called: u16) -> u16 {
    const HTTP: u16 = 80;
    const HTTPS: u16 = 443;
    let renamed = redirect.hostname.is_some();
    match (redirect.port, redirect.scheme.as_deref()) {
        (Some(port), _) => port,
        // A name without a port has the scheme's.
        (None, Some(_)) if renamed => 0,
        (None, Some("https")) => HTTPS,
        (None, Some(_)) => HTTP,
        (None, None) if renamed && called != HTTP => called,
        (None, None) => 0,
    }
}

/// `called`: the port of the Service.
fn redirect_action(redirect: &Redirect, one: &Match, called: u16) -> route::RedirectAction {
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
        port_redirect: u32::from(redirect_port(redirect, called)),
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
