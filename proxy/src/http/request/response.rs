//! The headers of a response that is forwarded or made here, and whether it has a body.

use bytes::Bytes;

use super::headers::{HeadSide, append_to_list, edit};
use super::stream_info::{StreamInfo, Times};
use crate::config::http::ServerHeader;
use crate::config::route::WeightedCluster;
use crate::dispatcher::date::DateCache;
use crate::http::filter;
use crate::http::forward::upgrade;
use crate::http::h1::{BodyLength, ResponseInfo};
use crate::message::head::{HeaderId, Method};
use crate::tls::ConnectionInfo;

/// Sets the headers of every response, local or from an upstream.
pub fn finish_response(info: &mut StreamInfo, date: &DateCache) {
    let StreamInfo {
        request,
        response,
        manager,
        ..
    } = info;
    // In Envoy's order.
    if !response.has(HeaderId::Date) {
        date.now(|now| response.append(HeaderId::Date, now));
    }
    match &manager.server_header {
        ServerHeader::Overwrite(name) => response.set(HeaderId::Server, name.as_bytes()),
        ServerHeader::AppendIfAbsent(name) if !response.has(HeaderId::Server) => {
            response.append(HeaderId::Server, name.as_bytes());
        }
        ServerHeader::AppendIfAbsent(_) | ServerHeader::PassThrough => {}
    }
    if let Some(via) = &manager.via {
        append_to_list(response, HeaderId::Via, via.as_bytes());
    }
    if manager.always_set_request_id_in_response
        && let Some(id) = request.get(HeaderId::XRequestId)
    {
        response.set(HeaderId::XRequestId, id);
    }
}

/// Removes from a response that was received what only a sidecar may say.
pub fn sanitise(info: &mut StreamInfo) {
    let tls = info.upstream.as_ref().and_then(|up| up.tls.as_deref());
    if !tls.is_some_and(ConnectionInfo::is_authenticated) {
        info.response.remove(HeaderId::XAnyamUnprocessed);
    }
}

/// Edits an upstream's response; returns its body's length.
pub fn finish_upstream(
    info: &mut StreamInfo,
    framing: &ResponseInfo,
    weighted: Option<&WeightedCluster>,
    date: &DateCache,
) -> BodyLength {
    info.details = "via_upstream".into();
    info.response.remove(HeaderId::XAnyamUnprocessed);
    if framing.tunnel {
        upgrade::answer(&info.request, &mut info.response);
        info.upgraded = true;
    }
    let Times {
        upstream_connected: connected,
        response_head: answered,
        ..
    } = info.times;
    if let Some(answered) = answered {
        let mut buffer = itoa::Buffer::new();
        let took = answered.saturating_duration_since(connected.unwrap_or(info.start));
        let took = buffer.format(took.as_millis());
        let id = HeaderId::XEnvoyUpstreamServiceTime;
        info.response.set(id, took.as_bytes());
    }
    for cookie in std::mem::take(&mut info.set_cookies) {
        info.response.append(HeaderId::SetCookie, &cookie);
    }
    edit(
        info,
        HeadSide::Response,
        weighted.map(|w| &w.response_headers),
    );
    count_attempts(info);
    let body = match framing.body {
        _ if framing.tunnel => BodyLength::Unknown,
        // Whatever the upstream's framing is.
        _ if is_bodiless(info) => BodyLength::None,
        BodyLength::UntilClose => BodyLength::Unknown,
        length => length,
    };
    filter::on_response(info, body);
    finish_response(info, date);
    match info.filters.changes_response() {
        true => BodyLength::Unknown,
        false => body,
    }
}

/// Says after how many attempts the response came, where that is configured.
pub fn count_attempts(info: &mut StreamInfo) {
    let host = info.virtual_host();
    if host.is_some_and(|host| host.include_attempt_count_in_response) {
        let mut buffer = itoa::Buffer::new();
        let count = buffer.format(info.attempts).as_bytes();
        info.response.set(HeaderId::XEnvoyAttemptCount, count);
    }
}

/// The length that a response made here is framed with.
pub fn length(info: &StreamInfo, body: &Bytes) -> BodyLength {
    match body.len() as u64 {
        0 => BodyLength::None,
        _ if is_bodiless(info) => BodyLength::None,
        length => BodyLength::Known(length),
    }
}

/// The response has no body, whatever lengths its head declares (RFC 9110 6.4.1).
pub fn is_bodiless(info: &StreamInfo) -> bool {
    let status = info.response.status();
    matches!(status, 204 | 304) || info.request.method() == Method::Head
}
