//! A hypothetical connection or request, evaluated by the data path's own functions on the snapshot
//! in force: listener, chain, policy (here), HTTP (`http`), cluster and endpoint (`cluster`).
//! Nothing is sent, nothing counted, and load balancing does not advance.

use std::net::SocketAddr;
use std::sync::Arc;

use xds_proto::anyam::inspect::v1 as pb;
use xds_proto::anyam::inspect::v1::decision::Outcome;

mod cluster;
mod http;

use super::question::Question;
use crate::config::demand::{OnDemandClient, OnDemandResource, OnDemandResponse};
use crate::config::listener::{FilterChain, TcpProxy, TcpTarget, TerminalFilter};
use crate::listener::authorisation;
use crate::listener::chain;
use crate::listener::entry::{self, LookUp, look_up};
use crate::policy;
use crate::snapshot::Listener;
use crate::snapshot::{Snapshot, Store};
use crate::tcp::dial;

/// Fetches the listener of an outbound destination on demand, as its first connection would;
/// `None`: none is needed.
pub async fn fetch(
    store: &Store,
    demand: &OnDemandClient,
    asked: &pb::Explain,
) -> Option<OnDemandResponse> {
    let question = Question::parse(asked).ok()?;
    let destination = unknown(&store.load(), &question)?;
    Some(demand.ask(OnDemandResource::Listener(destination)).await)
}

fn unknown(snapshot: &Snapshot, question: &Question) -> Option<SocketAddr> {
    let entry = entry::accepting(snapshot, question.direction(), question.destination)?;
    match look_up(snapshot, entry, original_dst(entry, question)) {
        LookUp::Unknown(destination) => Some(destination),
        LookUp::Found(_) | LookUp::Own => None,
    }
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
    let mut decisions = Decisions::default();
    if answer == Some(OnDemandResponse::Unavailable) {
        let subject = question.destination.to_string();
        let why =
            "it may be in the mesh and the control plane did not answer: the connection is reset";
        decisions.push("listener", Outcome::Failed, &subject, why);
        return Ok(decisions.0);
    }
    walk(snapshot, &question, &mut decisions);
    Ok(decisions.0)
}

#[derive(Default)]
struct Decisions(Vec<pb::Decision>);

impl Decisions {
    fn push(&mut self, stage: &str, outcome: Outcome, subject: &str, reason: impl Into<String>) {
        self.0.push(pb::Decision {
            stage: stage.to_owned(),
            outcome: outcome.into(),
            subject: subject.to_owned(),
            reason: reason.into(),
        });
    }
}

/// The parts of the question that all decisions about one connection use.
struct ExplainContext<'a> {
    snapshot: &'a Snapshot,
    question: &'a Question,
    listener: &'a Listener,
    chain: &'a FilterChain,
    /// As the accepting listener learns it.
    original_dst: Option<SocketAddr>,
}

fn walk(snapshot: &Snapshot, question: &Question, decisions: &mut Decisions) {
    let Some(entry) = entry::accepting(snapshot, question.direction(), question.destination) else {
        let why = "no listener takes connections in this direction";
        return decisions.push("listener", Outcome::Failed, "", why);
    };
    let original_dst = original_dst(entry, question);
    let listener = listener(snapshot, question, entry, decisions);
    let protocol = question.protocol();
    let facts = chain::ChainMatchInput {
        destination: question.destination,
        source: question.source,
        protocol: &protocol,
    };
    let Some(chain) = chain::choose(&listener.def, &facts) else {
        let why = "no filter chain of the listener matches: the connection is closed";
        return decisions.push("chain", Outcome::Failed, &listener.def.name, why);
    };
    let how = match &chain.tls {
        Some(_) => "its criteria match; TLS is terminated here",
        None => "its criteria match; no TLS is terminated here",
    };
    decisions.push("chain", Outcome::Chosen, &chain.name, how);
    if !network_policy(chain, question, decisions) {
        return;
    }
    let context = ExplainContext {
        snapshot,
        question,
        listener: &listener,
        chain,
        original_dst,
    };
    match &chain.terminal {
        TerminalFilter::Tunnel(_) => {
            let why = "connections inside this one are served as if they had come by themselves";
            decisions.push("chain", Outcome::Chosen, &chain.name, why);
        }
        TerminalFilter::Tcp(proxy) => tcp(&context, proxy, decisions),
        TerminalFilter::Http(manager) => match &question.request {
            Some(request) => http::http(&context, manager, request, decisions),
            None => {
                let why = "the chain takes HTTP; explain was given an opaque connection";
                decisions.push("detection", Outcome::Failed, &chain.name, why);
            }
        },
    }
}

fn original_dst(entry: &Listener, question: &Question) -> Option<SocketAddr> {
    entry.def.original_dst.then_some(question.destination)
}

fn listener(
    snapshot: &Snapshot,
    question: &Question,
    entry: &Arc<Listener>,
    decisions: &mut Decisions,
) -> Arc<Listener> {
    let (listener, why) = match look_up(snapshot, entry, original_dst(entry, question)) {
        LookUp::Found(listener) => (
            listener,
            "it is bound to the original destination".to_owned(),
        ),
        LookUp::Own => (
            entry.clone(),
            "its socket takes the connection, and it serves what it takes".to_owned(),
        ),
        LookUp::Unknown(destination) => (
            entry.clone(),
            format!("the control plane has no listener for {destination}: it is outside the mesh"),
        ),
    };
    decisions.push("listener", Outcome::Chosen, &listener.def.name, why);
    listener
}

fn network_policy(chain: &FilterChain, question: &Question, decisions: &mut Decisions) -> bool {
    let addresses = policy::Addresses {
        peer: question.source,
        destination: question.destination,
    };
    authorisation::decisions(addresses, chain, question.tls.as_ref(), None)
        .all(|decision| push_policy(&decision, "connection", decisions))
}

/// Describes one filter's decision; returns whether it allows the request.
fn push_policy(decision: &policy::RbacDecision, what: &str, decisions: &mut Decisions) -> bool {
    if let Some(by) = &decision.shadow_denied {
        let by = by.policy().unwrap_or("no policy allows it");
        let why = format!("shadow rules would deny the {what}: {by}");
        decisions.push("policy", Outcome::Info, "shadow rules", why);
    }
    match &decision.denied {
        None => {
            let why = format!("the {what} is allowed");
            decisions.push("policy", Outcome::Allowed, "rules", why);
            true
        }
        Some(policy::Denial::Policy(by)) => {
            decisions.push(
                "policy",
                Outcome::Denied,
                by,
                format!("this policy denies the {what}"),
            );
            false
        }
        Some(policy::Denial::NoPolicyAllows) => {
            let why = format!("no policy allows the {what} for this caller");
            decisions.push("policy", Outcome::Denied, "default deny", why);
            false
        }
    }
}

fn tcp(context: &ExplainContext<'_>, proxy: &TcpProxy, decisions: &mut Decisions) {
    if matches!(proxy.target, TcpTarget::Weighted(_)) {
        let why = "weighted: one draw of several is shown";
        decisions.push("route", Outcome::Info, "", why);
    }
    let (target, subset) = dial::target(proxy, &mut fastrand::Rng::new()).unzip();
    let link = target
        .and_then(|at| usize::try_from(at.0).ok())
        .and_then(|at| context.listener.clusters.get(at));
    match link {
        Some(link) => {
            let outcomes = cluster::FailureTexts {
                unknown: "the connection is closed (NC)".to_owned(),
                no_endpoint: "the connection is closed (UH)",
            };
            cluster::cluster(
                &link.name,
                link.target
                    .as_ref()
                    .map(|cluster| (cluster, subset.flatten())),
                context,
                &outcomes,
                decisions,
            );
        }
        None => decisions.push("cluster", Outcome::Failed, "", "the chain names no cluster"),
    }
}
