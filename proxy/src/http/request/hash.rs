//! The hash of a request, by which it chooses an endpoint. Source: Envoy's
//! `RouteAction.HashPolicy`.

use smallvec::SmallVec;

use super::matching;
use super::stream_info::{Downstream, StreamInfo};
use crate::config::hash::{HashCookie, HashInput, HashPolicy, HeaderRewrite, SetCookie};
use crate::config::route::RouteAction;
use crate::matcher::HeaderName;
use crate::message::cookie;
use crate::message::head::Head;
use crate::upstream::cluster::Cluster;
use crate::upstream::hash;

/// Values of a header for which nothing is allocated.
const FEW: usize = 4;

/// The hash of a request to `cluster`; `None`: the cluster does not balance by hash, or nothing is
/// there to be hashed. A cookie that has to be made is left for the response.
pub fn of(cluster: &Cluster, forward: &RouteAction, info: &mut StreamInfo) -> Option<u64> {
    if !cluster.lb.is_hash() {
        return None;
    }
    let policy = cluster.hash_policy.as_ref();
    by(policy.or(forward.hash_policy.as_ref())?, info)
}

fn by(policy: &HashPolicy, info: &mut StreamInfo) -> Option<u64> {
    let mut combined: Option<u64> = None;
    for rule in &policy.0 {
        let found = match &rule.by {
            HashInput::Header { name, rewrite } => header(name, rewrite.as_ref(), &info.request),
            HashInput::Cookie(cookie) => of_cookie(cookie, info),
            HashInput::SourceIp => Some(hash::source_ip(info.client.ip())),
            HashInput::QueryParameter(name) => {
                let value = matching::query_value(name, info.request.query());
                value.map(|value| hash::xx(value, 0))
            }
        };
        if let Some(found) = found {
            // Rotated, so that two equal rules do not cancel each other out.
            combined = Some(combined.unwrap_or(0).rotate_left(1) ^ found);
        }
        if rule.terminal && combined.is_some() {
            break;
        }
    }
    combined
}

/// The values are sorted: their order does not count.
fn header(name: &HeaderName, rewrite: Option<&HeaderRewrite>, head: &Head) -> Option<u64> {
    let values = head.get_all_named(name.id, name.name.as_bytes());
    if let Some(HeaderRewrite {
        pattern,
        substitution,
    }) = rewrite
    {
        let rewritten = values.map(|value| pattern.replace_all(value, substitution.as_bytes()));
        let mut rewritten: Vec<_> = rewritten.collect();
        rewritten.sort_unstable();
        let is_there = !rewritten.is_empty();
        return is_there.then(|| hash::xx_all(rewritten.iter().map(|value| &**value)));
    }
    let mut values: SmallVec<[&[u8]; FEW]> = values.collect();
    values.sort_unstable();
    match &*values {
        [] => None,
        [only] => Some(hash::xx(only, 0)),
        several => Some(hash::xx_all(several.iter().copied())),
    }
}

fn of_cookie(rule: &HashCookie, info: &mut StreamInfo) -> Option<u64> {
    let sent = cookie::value(&info.request, rule.name.as_bytes());
    if let Some(sent) = sent.filter(|value| !value.is_empty()) {
        return Some(hash::xx(sent, 0));
    }
    let made: &SetCookie = rule.made.as_ref()?;
    let value = made_value(&info.downstream);
    info.set_cookies.push(made.with(&value));
    Some(hash::xx(value.as_bytes(), 0))
}

/// The same for all requests of a connection, so that those under way at once get the same cookie.
fn made_value(downstream: &Downstream) -> String {
    let ends = format!("{}{}", downstream.peer, downstream.local);
    format!("{:016x}", hash::xx(ends.as_bytes(), 0))
}
