//! What HTTP makes of a hypothetical request, in the order of `http::request::handle`: read,
//! normalised, routed, filtered, sent on.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use xds_proto::anyam::inspect::v1::decision::Outcome;

use super::cluster::{FailureTexts, cluster};
use super::{Decisions, ExplainContext, push_policy};
use crate::config::filter::FilterConfig;
use crate::config::http::HttpConnectionManager;
use crate::config::route::{Action, ClusterSpecifier, Route, RouteAction};
use crate::http::connection::conn;
use crate::http::filter;
use crate::http::filter::rbac;
use crate::http::forward::upgrade;
use crate::http::h1::{self, Framing, ServerConn};
use crate::http::request::client_cert::Element;
use crate::http::request::error::Failure;
use crate::http::request::headers::{self, Sender};
use crate::http::request::plan::{self, RouteMismatch};
use crate::http::request::target;
use crate::message::authority::Memo;
use crate::message::fault::Fault;
use crate::message::head::Head;
use crate::policy;
use crate::snapshot::RouteConfig;

/// Chooses the first of weighted clusters, and routes that take a share.
const DRAW: u64 = 0;

/// A request as routes and policies see it.
struct Prepared<'a> {
    head: Head,
    framing: Framing,
    /// The name by which virtual hosts are chosen.
    authority: std::rc::Rc<str>,
    facts: policy::Facts<'a>,
}

pub(super) fn http(
    context: &ExplainContext<'_>,
    manager: &HttpConnectionManager,
    request: &Bytes,
    decisions: &mut Decisions,
) {
    let mut prepared = match prepare(context, manager, request, decisions) {
        Ok(Some(prepared)) => prepared,
        Ok(None) => return,
        Err(fault) => return failed(&Failure::BadRequest(fault), "request", "", decisions),
    };
    let routes = conn::routes(context.listener, manager);
    let found = match &routes {
        Some(routes) => route(routes, &prepared, decisions),
        None => Err((
            String::new(),
            "the route configuration is not there (yet)".to_owned(),
        )),
    };
    // Filters run before a request without a route is answered with 404.
    if !filters(manager, found.as_ref().ok(), &prepared, decisions) {
        return;
    }
    match (found, &routes) {
        (Ok(route), Some(routes)) => {
            act(context, manager, routes, &route, &mut prepared, decisions)
        }
        (Err((subject, why)), _) => {
            let status = Failure::NoRoute.response().status;
            let why = format!("{why}: {status} (NR)");
            decisions.push("route", Outcome::Failed, &subject, why);
        }
        (Ok(_), None) => {}
    }
}

/// Reads and normalises the request; `Ok(None)`: it is answered already.
fn prepare<'a>(
    context: &'a ExplainContext<'_>,
    manager: &HttpConnectionManager,
    request: &Bytes,
    decisions: &mut Decisions,
) -> Result<Option<Prepared<'a>>, Fault> {
    let mut head = Head::new();
    let mut codec = ServerConn::new(h1::request_options(manager));
    let framing = codec.read_head(&mut BytesMut::from(&request[..]), &mut head)?;
    let framing = framing.ok_or(Fault::Truncated)?;
    let asked = spelled(&head);
    let question = context.question;
    let local = question.destination;
    if let Some(location) = target::normalise(&mut head, manager, local, framing.tunnel)? {
        let location = String::from_utf8_lossy(&location);
        let why = "its slashes are unescaped: answered with a redirect there, 307";
        decisions.push("request", Outcome::Info, &location, why);
        return Ok(None);
    }
    let sender = Sender {
        peer: question.source,
        tls: question.tls.as_ref(),
        chain: context.chain,
        client_cert: &Element::default(),
    };
    let client = headers::sanitise(&mut head, manager, &sender);
    let authority = target::authority(&mut head, manager, local, &mut Memo::default())?;
    let seen = spelled(&head);
    if seen != asked {
        let why = "normalised so: what routes and policies match and the app receives";
        decisions.push("request", Outcome::Info, &seen, why);
    }
    Ok(Some(Prepared {
        head,
        framing,
        authority,
        facts: policy::Facts {
            remote: client.ip(),
            ..question.facts()
        },
    }))
}

fn spelled(head: &Head) -> String {
    let text = [head.authority(), head.path_and_query()].concat();
    String::from_utf8_lossy(&text).into_owned()
}

/// The route; else of what there is none, and why.
fn route(
    config: &RouteConfig,
    request: &Prepared<'_>,
    decisions: &mut Decisions,
) -> Result<Arc<Route>, (String, String)> {
    let Some((_, host)) = plan::host(&config.table, &request.authority) else {
        let why = format!("no virtual host matches {:?}", request.authority);
        return Err((config.table.name.to_string(), why));
    };
    decisions.push(
        "route",
        Outcome::Info,
        &host.name,
        "this virtual host takes the authority",
    );
    let mut chosen = None;
    for (route, matched) in plan::routes(host, &request.head, None, DRAW) {
        let matched = match (matched, &chosen) {
            (Ok(()), Some(_)) => Err(RouteMismatch::Earlier),
            (matched, _) => matched,
        };
        match matched {
            Ok(()) => {
                chosen = Some(route.clone());
                decisions.push("route", Outcome::Chosen, &route.name, "the first match");
            }
            Err(mismatch) => decisions.push(
                "route",
                Outcome::Lost,
                &route.name,
                why_mismatched(mismatch),
            ),
        }
    }
    let why = "no route of the virtual host matches";
    chosen.ok_or_else(|| (host.name.to_string(), why.to_owned()))
}

fn why_mismatched(mismatch: RouteMismatch<'_>) -> String {
    match mismatch {
        RouteMismatch::Path => "the path does not match".to_owned(),
        RouteMismatch::Header(name) => format!("header {} does not match", name.name),
        RouteMismatch::Query(name) => format!("query parameter {name} does not match"),
        RouteMismatch::Metadata => "the dynamic metadata does not match".to_owned(),
        RouteMismatch::NotPlaintext => "only requests that came without TLS".to_owned(),
        RouteMismatch::NotGrpc => "only gRPC requests".to_owned(),
        RouteMismatch::Fraction => {
            "only a share of requests, and the draw went against it".to_owned()
        }
        RouteMismatch::Earlier => "matches too, but an earlier route matched first".to_owned(),
    }
}

/// Whether the filters allow the request, as far as that can be decided without running them.
fn filters(
    manager: &HttpConnectionManager,
    route: Option<&Arc<Route>>,
    request: &Prepared<'_>,
    decisions: &mut Decisions,
) -> bool {
    let overrides = route.and_then(|route| filter::overrides(route, DRAW));
    let overrides = overrides.map(|overrides| &**overrides);
    manager.filters.iter().all(|filter| {
        let Some((own, of_route)) = filter.on_route(overrides) else {
            return true;
        };
        let what = match own {
            FilterConfig::Rbac(own) => {
                let rules = rbac::rules(own, of_route);
                let decision = rbac::evaluate(rules, &request.head, request.facts);
                return push_policy(&decision, "request", decisions);
            }
            FilterConfig::Fault(_) => "may delay the request, fail it or slow its response",
            FilterConfig::LocalRateLimit(_) => "refuses requests over its limit",
            FilterConfig::Cors(_) => "answers preflight requests of allowed origins",
            FilterConfig::HeaderMutation(_) => "may change headers, which is not tried here",
            FilterConfig::Buffer(_) => "waits for the request's whole body",
            FilterConfig::StatefulSession(_) => "keeps a session on one endpoint",
            FilterConfig::HeaderToMetadata(_) => "sets dynamic metadata by headers",
            FilterConfig::Csrf(_) => "refuses changes that pages of other hosts ask for",
            FilterConfig::JwtAuthn(_) => "may require a JSON Web Token, which is not verified here",
            FilterConfig::Compressor(_) => "may compress the request or the response",
            FilterConfig::Decompressor(_) => "may decompress the request or the response",
            FilterConfig::HealthCheck(_) => "answers health checks of this proxy, or marks them",
            // Only a route's.
            FilterConfig::CompressorOfRoute(_)
            | FilterConfig::CsrfOfRoute(_)
            | FilterConfig::JwtAuthnOfRoute(_) => return true,
        };
        decisions.push("filter", Outcome::Info, &filter.name, what);
        true
    })
}

fn act(
    context: &ExplainContext<'_>,
    manager: &HttpConnectionManager,
    config: &RouteConfig,
    route: &Route,
    request: &mut Prepared<'_>,
    decisions: &mut Decisions,
) {
    let why = match &route.action {
        Action::Forward(forward) => {
            return match upgrade::check(&mut request.head, &mut request.framing, forward, manager) {
                Ok(()) => forwarded(context, config, (route, forward), &request.head, decisions),
                Err(failure) => failed(&failure, "route", &route.name, decisions),
            };
        }
        Action::Redirect(redirect) => format!("answered with a redirect, {}", redirect.status),
        Action::Direct { status, .. } => format!("answered with {status}"),
    };
    decisions.push("route", Outcome::Info, &route.name, why);
}

fn forwarded(
    context: &ExplainContext<'_>,
    config: &RouteConfig,
    (route, forward): (&Route, &RouteAction),
    head: &Head,
    decisions: &mut Decisions,
) {
    if let ClusterSpecifier::Weighted { total, clusters } = &forward.target {
        let mut before = 0u64;
        for entry in clusters {
            let share = entry.bound.saturating_sub(before) as f64 * 100.0 / (*total).max(1) as f64;
            before = entry.bound;
            let name = usize::try_from(entry.cluster.0).ok();
            let name = name
                .and_then(|at| config.clusters.get(at))
                .map(|link| &*link.name);
            let why = format!("{share:.1} %");
            decisions.push("cluster", Outcome::Info, name.unwrap_or_default(), why);
        }
    }
    let chosen = plan::cluster(forward, &config.clusters, head, context.snapshot, DRAW);
    let name = chosen.cluster.as_ref().map(|cluster| cluster.name.clone());
    let failing = FailureTexts {
        unknown: format!("{} (NC)", forward.cluster_not_found),
        no_endpoint: "503 (UH)",
    };
    let name = name.as_deref().unwrap_or_default();
    let subset = plan::subset(forward, chosen.weighted);
    let target = chosen.cluster.as_ref().map(|cluster| (cluster, subset));
    cluster(name, target, context, &failing, decisions);
    let why = match &forward.retry {
        Some(retry) => format!("up to {} retries", retry.num_retries),
        None => "no retries".to_owned(),
    };
    decisions.push("retry", Outcome::Info, &route.name, why);
}

/// What is answered to a request that cannot be served.
fn failed(failure: &Failure, stage: &str, subject: &str, decisions: &mut Decisions) {
    let answer = failure.response();
    let why = format!("{}: {}", answer.reason, answer.status);
    decisions.push(stage, Outcome::Failed, subject, why);
}
