//! A hypothetical request, evaluated by the data path's own matchers on the snapshot in force:
//! listener, chain, policy, route, cluster, endpoint. Nothing is sent and nothing counted.

use std::sync::Arc;

use xds_proto::anyam::inspect::v1 as pb;
use xds_proto::anyam::inspect::v1::decision::Outcome;

mod cluster;

use self::cluster::cluster;
use super::question::Question;
use crate::config::demand::{OnDemandClient, OnDemandResource, OnDemandResponse};
use crate::config::filter::FilterConfig;
use crate::config::http::HttpConnectionManager;
use crate::config::listener::{Direction, FilterChain, TcpTarget, TerminalFilter};
use crate::config::route::{Action, ClusterSpecifier, Route};
use crate::http::filter;
use crate::http::filter::rbac;
use crate::http::request::plan;
use crate::http::request::plan::Lost;
use crate::listener::chain;
use crate::message::head::Head;
use crate::policy;
use crate::snapshot::Listener;
use crate::snapshot::RouteConfig;
use crate::snapshot::{Snapshot, Store};

/// Fetches the listener of an outbound destination on demand, as its first connection would;
/// `None`: none is needed.
pub async fn fetch(
    store: &Store,
    demand: &OnDemandClient,
    asked: &pb::Explain,
) -> Option<OnDemandResponse> {
    let destination = Question::parse(asked).ok()?.destination;
    if asked.inbound || store.peek().by_address.contains_key(&destination) {
        return None;
    }
    Some(demand.ask(OnDemandResource::Listener(destination)).await)
}

/// The decisions in the order in which the data path takes them. `answer`: what [`fetch`] got.
///
/// # Errors
/// When the question itself cannot be understood.
pub fn explain(
    snapshot: &Snapshot,
    asked: &pb::Explain,
    answer: Option<OnDemandResponse>,
) -> Result<Vec<pb::Decision>, String> {
    let question = Question::parse(asked)?;
    let mut said = Said::default();
    if answer == Some(OnDemandResponse::Unavailable) {
        let subject = question.destination.to_string();
        let why = "it may be in the mesh and the control plane cannot say: the connection is reset";
        said.say("listener", Outcome::Failed, &subject, why);
        return Ok(said.0);
    }
    walk(snapshot, &question, &mut said);
    Ok(said.0)
}

#[derive(Default)]
struct Said(Vec<pb::Decision>);

impl Said {
    fn say(&mut self, stage: &str, outcome: Outcome, subject: &str, reason: impl Into<String>) {
        self.0.push(pb::Decision {
            stage: stage.to_owned(),
            outcome: outcome.into(),
            subject: subject.to_owned(),
            reason: reason.into(),
        });
    }
}

fn walk(snapshot: &Snapshot, question: &Question, said: &mut Said) {
    let Some(listener) = listener(snapshot, question, said) else {
        return;
    };
    let protocol = question.protocol();
    let facts = chain::ChainMatchInput {
        destination: question.destination,
        source: question.source,
        protocol: &protocol,
    };
    let Some(chain) = chain::choose(&listener.def, &facts) else {
        let why = "no filter chain of the listener matches: the connection is closed";
        return said.say("chain", Outcome::Failed, &listener.def.name, why);
    };
    let how = match &chain.tls {
        Some(_) => "its matchers fit; TLS is ended here",
        None => "its matchers fit; no TLS is ended here",
    };
    said.say("chain", Outcome::Chosen, &chain.name, how);
    if !network_policy(chain, question, said) {
        return;
    }
    match &chain.terminal {
        TerminalFilter::Tunnel(_) => {
            let why = "connections inside this one are served as if they had come by themselves";
            said.say("chain", Outcome::Chosen, &chain.name, why);
        }
        TerminalFilter::Tcp(proxy) => tcp(listener, &proxy.target, question, said),
        TerminalFilter::Http(manager) => match &question.head {
            Some(head) => http(snapshot, listener, manager, question, head, said),
            None => {
                let why = "the chain speaks HTTP, and an opaque connection was asked about";
                said.say("detection", Outcome::Failed, &chain.name, why);
            }
        },
    }
}

fn listener<'s>(
    snapshot: &'s Snapshot,
    question: &Question,
    said: &mut Said,
) -> Option<&'s Arc<Listener>> {
    let direction = match question.inbound {
        true => Direction::Inbound,
        false => Direction::Outbound,
    };
    if let Some(listener) = snapshot.by_address.get(&question.destination) {
        let why = "it stands at the original destination";
        said.say("listener", Outcome::Chosen, &listener.def.name, why);
        return Some(listener);
    }
    let entry = snapshot
        .listeners
        .values()
        .find(|l| l.def.bind_to_port && l.def.direction == direction);
    match entry {
        Some(listener) => {
            let why = match question.inbound {
                true => "every inbound connection enters here".to_owned(),
                false => format!(
                    "the control plane has no listener for {}: it is outside the mesh",
                    question.destination
                ),
            };
            said.say("listener", Outcome::Chosen, &listener.def.name, why);
        }
        None => {
            let why = "no listener takes connections in this direction";
            said.say("listener", Outcome::Failed, "", why);
        }
    }
    entry
}

fn network_policy(chain: &FilterChain, question: &Question, said: &mut Said) -> bool {
    let facts = question.facts();
    chain
        .rbac
        .iter()
        .all(|rbac| judged(&policy::judge(rbac, &facts), "connection", said))
}

/// Describes one filter's decision; returns whether it allows the request.
fn judged(verdict: &policy::Verdict, what: &str, said: &mut Said) -> bool {
    if let Some(by) = &verdict.would_refuse {
        let by = by.as_deref().unwrap_or("no policy allows it");
        let why = format!("shadow rules would deny the {what}: {by}");
        said.say("policy", Outcome::Info, "shadow rules", why);
    }
    match &verdict.refused {
        None => {
            let why = format!("the {what} is allowed");
            said.say("policy", Outcome::Allowed, "rules", why);
            true
        }
        Some(Some(by)) => {
            said.say(
                "policy",
                Outcome::Denied,
                by,
                format!("this policy denies the {what}"),
            );
            false
        }
        Some(None) => {
            let why = format!("no policy allows the {what} for this caller");
            said.say("policy", Outcome::Denied, "default deny", why);
            false
        }
    }
}

fn tcp(listener: &Listener, target: &TcpTarget, question: &Question, said: &mut Said) {
    let reference = match target {
        TcpTarget::Cluster(reference) => Some(*reference),
        TcpTarget::Weighted(entries) => {
            said.say(
                "route",
                Outcome::Info,
                "",
                "weighted: the first of several is shown",
            );
            entries.first().map(|(_, reference)| *reference)
        }
    };
    let link = reference
        .and_then(|at| usize::try_from(at.0).ok())
        .and_then(|at| listener.clusters.get(at));
    match link {
        Some(link) => cluster(&link.name, link.target.as_ref(), question, said),
        None => said.say("cluster", Outcome::Failed, "", "the chain names no cluster"),
    }
}

fn http(
    snapshot: &Snapshot,
    listener: &Listener,
    manager: &HttpConnectionManager,
    question: &Question,
    head: &Head,
    said: &mut Said,
) {
    let config = usize::try_from(manager.routes.0)
        .ok()
        .and_then(|at| listener.routes.get(at)?.target());
    let Some(config) = config else {
        let why = "the route configuration is not there (yet)";
        return said.say("route", Outcome::Failed, "", why);
    };
    let authority = String::from_utf8_lossy(head.authority()).to_ascii_lowercase();
    let Some((_, host)) = plan::host(&config.table, &authority) else {
        let why = format!("no virtual host takes {authority:?}: 404 (NR)");
        return said.say("route", Outcome::Failed, &config.table.name, why);
    };
    said.say(
        "route",
        Outcome::Info,
        &host.name,
        "this virtual host takes the authority",
    );
    let mut chosen: Option<&Arc<Route>> = None;
    for (route, verdict) in plan::routes(host, head, None, 0) {
        let verdict = match (verdict, chosen) {
            (Ok(()), Some(_)) => Err(Lost::Earlier),
            (verdict, _) => verdict,
        };
        match verdict {
            Ok(()) => {
                chosen = Some(route);
                said.say("route", Outcome::Chosen, &route.name, "the first that fits");
            }
            Err(lost) => said.say("route", Outcome::Lost, &route.name, why_lost(lost)),
        }
    }
    let Some(route) = chosen else {
        let why = "no route of the virtual host fits: 404 (NR)";
        return said.say("route", Outcome::Failed, &host.name, why);
    };
    if http_policy(manager, route, question, head, said) {
        act(snapshot, config, route, question, head, said);
    }
}

fn why_lost(lost: Lost<'_>) -> String {
    match lost {
        Lost::Path => "the path does not fit".to_owned(),
        Lost::Header(name) => format!("header {} does not fit", name.name),
        Lost::Query(name) => format!("query parameter {name} does not fit"),
        Lost::Metadata => "what filters learnt does not fit".to_owned(),
        Lost::NotGrpc => "only gRPC requests".to_owned(),
        Lost::Fraction => "only a share of requests, and the draw went against it".to_owned(),
        Lost::Earlier => "fits too, but an earlier route took the request".to_owned(),
    }
}

fn http_policy(
    manager: &HttpConnectionManager,
    route: &Route,
    question: &Question,
    head: &Head,
    said: &mut Said,
) -> bool {
    let overrides = filter::overrides(route, 0).map(|overrides| &**overrides);
    manager.filters.iter().all(|filter| {
        let Some((own, of_route)) = filter.on_route(overrides) else {
            return true;
        };
        let what = match own {
            FilterConfig::Rbac(own) => {
                let rules = rbac::rules(own, of_route);
                let verdict = rbac::judge(rules, head, question.facts());
                return judged(&verdict, "request", said);
            }
            FilterConfig::Fault(_) => "may delay the request, fail it or slow its response",
            FilterConfig::LocalRateLimit(_) => "refuses requests over its limit",
            FilterConfig::Cors(_) => "answers preflight requests of allowed origins",
            FilterConfig::HeaderMutation(_) => "may change headers",
            FilterConfig::Buffer(_) => "waits for the request's whole body",
        };
        said.say("filter", Outcome::Info, &filter.name, what);
        true
    })
}

fn act(
    snapshot: &Snapshot,
    config: &RouteConfig,
    route: &Route,
    question: &Question,
    head: &Head,
    said: &mut Said,
) {
    let forward = match &route.action {
        Action::Forward(forward) => forward,
        Action::Redirect(redirect) => {
            let why = format!("answered with a redirect, {}", redirect.status);
            return said.say("route", Outcome::Info, &route.name, why);
        }
        Action::Direct { status, .. } => {
            return said.say(
                "route",
                Outcome::Info,
                &route.name,
                format!("answered with {status}"),
            );
        }
    };
    if let ClusterSpecifier::Weighted { total, clusters } = &forward.target {
        let mut before = 0;
        for entry in clusters {
            let share = (entry.bound - before) as f64 * 100.0 / (*total).max(1) as f64;
            before = entry.bound;
            let name = usize::try_from(entry.cluster.0).ok();
            let name = name
                .and_then(|at| config.clusters.get(at))
                .map(|link| &*link.name);
            said.say(
                "cluster",
                Outcome::Info,
                name.unwrap_or_default(),
                format!("{share:.1} %"),
            );
        }
    }
    let chosen = plan::cluster(forward, &config.clusters, head, snapshot, 0);
    let name = chosen
        .cluster
        .as_ref()
        .map_or("", |cluster| &*cluster.name)
        .to_owned();
    cluster(&name, chosen.cluster.as_ref(), question, said);
    match &forward.retry {
        Some(retry) => {
            let why = format!("up to {} retries", retry.num_retries);
            said.say("retry", Outcome::Info, &route.name, why);
        }
        None => said.say("retry", Outcome::Info, &route.name, "no retries"),
    }
}
