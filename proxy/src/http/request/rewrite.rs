//! A route's changes to the request sent upstream: path, host, and the expected time-out.

use std::time::Duration;

use super::stream_info::StreamInfo;
use crate::config::route::{
    HostRewrite, PathMatch, PathRewrite, Route, RouteAction, WeightedCluster,
};
use crate::message::head::HeaderId;

/// Rewrites path and host.
pub fn request(
    info: &mut StreamInfo,
    route: &Route,
    forward: &RouteAction,
    weighted: Option<&WeightedCluster>,
    timeout: Option<Duration>,
) {
    if let Some(path) = path(&forward.rewrite, &route.matches.path, info) {
        let original = info.request.path_and_query().to_vec();
        info.request.set(HeaderId::XEnvoyOriginalPath, &original);
        info.request.set_path_and_query(&path);
    }
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
        // The endpoint is not known yet; see the attempt.
        (None, HostRewrite::Auto | HostRewrite::None) => None,
    };
    if let Some(host) = host.filter(|host| !host.is_empty()) {
        if forward.append_x_forwarded_host {
            let original = info.request.authority().to_vec();
            info.request.append(HeaderId::XForwardedHost, &original);
        }
        info.request.set_authority(&host);
    }
    if let Some(timeout) = timeout {
        let mut buffer = itoa::Buffer::new();
        let millis = buffer.format(timeout.as_millis());
        let id = HeaderId::XEnvoyExpectedRqTimeoutMs;
        info.request.set(id, millis.as_bytes());
    }
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
