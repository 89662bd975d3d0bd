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
use crate::config::listener::{FilterChain, TcpTarget, TerminalFilter};
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
    let mut said = Said::default();
    if answer == Some(OnDemandResponse::Unavailable) {
        let subject = question.destination.to_string();
        let why =
            "it may be in the mesh and the control plane did not answer: the connection is reset";
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

/// What all decisions about one connection share.
struct Way<'a> {
    snapshot: &'a Snapshot,
    question: &'a Question,
    listener: &'a Listener,
    chain: &'a FilterChain,
    /// As the accepting listener learns it.
    original_dst: Option<SocketAddr>,
}

fn walk(snapshot: &Snapshot, question: &Question, said: &mut Said) {
    let Some(entry) = entry::accepting(snapshot, question.direction(), question.destination) else {
        let why = "no listener takes connections in this direction";
        return said.say("listener", Outcome::Failed, "", why);
    };
    let original_dst = original_dst(entry, question);
    let listener = listener(snapshot, question, entry, said);
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
    let way = Way {
        snapshot,
        question,
        listener: &listener,
        chain,
        original_dst,
    };
    match &chain.terminal {
        TerminalFilter::Tunnel(_) => {
            let why = "connections inside this one are served as if they had come by themselves";
            said.say("chain", Outcome::Chosen, &chain.name, why);
        }
        TerminalFilter::Tcp(proxy) => tcp(&way, &proxy.target, said),
        TerminalFilter::Http(manager) => match &question.request {
            Some(request) => http::http(&way, manager, request, said),
            None => {
                let why = "the chain takes HTTP; explain was given an opaque connection";
                said.say("detection", Outcome::Failed, &chain.name, why);
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
    said: &mut Said,
) -> Arc<Listener> {
    let (listener, why) = match look_up(snapshot, entry, original_dst(entry, question)) {
        LookUp::Found(listener) => (listener, "it stands at the original destination".to_owned()),
        LookUp::Own => (
            entry.clone(),
            "its socket takes the connection, and it serves what it takes".to_owned(),
        ),
        LookUp::Unknown(destination) => (
            entry.clone(),
            format!("the control plane has no listener for {destination}: it is outside the mesh"),
        ),
    };
    said.say("listener", Outcome::Chosen, &listener.def.name, why);
    listener
}

fn network_policy(chain: &FilterChain, question: &Question, said: &mut Said) -> bool {
    let facts = question.facts();
    chain
        .rbac
        .iter()
        .all(|rbac| judged(&policy::judge(rbac, &facts), "connection", said))
}

/// Describes one filter's decision; returns whether it allows the request.
fn judged(decision: &policy::RbacDecision, what: &str, said: &mut Said) -> bool {
    if let Some(by) = &decision.would_refuse {
        let by = by.as_deref().unwrap_or("no policy allows it");
        let why = format!("shadow rules would deny the {what}: {by}");
        said.say("policy", Outcome::Info, "shadow rules", why);
    }
    match &decision.refused {
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

fn tcp(way: &Way<'_>, target: &TcpTarget, said: &mut Said) {
    if matches!(target, TcpTarget::Weighted(_)) {
        let why = "weighted: one draw of several is shown";
        said.say("route", Outcome::Info, "", why);
    }
    let link = dial::target(target, &mut fastrand::Rng::new())
        .and_then(|at| usize::try_from(at.0).ok())
        .and_then(|at| way.listener.clusters.get(at));
    match link {
        Some(link) => {
            let outcomes = cluster::Failing {
                unknown: "the connection is closed (NC)".to_owned(),
                no_endpoint: "the connection is closed (UH)",
            };
            cluster::cluster(&link.name, link.target.as_ref(), way, &outcomes, said);
        }
        None => said.say("cluster", Outcome::Failed, "", "the chain names no cluster"),
    }
}
