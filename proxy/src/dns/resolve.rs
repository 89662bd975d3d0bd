//! Mesh or elsewhere.

use std::sync::Arc;

use futures_util::future::join_all;
use hickory_proto::op::ResponseCode;

use super::DnsSettings;
use super::forward::{DnsTransport, forward};
use super::question::DnsQuestion;
use crate::config::demand::{OnDemandClient, OnDemandResource, OnDemandResponse};
use crate::config::name::NameRecords;

/// Names with as many dots are complete (`ndots` of resolv.conf, as Kubernetes sets it).
const NDOTS: usize = 5;
/// Search suffixes tried.
const MAX_SEARCH: usize = 6;

/// The control plane's answer for a name.
enum Resolution {
    Records(Arc<NameRecords>),
    /// Not the mesh's.
    Foreign,
    /// It may be the mesh's, and the control plane does not answer: never forwarded.
    Unknown,
}

/// Answers a question; `None`: no response is sent.
pub(super) async fn resolve(
    settings: &DnsSettings,
    demand: Option<&OnDemandClient>,
    question: &DnsQuestion,
    query: &[u8],
    transport: DnsTransport,
) -> Option<Vec<u8>> {
    let resolution = match demand {
        Some(demand) if question.internet && is_host_name(&question.name) => {
            look_up(settings, demand, &question.name).await
        }
        _ => Resolution::Foreign,
    };
    let answer = match resolution {
        Resolution::Records(records) => question.records(&records, transport)?,
        Resolution::Unknown => question.code(ResponseCode::ServFail)?,
        Resolution::Foreign => elsewhere(settings, question, query, transport).await?,
    };
    match answer.len() > usize::from(question.limit(transport)) {
        true => question.truncated(),
        false => Some(answer),
    }
}

async fn elsewhere(
    settings: &DnsSettings,
    question: &DnsQuestion,
    query: &[u8],
    transport: DnsTransport,
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

/// Looks up the name and its expansions by the search paths, all at once; the first in order that
/// has records is used, else the first that exists.
async fn look_up(settings: &DnsSettings, demand: &OnDemandClient, name: &str) -> Resolution {
    let candidates = candidates(settings, name);
    let asking = candidates
        .into_iter()
        .map(|name| demand.ask(OnDemandResource::Name(name)));
    let mut unavailable = false;
    let mut without_data = None;
    for answer in join_all(asking).await {
        match answer {
            OnDemandResponse::Name(records) if !records.is_empty() => {
                return Resolution::Records(records);
            }
            OnDemandResponse::Name(records) => without_data = without_data.or(Some(records)),
            OnDemandResponse::Unavailable => unavailable = true,
            OnDemandResponse::Absent | OnDemandResponse::Found => {}
        }
    }
    match without_data {
        Some(records) => Resolution::Records(records),
        None if unavailable && (is_ours(settings, name) || !name.contains('.')) => {
            Resolution::Unknown
        }
        None => Resolution::Foreign,
    }
}

fn candidates(settings: &DnsSettings, name: &str) -> Vec<String> {
    let mut candidates = vec![name.to_owned()];
    if !is_ours(settings, name) && name.matches('.').count() < NDOTS {
        // A single label before a suffix of ours is a namespace, and must not hide a host outside
        // of the mesh.
        let fits = |suffix: &&String| name.contains('.') || !settings.own.contains(suffix);
        let search = settings.search.iter().take(MAX_SEARCH).filter(fits);
        candidates.extend(search.map(|suffix| format!("{name}.{suffix}")));
    }
    candidates.retain(|name| name.len() <= 253);
    candidates
}

/// Whether a name is one of the mesh's own suffixes or ends in one.
fn is_ours(settings: &DnsSettings, name: &str) -> bool {
    settings.own.iter().any(|suffix| {
        name.strip_suffix(suffix.as_str())
            .is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
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
