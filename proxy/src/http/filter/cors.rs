//! Cross-origin resource sharing: preflight requests are answered, responses are marked.
//! Source: Envoy's "CORS" filter; the Fetch standard, 3.2.

use std::sync::Arc;

use bytes::Bytes;

use super::FilterState;
use crate::config::filter::{CorsPolicy, FilterConfig};
use crate::config::route::{Action, Route};
use crate::http::request::local_reply;
use crate::http::request::local_reply::Reply;
use crate::http::request::stream_info::StreamInfo;
use crate::message::head::{Head, Method};

/// An origin that the policy allows.
pub struct Allowed {
    policy: Arc<CorsPolicy>,
    origin: Box<[u8]>,
}

/// The policy that applies; only routes have one.
pub fn policy<'a>(
    own: &'a Option<Arc<CorsPolicy>>,
    of_route: Option<&'a FilterConfig>,
) -> Option<&'a Arc<CorsPolicy>> {
    match of_route {
        Some(FilterConfig::Cors(of_route)) => of_route.as_ref(),
        _ => own.as_ref(),
    }
}

pub fn on_request(
    policy: Option<&Arc<CorsPolicy>>,
    route: Option<&Route>,
    place: usize,
    info: &mut StreamInfo,
) -> Option<Reply> {
    let policy = policy?;
    if !matches!(route?.action, Action::Forward(_)) || !policy.enabled.draw() {
        return None;
    }
    let origin = only(&info.request, b"origin").filter(|origin| !origin.is_empty())?;
    let is_preflight = info.request.method() == Method::Options
        && info
            .request
            .get_by_name(b"access-control-request-method")
            .is_some_and(|method| !method.is_empty());
    let allowed = is_allowed(policy, origin);
    let origin: Box<[u8]> = origin.into();
    if is_preflight && (allowed || policy.forward_not_matching == Some(false)) {
        let reply = preflight(policy, allowed.then_some(&*origin), info);
        keep(policy, origin, allowed, place, info);
        return Some(reply);
    }
    keep(policy, origin, allowed, place, info);
    None
}

fn keep(
    policy: &Arc<CorsPolicy>,
    origin: Box<[u8]>,
    allowed: bool,
    place: usize,
    info: &mut StreamInfo,
) {
    if allowed {
        let policy = policy.clone();
        let state = FilterState::Cors(Allowed { policy, origin });
        info.filters.states.push((place, state));
    }
}

/// The value of a header that is there once.
fn only<'a>(head: &'a Head, name: &[u8]) -> Option<&'a [u8]> {
    let mut values = head.get_all_by_name(name);
    values.next().filter(|_| values.next().is_none())
}

fn is_allowed(policy: &CorsPolicy, origin: &[u8]) -> bool {
    let fits =
        |matcher: &crate::matcher::StringMatch| matcher.matches(b"*") || matcher.matches(origin);
    policy.origins.iter().any(fits)
}

fn preflight(policy: &CorsPolicy, origin: Option<&[u8]>, info: &mut StreamInfo) -> Reply {
    let private_network = policy.private_network == Some(true)
        && info
            .request
            .get_by_name(b"access-control-request-private-network")
            == Some(b"true");
    // `*` allows what the request asks for: to requests with credentials it means nothing.
    let asked = |allowed: &str, wants: &[u8]| -> Box<[u8]> {
        match allowed {
            "*" => info.request.get_by_name(wants).unwrap_or_default().into(),
            allowed => allowed.as_bytes().into(),
        }
    };
    let methods = asked(&policy.methods, b"access-control-request-method");
    let headers = asked(&policy.headers, b"access-control-request-headers");
    let mut head = Head::new();
    head.set_version(info.version);
    head.set_status(200);
    if let Some(origin) = origin {
        head.set_named(b"access-control-allow-origin", origin);
    }
    if policy.credentials == Some(true) {
        head.set_named(b"access-control-allow-credentials", b"true");
    }
    for (name, value) in [
        (&b"access-control-allow-methods"[..], &*methods),
        (b"access-control-allow-headers", &*headers),
        (b"access-control-max-age", policy.max_age.as_bytes()),
    ] {
        if !value.is_empty() {
            head.set_named(name, value);
        }
    }
    if private_network {
        head.set_named(b"access-control-allow-private-network", b"true");
    }
    info.details = "cors_response".into();
    local_reply::finish(info, head, Bytes::new())
}

pub fn on_response(place: usize, info: &mut StreamInfo) {
    let StreamInfo {
        filters, response, ..
    } = info;
    let Some(FilterState::Cors(Allowed { policy, origin })) = filters.state(place) else {
        return;
    };
    response.set_named(b"access-control-allow-origin", origin);
    if policy.credentials == Some(true) {
        response.set_named(b"access-control-allow-credentials", b"true");
    }
    if !policy.expose.is_empty() {
        response.set_named(b"access-control-expose-headers", policy.expose.as_bytes());
    }
}
