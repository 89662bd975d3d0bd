//! Local replies. Each carries its reason: response flag, details, `proxy-status` where that is
//! enabled, and a body that says it ([`reply_text`]).

use std::borrow::Cow;
use std::sync::Arc;

use bytes::Bytes;

use super::error::{self, Blame, Failure};
use super::headers::{self, HeadSide};
use super::stream_info::StreamInfo;
use super::{reply_text, response};
use crate::config::access_log::LogFormat;
use crate::config::listener::Direction;
use crate::config::local_reply::ResponseMapper;
use crate::message::grpc;
use crate::message::head::{Head, HeaderId};
use crate::telemetry::format::{passes, render_body};
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
    respond(info, head, answer.status, None, text.into())
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
    respond(info, head, status, None, body.clone())
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

/// Fills `info.response` with a filter's response, with the route's edits.
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
    let reply = respond(info, head, status, grpc, text.to_owned().into());
    headers::edit(info, HeadSide::Response, None);
    reply
}

/// Fills `info.response` with a redirect.
pub fn redirect(info: &mut StreamInfo, status: u16, location: &[u8]) -> Reply {
    info.details = Cow::Borrowed("direct_response");
    info.local_reply = true;
    let mut head = Head::new();
    head.set_version(info.version);
    head.append(HeaderId::Location, location);
    respond(info, head, status, None, Bytes::new())
}

/// A gRPC call gets `grpc` as its status, else the one that the response's status maps to.
fn respond(
    info: &mut StreamInfo,
    mut head: Head,
    status: u16,
    grpc: Option<u32>,
    body: Bytes,
) -> Reply {
    head.set_status(status);
    *info.response = head;
    let (body, content_type) = mapped(info, body);
    if info.is_grpc {
        // Trailers-only: the status travels in the head (gRPC over HTTP/2, Responses).
        let names_timeouts = gives_reasons(info);
        let head = &mut info.response;
        let code = grpc.unwrap_or_else(|| grpc_code(head.status(), names_timeouts).into());
        head.set_status(200);
        head.append(HeaderId::ContentType, b"application/grpc");
        head.append(HeaderId::GrpcStatus, code.to_string().as_bytes());
        if !body.is_empty() {
            head.append(HeaderId::GrpcMessage, &percent_encode(&body));
        }
        return Reply { body: Bytes::new() };
    }
    describe(&mut info.response, &body, content_type.as_bytes());
    Reply { body }
}

/// What `local_reply_config` makes of `info.response` and its body; the body, and its type.
fn mapped(info: &mut StreamInfo, mut body: Bytes) -> (Bytes, Cow<'static, str>) {
    const PLAIN: &str = "text/plain";
    let manager = info.manager.clone();
    let Some(replies) = &manager.local_replies else {
        return (body, PLAIN.into());
    };
    let mut format = replies.body_format.as_ref();
    let fits = |mapper: &&ResponseMapper| passes(&mapper.filter, &info.record());
    if let Some(mapper) = replies.mappers.iter().find(fits) {
        if let Some(own) = &mapper.body {
            body = own.clone();
        }
        headers::apply(info, HeadSide::Response, &mapper.headers);
        if let Some(status) = mapper.status {
            info.response.set_status(status);
        }
        format = mapper.body_format.as_ref().or(format);
    }
    let Some(format) = format else {
        return (body, PLAIN.into());
    };
    let mut made = Vec::new();
    let mut record = info.record();
    record.local_reply_body = Some(&body);
    render_body(&format.format, &record, &mut made);
    if info.is_grpc
        && made.last() == Some(&b'\n')
        && matches!(format.format, LogFormat::Json { .. })
    {
        made.pop();
    }
    (made.into(), format.content_type.to_string().into())
}

/// Fills `info.response` with this head, to which it adds what a body needs.
pub fn finish(info: &mut StreamInfo, mut head: Head, body: Bytes) -> Reply {
    info.local_reply = true;
    describe(&mut head, &body, b"text/plain");
    *info.response = head;
    Reply { body }
}

fn describe(head: &mut Head, body: &Bytes, content_type: &[u8]) {
    if !body.is_empty() {
        let mut length = itoa::Buffer::new();
        let length = length.format(body.len());
        head.append(HeaderId::ContentLength, length.as_bytes());
        head.append(HeaderId::ContentType, content_type);
    }
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

/// `names_timeouts`: a time that has passed is DEADLINE_EXCEEDED; Envoy's UNAVAILABLE has clients send
/// again what an app may have processed.
fn grpc_code(status: u16, names_timeouts: bool) -> u8 {
    match status {
        408 | 504 if names_timeouts => 4,
        status => grpc::status_of_http(status),
    }
}

/// `grpc-message` (gRPC over HTTP/2, Status-Message).
fn percent_encode(text: &[u8]) -> Vec<u8> {
    let mut encoded = Vec::with_capacity(text.len());
    for &byte in text {
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
        assert_eq!(percent_encode("50% é\n".as_bytes()), b"50%25 %C3%A9%0A");
        assert_eq!(quoted("a\"b\u{202e}\n"), "a\\\"b??");
    }
}
