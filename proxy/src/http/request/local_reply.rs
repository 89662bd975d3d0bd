//! Local replies. Each carries its reason: response flag, details, `proxy-status` where that is
//! enabled, and a body that says it ([`reply_text`]).

use std::borrow::Cow;
use std::sync::Arc;

use bytes::Bytes;

use super::error::{self, Blame, Failure};
use super::headers::{self, HeadSide};
use super::stream_info::StreamInfo;
use super::{reply_text, response};
use crate::config::listener::Direction;
use crate::message::head::{Head, HeaderId};
use crate::tls::ConnectionInfo;

/// A response that was made here.
pub struct Reply {
    pub body: Bytes,
}

/// Fills `info.response` for a failure.
pub fn failure(info: &mut StreamInfo, failure: &Failure) -> Reply {
    let answer = failure.response();
    info.flags.insert(answer.flags);
    info.details = answer.details;
    info.denied |= matches!(failure, Failure::Denied(_));
    info.local_reply = true;
    let declared_by = match failure.may_be_misdeclared() {
        true => declared_by(info),
        false => None,
    };
    if let Some(declared_by) = &declared_by {
        info.details = error::with_declaration(&info.details, declared_by).into();
    }
    let mut head = Head::new();
    head.set_version(info.version);
    if info.manager.proxy_status {
        let status = proxy_status(info, failure, answer.error);
        head.append(HeaderId::ProxyStatus, status.as_bytes());
    }
    if matches!(failure, Failure::Overflow(_)) {
        head.append(HeaderId::XEnvoyOverloaded, b"true");
    }
    // Of earlier attempts it is not known.
    let is_only_attempt = info.attempts <= 1;
    if is_only_attempt && failure.reached_no_upstream() && is_for_a_sidecar(info) {
        head.append(HeaderId::XAnyamUnprocessed, b"true");
    }
    head.set_status(answer.status);
    let head = edited(info, head);
    let text = match (gives_reasons(info), declared_by) {
        (true, Some(declared_by)) => format!("{}; declared by {declared_by}", answer.reason),
        (true, None) => answer.reason,
        (false, _) => reply_text::of_envoy(failure, !is_only_attempt).into_owned(),
    };
    respond(info, head, answer.status, None, text)
}

/// See [`reply_text`].
fn gives_reasons(info: &StreamInfo) -> bool {
    info.downstream.listener.def.gives_reasons
}

/// Whether the response is for a caller's sidecar, which may send the request to another endpoint.
fn is_for_a_sidecar(info: &StreamInfo) -> bool {
    is_authenticated(info) && info.downstream.listener.def.direction == Direction::Inbound
}

fn is_authenticated(info: &StreamInfo) -> bool {
    let tls = info.downstream.tls.as_deref();
    tls.is_some_and(ConnectionInfo::is_authenticated)
}

/// Who declared what the port carries; before a cluster was chosen, that of the listener.
fn declared_by(info: &StreamInfo) -> Option<Arc<str>> {
    match &info.cluster {
        Some(cluster) => cluster.declared_by.clone(),
        None => info.downstream.listener.def.declared_by.clone(),
    }
}

/// Fills `info.response` with a status and a body that the configuration gives, with the route's edits.
pub fn direct(info: &mut StreamInfo, status: u16, body: &Bytes) -> Reply {
    info.details = Cow::Borrowed("direct_response");
    info.local_reply = true;
    let mut head = Head::new();
    head.set_version(info.version);
    head.set_status(status);
    let head = edited(info, head);
    if info.is_grpc {
        let text = String::from_utf8_lossy(body).into_owned();
        return respond(info, head, status, None, text);
    }
    finish(info, head, body.clone())
}

/// The route's edits of a head; as in Envoy, before what the body needs.
fn edited(info: &mut StreamInfo, head: Head) -> Head {
    *info.response = head;
    if info.route.is_some() {
        headers::edit(info, HeadSide::Response, None);
    }
    if info.cluster.is_some() {
        response::count_attempts(info);
    }
    std::mem::take(&mut *info.response)
}

/// Fills `info.response` with a filter's response, with the route's edits. A gRPC call gets `grpc`
/// as its status, else the one that `status` maps to.
pub fn answer(
    info: &mut StreamInfo,
    status: u16,
    grpc: Option<u32>,
    text: &str,
    details: &'static str,
) -> Reply {
    info.details = Cow::Borrowed(details);
    info.local_reply = true;
    let mut head = Head::new();
    head.set_version(info.version);
    let reply = respond(info, head, status, grpc, text.to_owned());
    headers::edit(info, HeadSide::Response, None);
    reply
}

/// Fills `info.response` with a redirect.
pub fn redirect(info: &mut StreamInfo, status: u16, location: &[u8]) -> Reply {
    info.details = Cow::Borrowed("direct_response");
    info.local_reply = true;
    let mut head = Head::new();
    head.set_version(info.version);
    head.set_status(status);
    head.append(HeaderId::Location, location);
    finish(info, head, Bytes::new())
}

fn respond(
    info: &mut StreamInfo,
    mut head: Head,
    status: u16,
    grpc: Option<u32>,
    text: String,
) -> Reply {
    if info.is_grpc {
        // Trailers-only: the status travels in the head (gRPC over HTTP/2, Responses).
        head.set_status(200);
        head.append(HeaderId::ContentType, b"application/grpc");
        let code = grpc.unwrap_or_else(|| grpc_code(status, gives_reasons(info)).into());
        head.append(HeaderId::GrpcStatus, code.to_string().as_bytes());
        if !text.is_empty() {
            head.append(HeaderId::GrpcMessage, &percent_encode(&text));
        }
        *info.response = head;
        return Reply { body: Bytes::new() };
    }
    head.set_status(status);
    finish(info, head, text.into())
}

/// Fills `info.response` with this head, to which it adds what a body needs.
pub fn finish(info: &mut StreamInfo, mut head: Head, body: Bytes) -> Reply {
    info.local_reply = true;
    if !body.is_empty() {
        let mut length = itoa::Buffer::new();
        let length = length.format(body.len());
        head.append(HeaderId::ContentLength, length.as_bytes());
        head.append(HeaderId::ContentType, b"text/plain");
    }
    *info.response = head;
    Reply { body }
}

/// RFC 9209: the hop, what failed, on which try.
fn proxy_status(info: &StreamInfo, failure: &Failure, error: &str) -> String {
    let side = match failure.blame() {
        Blame::Downstream => "downstream",
        Blame::Here => "proxy",
        Blame::Upstream => "upstream",
    };
    let hop = &info.downstream.listener.def.name;
    let mut value = format!("\"anyam {}\"; error={error}; side={side}", quoted(hop));
    // Addresses are for the app itself and for peers in the mesh.
    if let Some(endpoint) = &info.endpoint
        && gives_reasons(info)
        && (is_authenticated(info) || info.downstream.listener.def.direction == Direction::Outbound)
    {
        value.push_str(&format!("; next-hop=\"{}\"", endpoint.address));
    }
    if info.attempts > 0 {
        value.push_str(&format!("; attempts={}", info.attempts));
    }
    value.push_str(&format!("; details=\"{}\"", quoted(&info.details)));
    value
}

/// What may stand in a structured field's string.
fn quoted(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '"' | '\\' => safe.extend(['\\', c]),
            ' '..='~' => safe.push(c),
            _ => safe.push('?'),
        }
    }
    safe
}

/// Envoy's mapping of HTTP statuses to gRPC's. `names_timeouts`: a time that has passed is
/// DEADLINE_EXCEEDED; Envoy's UNAVAILABLE has clients send again what an app may have processed.
pub fn grpc_code(status: u16, names_timeouts: bool) -> u8 {
    match status {
        408 | 504 if names_timeouts => 4,
        400 => 13,
        401 => 16,
        403 => 7,
        404 => 12,
        429 | 502..=504 => 14,
        _ => 2,
    }
}

/// `grpc-message` (gRPC over HTTP/2, Status-Message).
fn percent_encode(text: &str) -> Vec<u8> {
    let mut encoded = Vec::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b' '..=b'~' if byte != b'%' => encoded.push(byte),
            _ => encoded.extend_from_slice(format!("%{byte:02X}").as_bytes()),
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_made_safe() {
        assert_eq!(percent_encode("50% é\n"), b"50%25 %C3%A9%0A");
        assert_eq!(quoted("a\"b\u{202e}\n"), "a\\\"b??");
    }
}
