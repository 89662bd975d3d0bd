//! JSON Web Tokens: requests must have those that a rule or their route requires. Source: Envoy's "JWT
//! Authentication" filter, whose responses and statuses these are.
//!
//! - this file: the requirement of a request, and the answer to one without the tokens for it
//! - `locate`: the tokens of a request; `check`: one token by its provider; `verify`: all of a requirement;
//!   `forward`: what verified tokens leave in the request and its metadata
//! - `fetch`: waits for keys that have to be fetched, before anything is verified

mod check;
mod fetch;
mod forward;
mod locate;
mod verify;

pub use self::fetch::{FetchedKeySets, missing};
pub use self::verify::verify;
use crate::config::filter::{FilterConfig, JwtAuthn, JwtAuthnOverride, JwtRequirement};
use crate::http::request::local_reply;
use crate::http::request::local_reply::Reply;
use crate::http::request::plan;
use crate::http::request::stream_info::StreamInfo;
use crate::jwt::JwtStatus;
use crate::message::head::{Head, HeaderId, Heads, Method};
use crate::metrics::ResponseFlags;
use crate::worker::Worker;

/// Bytes of the path in `www-authenticate`.
const LONGEST_PATH: usize = 256;

/// Takes from the request the headers that only the filter sets.
fn sanitise(own: &JwtAuthn, info: &mut StreamInfo, heads: &Heads) {
    for name in &own.reserved {
        let mut values = info.request.get_all_named(name.id, name.name.as_bytes());
        if values.next().is_some() {
            info.keep_authorised_head(heads);
            info.request.remove_named(name.name.as_bytes());
        }
    }
}

/// What the request must have; `None`: nothing. Counts those, and preflight requests that pass.
///
/// # Errors
/// With the answer, when its route names a requirement that the filter does not have.
pub fn required<'a>(
    own: &'a JwtAuthn,
    of_route: Option<&FilterConfig>,
    info: &mut StreamInfo,
    worker: &Worker,
) -> Result<Option<&'a JwtRequirement>, Reply> {
    sanitise(own, info, &worker.heads);
    let required = if own.bypass_cors_preflight && is_preflight(&info.request) {
        own.metrics.cors_preflight_bypassed.inc();
        None
    } else {
        match of_route {
            Some(FilterConfig::JwtAuthnOfRoute(JwtAuthnOverride::Disabled)) => None,
            Some(FilterConfig::JwtAuthnOfRoute(JwtAuthnOverride::Requirement(name))) => {
                let mut all = own.requirements.iter();
                let found = all.find(|(known, _)| known == name);
                let Some((_, requirement)) = found else {
                    return Err(refuse_unknown(own, name, info));
                };
                Some(requirement)
            }
            _ => {
                let mut rules = own.rules.iter();
                let rule = rules.find(|rule| plan::matches(&rule.matches, &info.request));
                rule.and_then(|rule| rule.requirement.as_ref())
            }
        }
    };
    if required.is_none() {
        own.metrics.allowed.inc();
    }
    Ok(required)
}

fn is_preflight(head: &Head) -> bool {
    let has = |value: Option<&[u8]>| value.is_some_and(|value| !value.is_empty());
    head.method() == Method::Options
        && has(head.get(HeaderId::Origin))
        && has(head.get_by_name(b"access-control-request-method"))
}

/// The answer to a request whose tokens are not those required. `path`: as it came, where it was changed.
fn refuse(own: &JwtAuthn, status: JwtStatus, path: Option<&[u8]>, info: &mut StreamInfo) -> Reply {
    let code = match status {
        JwtStatus::AudienceNotAllowed => 403,
        _ => 401,
    };
    let challenge = (!own.strip_failure_response).then(|| challenge(status, path, &info.request));
    let text = status.message();
    let reply = deny(own, code, text, text, info);
    if let Some(challenge) = challenge {
        info.response.set(HeaderId::WwwAuthenticate, &challenge);
    }
    reply
}

/// `www-authenticate` (RFC 6750, 3).
fn challenge(status: JwtStatus, path: Option<&[u8]>, head: &Head) -> Vec<u8> {
    let path = path.unwrap_or(head.path_and_query());
    let path = path.get(..LONGEST_PATH).unwrap_or(path);
    let mut value = b"Bearer realm=\"".to_vec();
    for part in [head.scheme(), b"://", head.authority(), path, b"\""] {
        value.extend_from_slice(part);
    }
    if status != JwtStatus::Missing {
        value.extend_from_slice(b", error=\"invalid_token\"");
    }
    value
}

/// The answer where a route names a requirement that the filter does not have.
fn refuse_unknown(own: &JwtAuthn, name: &str, info: &mut StreamInfo) -> Reply {
    let mut names: Vec<&str> = own.requirements.iter().map(|(name, _)| &**name).collect();
    names.sort_unstable();
    let known = names.join(",");
    let why = format!("Wrong requirement_name: {name}. It should be one of [{known}]");
    let text = format!("Failed JWT authentication: {why}");
    deny(own, 403, &text, &why, info)
}

fn deny(own: &JwtAuthn, code: u16, text: &str, why: &str, info: &mut StreamInfo) -> Reply {
    own.metrics.denied.inc();
    info.denied = true;
    let details = format!("jwt_authn_access_denied{{{}}}", why.replace(' ', "_"));
    let text = if own.strip_failure_response { "" } else { text };
    local_reply::answer(info, code, None, text, details)
}

/// The answer to a request with a verified token, of whose claims one cannot be a header's value.
fn refuse_claim(own: &JwtAuthn, header: &str, info: &mut StreamInfo) -> Reply {
    own.metrics.denied.inc();
    info.flags.insert(ResponseFlags::DOWNSTREAM_PROTOCOL_ERROR);
    let text = format!("invalid header value for: {header}");
    let details = format!(
        "filter_removed_required_request_headers{{{}}}",
        text.replace(' ', "_")
    );
    local_reply::answer(info, 503, None, &text, details)
}
