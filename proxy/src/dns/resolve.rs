//! Mesh or elsewhere.

use std::net::IpAddr;
use std::time::Duration;

use futures_util::future::join_all;
use hickory_proto::op::ResponseCode;

use super::Settings;
use super::forward::{Transport, forward};
use super::question::Question;
use crate::config::demand::{OnDemandClient, OnDemandResource, OnDemandResponse};

/// Names with as many dots are complete (`ndots` of resolv.conf, as Kubernetes sets it).
const NDOTS: usize = 5;
/// Search suffixes tried.
const MAX_SEARCH: usize = 6;

/// The control plane's answer for a name.
pub(super) enum Verdict {
    Addresses(Vec<IpAddr>, Duration),
    /// Not the mesh's.
    Foreign,
    /// It may be the mesh's, and the control plane does not answer: never forwarded.
    Unknown,
}

/// Answers a question; `None`: no response is sent.
pub(super) async fn resolve(
    settings: &Settings,
    demand: Option<&OnDemandClient>,
    question: &Question,
    query: &[u8],
    transport: Transport,
) -> Option<Vec<u8>> {
    let verdict = match demand {
        Some(demand) if question.internet && is_host_name(&question.name) => {
            look_up(settings, demand, &question.name).await
        }
        _ => Verdict::Foreign,
    };
    let answer = match verdict {
        Verdict::Addresses(addresses, ttl) => {
            let ttl = u32::try_from(ttl.as_secs()).unwrap_or(u32::MAX);
            question.addresses(&addresses, ttl)?
        }
        Verdict::Unknown => question.code(ResponseCode::ServFail)?,
        Verdict::Foreign => elsewhere(settings, question, query, transport).await?,
    };
    match transport {
        Transport::Udp if answer.len() > question.udp_limit => question.truncated(),
        _ => Some(answer),
    }
}

async fn elsewhere(
    settings: &Settings,
    question: &Question,
    query: &[u8],
    transport: Transport,
) -> Option<Vec<u8>> {
    if settings.upstream.is_empty() {
        let code = match is_ours(settings, &question.name) {
            true => ResponseCode::NXDomain,
            false => ResponseCode::Refused,
        };
        return question.code(code);
    }
    match forward(&settings.upstream, query, transport).await {
        Ok(answer) => Some(answer),
        Err(error) => {
            tracing::debug!(%error, "no upstream resolver answers");
            question.code(ResponseCode::ServFail)
        }
    }
}

/// Looks up the name and its expansions by the search paths, all at once; the first in order wins.
async fn look_up(settings: &Settings, demand: &OnDemandClient, name: &str) -> Verdict {
    let candidates = candidates(settings, name);
    let asking = candidates
        .into_iter()
        .map(|name| demand.ask(OnDemandResource::Name(name)));
    let mut unavailable = false;
    for answer in join_all(asking).await {
        match answer {
            OnDemandResponse::Addresses { addresses, ttl } => {
                return Verdict::Addresses(addresses, ttl);
            }
            OnDemandResponse::Unavailable => unavailable = true,
            OnDemandResponse::Absent | OnDemandResponse::Found => {}
        }
    }
    match unavailable && (is_ours(settings, name) || !name.contains('.')) {
        true => Verdict::Unknown,
        false => Verdict::Foreign,
    }
}

fn candidates(settings: &Settings, name: &str) -> Vec<String> {
    let mut candidates = vec![name.to_owned()];
    if !is_ours(settings, name) && name.matches('.').count() < NDOTS {
        let search = settings.search.iter().take(MAX_SEARCH);
        candidates.extend(search.map(|suffix| format!("{name}.{suffix}")));
    }
    candidates.retain(|name| name.len() <= 253);
    candidates
}

/// Whether a name ends in one of the mesh's own suffixes.
fn is_ours(settings: &Settings, name: &str) -> bool {
    settings.own.iter().any(|suffix| {
        name.strip_suffix(suffix.as_str())
            .is_some_and(|rest| rest.ends_with('.'))
    })
}

/// Only names that a service can have are looked up at the control plane.
fn is_host_name(name: &str) -> bool {
    let label = |label: &str| {
        let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'_';
        !label.is_empty() && label.len() <= 63 && label.bytes().all(inner)
    };
    !name.is_empty() && name.len() <= 253 && name.split('.').all(label) && !is_reverse(name)
}

fn is_reverse(name: &str) -> bool {
    name.ends_with(".in-addr.arpa") || name.ends_with(".ip6.arpa")
}
