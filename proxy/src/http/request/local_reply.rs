//! Local replies. Each carries its reason: response flag, details, `proxy-status` where that is
//! enabled, and a body with one sentence.

use std::borrow::Cow;
use std::sync::Arc;

use bytes::Bytes;

use super::error::{self, Blame, Failure};
use super::headers::{self, HeadSide};
use super::stream_info::StreamInfo;
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
    let mut text = match (failure.blame(), &info.endpoint) {
        (Blame::Upstream, Some(endpoint)) => {
            format!("{} ({})", answer.reason, endpoint.address)
        }
        _ => answer.reason,
    };
    if let Some(declared_by) = declared_by {
        text.push_str("; declared by ");
        text.push_str(&declared_by);
    }
    respond(info, head, answer.status, None, text)
}

/// Whether the response is for a caller's sidecar, which may send the request to another endpoint.
fn is_for_a_sidecar(info: &StreamInfo) -> bool {
    let downstream = &info.downstream;
    let is_authenticated = downstream
        .tls
        .as_deref()
        .is_some_and(ConnectionInfo::is_authenticated);
    is_authenticated && downstream.listener.def.direction == Direction::Inbound
}

/// Who declared what the port carries; before a cluster was chosen, that of the listener.
fn declared_by(info: &StreamInfo) -> Option<Arc<str>> {
    match &info.cluster {
        Some(cluster) => cluster.declared_by.clone(),
        None => info.downstream.listener.def.declared_by.clone(),
    }
}

/// Fills `info.response` with a status and a body that the configuration gives.
pub fn direct(info: &mut StreamInfo, status: u16, body: &Bytes) -> Reply {
    info.details = Cow::Borrowed("direct_response");
    info.local_reply = true;
    let mut head = Head::new();
    head.set_version(info.version);
    if info.is_grpc {
        let text = String::from_utf8_lossy(body).into_owned();
        return respond(info, head, status, None, text);
    }
    head.set_status(status);
    if !body.is_empty() {
        head.append(HeaderId::ContentType, b"text/plain");
    }
    finish(info, head, body.clone())
}

/// Fills `info.response` with a filter's response, with the route's edits. A gRPC call gets `grpc`
/// as its status, else the one that `status` maps to.
pub fn answer(
    info: &mut StreamInfo,
    status: u16,
    grpc: Option<u32>,
    text: &str,
    details: impl Into<Cow<'static, str>>,
) -> Reply {
    info.details = details.into();
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
        let code = grpc.unwrap_or_else(|| grpc_code(status).into()).to_string();
        head.append(HeaderId::GrpcStatus, code.as_bytes());
        if !text.is_empty() {
            head.append(HeaderId::GrpcMessage, &percent_encode(&text));
        }
        *info.response = head;
        return Reply { body: Bytes::new() };
    }
    head.set_status(status);
    if !text.is_empty() {
        head.append(HeaderId::ContentType, b"text/plain");
    }
    finish(info, head, text.into())
}

/// Fills `info.response` with this head.
pub fn finish(info: &mut StreamInfo, mut head: Head, body: Bytes) -> Reply {
    info.local_reply = true;
    let mut length = itoa::Buffer::new();
    let length = length.format(body.len());
    head.append(HeaderId::ContentLength, length.as_bytes());
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
    if let Some(endpoint) = &info.endpoint {
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

/// Envoy's mapping of HTTP statuses to gRPC's.
pub fn grpc_code(status: u16) -> u8 {
    match status {
        400 => 13,
        401 => 16,
        403 => 7,
        404 => 12,
        408 | 504 => 4,
        429 | 502 | 503 => 14,
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
