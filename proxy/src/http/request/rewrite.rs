//! A route's changes to the request sent upstream: path and host, after its header edits; and the
//! `x-envoy-` headers that carry the attempt count and the timeout.

use std::time::Duration;

use super::headers::append_to_list;
use super::stream_info::StreamInfo;
use crate::config::route::{
    HostRewrite, PathMatch, PathRewrite, Route, RouteAction, WeightedCluster,
};
use crate::message::head::{Head, HeaderId};

/// Says how long the upstream may take, and, where that is configured, which attempt this is.
pub fn announce(info: &mut StreamInfo, forward: &RouteAction, timeout: Option<Duration>) {
    expect(info, forward, timeout);
    // Set again by each attempt, at the same place.
    if info
        .virtual_host()
        .is_some_and(|host| host.include_attempt_count)
    {
        info.request.set(HeaderId::XEnvoyAttemptCount, b"1");
    }
}

/// Says how long the upstream may take: what is left for the request, but no more than an attempt may.
pub fn expect(info: &mut StreamInfo, forward: &RouteAction, left: Option<Duration>) {
    let of_try = forward
        .retry
        .as_ref()
        .and_then(|retry| retry.per_try_timeout);
    if let Some(timeout) = left.into_iter().chain(of_try).min() {
        let mut buffer = itoa::Buffer::new();
        let millis = buffer.format(timeout.as_millis());
        let id = HeaderId::XEnvoyExpectedRqTimeoutMs;
        info.request.set(id, millis.as_bytes());
    }
}

/// Rewrites path and host.
pub fn request(
    info: &mut StreamInfo,
    route: &Route,
    forward: &RouteAction,
    weighted: Option<&WeightedCluster>,
) {
    if let Some(path) = path(&forward.rewrite, &route.matches.path, info) {
        let original = info.request.path_and_query().to_vec();
        info.request.set(HeaderId::XEnvoyOriginalPath, &original);
        info.request.set_path_and_query(&path);
    }
    if let Some(host) = host(info, forward, weighted) {
        authority(&mut info.request, &host, forward);
    }
}

/// The rewritten host; `None`: unchanged, or, by `auto_host_rewrite`, that of an endpoint which is not
/// known yet.
fn host(
    info: &StreamInfo,
    forward: &RouteAction,
    weighted: Option<&WeightedCluster>,
) -> Option<Vec<u8>> {
    let host = match (
        weighted.and_then(|w| w.host_rewrite.as_deref()),
        &forward.host_rewrite,
    ) {
        (Some(literal), _) => Some(literal.as_bytes().to_vec()),
        (None, HostRewrite::Literal(literal)) => Some(literal.as_bytes().to_vec()),
        (None, HostRewrite::Header(name)) => info
            .request
            .get_all_named(name.id, name.name.as_bytes())
            .next()
            .map(<[u8]>::to_vec),
        (
            None,
            HostRewrite::PathRegex {
                pattern,
                substitution,
            },
        ) => Some(
            pattern
                .replace(info.request.path(), substitution.as_bytes())
                .into_owned(),
        ),
        (None, HostRewrite::Auto | HostRewrite::None) => None,
    };
    host.filter(|host| !host.is_empty())
}

/// Sets another host, and keeps the one that came.
pub fn authority(head: &mut Head, host: &[u8], forward: &RouteAction) {
    let original = head.authority().to_vec();
    head.set(HeaderId::XEnvoyOriginalHost, &original);
    if forward.append_x_forwarded_host {
        append_to_list(head, HeaderId::XForwardedHost, &original);
    }
    head.set_authority(host);
}

/// Whether [`request`], or the attempt, may change path or host.
pub fn may_rewrite(forward: &RouteAction, weighted: Option<&WeightedCluster>) -> bool {
    !matches!(forward.rewrite, PathRewrite::None)
        || !matches!(forward.host_rewrite, HostRewrite::None)
        || weighted.is_some_and(|entry| entry.host_rewrite.is_some())
}

/// The rewritten path and query; `None`: unchanged. A full path with a query of its own replaces
/// the request's query.
pub fn path(rewrite: &PathRewrite, matched: &PathMatch, info: &StreamInfo) -> Option<Vec<u8>> {
    let path = info.request.path();
    let mut new = match rewrite {
        PathRewrite::None => return None,
        PathRewrite::Prefix(to) => {
            let length = match matched {
                PathMatch::Prefix(prefix) | PathMatch::SeparatedPrefix(prefix) => prefix.len(),
                PathMatch::Exact(_) => path.len(),
                PathMatch::Regex(_) | PathMatch::Connect => return None,
            };
            let mut new = to.as_bytes().to_vec();
            new.extend_from_slice(path.get(length..).unwrap_or_default());
            new
        }
        PathRewrite::Full(to) => to.as_bytes().to_vec(),
        PathRewrite::Regex {
            pattern,
            substitution,
        } => pattern
            .replace_all(path, substitution.as_bytes())
            .into_owned(),
    };
    if new.first() != Some(&b'/') {
        new.insert(0, b'/');
    }
    if let Some(query) = info.request.query().filter(|_| !rewrite.has_query()) {
        new.push(b'?');
        new.extend_from_slice(query);
    }
    Some(new)
}
