//! Heads converted to and from HTTP/2's types.

use std::sync::LazyLock;

use http::header::{HeaderMap, HeaderName, HeaderValue};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{Request, Response, Uri};

use super::super::h1::{BodyLength, Framing, TunnelRequest, is_allowed_trailer};
use crate::message::fault::Fault;
use crate::message::head::{FieldRef, Head, HeaderId, IdSet, Method, TargetForm, Version};
use crate::message::header_case;
use crate::message::header_id::NAMES;

/// Bounds on a received head: decoded bytes (32 per field on top, as HPACK counts) and fields,
/// cookie crumbs each for itself.
#[derive(Clone, Copy)]
pub struct HeadBounds {
    pub bytes: usize,
    pub fields: usize,
}

/// Fields that are added here, and bytes of a usual head: reserved at once.
const OWN_FIELDS: usize = 8;
const USUAL_BYTES: usize = 512;

/// Fields whose value no other request has. They are never indexed (RFC 7541 6.2.3): in HPACK's
/// table they would evict reusable entries, and each would be compared with all others of its name.
const UNIQUE: IdSet = IdSet::of(&[
    HeaderId::B3,
    HeaderId::Traceparent,
    HeaderId::XB3ParentSpanId,
    HeaderId::XB3SpanId,
    HeaderId::XB3TraceId,
    HeaderId::XRequestId,
]);

/// A received request into `head`, which is empty. `respell`: header name case is transferred, as
/// agreed on by ALPN.
pub fn request_in(
    head: &mut Head,
    parts: http::request::Parts,
    ended: bool,
    bounds: HeadBounds,
    respell: bool,
) -> Result<Framing, Fault> {
    head.reserve(parts.headers.len().saturating_add(OWN_FIELDS), USUAL_BYTES);
    head.set_version(Version::Http2);
    head.set_method(parts.method.as_str().as_bytes());
    let te_trailers = parts.headers.get(http::header::TE).is_some();
    let connect = head.method() == Method::Connect;
    let protocol = parts.extensions.get::<h2::ext::Protocol>();
    target_in(
        head,
        parts.uri.into_parts(),
        &parts.headers,
        connect && protocol.is_none(),
    )?;
    if let (true, Some(protocol)) = (connect, protocol) {
        // An upgrade is what HTTP/1 makes of it from here on, as in Envoy's codec: one method for
        // routes, policy, logs and the upstream.
        head.set_method(b"GET");
        head.append(HeaderId::Upgrade, protocol.as_str().as_bytes());
    }
    let length = fields_in(head, &parts.headers, bounds, respell)?;
    let body = match (ended, length) {
        (true, _) => BodyLength::None,
        (false, Some(length)) => BodyLength::Known(length),
        (false, None) => BodyLength::Unknown,
    };
    Ok(Framing {
        body,
        keep_alive: true,
        expect_continue: take_expectation(head),
        tunnel: match (connect, protocol) {
            (true, None) => TunnelRequest::Connect,
            (true, Some(_)) => TunnelRequest::Upgrade,
            _ => TunnelRequest::None,
        },
        te_trailers,
    })
}

/// Scheme, authority and path, checked as strictly as HTTP/1's codec does. The exception is a fragment:
/// h2 removes it from `:path`, so it cannot be refused.
fn target_in(
    head: &mut Head,
    uri: http::uri::Parts,
    headers: &HeaderMap,
    connect: bool,
) -> Result<(), Fault> {
    if let Some(scheme) = &uri.scheme {
        let scheme = scheme.as_str().to_ascii_lowercase();
        if scheme != "http" && scheme != "https" {
            return Err(Fault::UnsupportedScheme);
        }
        head.set_scheme(scheme.as_bytes());
    }
    // `:authority` takes precedence; a Host that differs from it is refused, as a smuggling
    // attempt.
    let mut hosts = headers.get_all(http::header::HOST).iter();
    let authority = uri.authority.as_ref().map(|it| it.as_str().as_bytes());
    match (authority, hosts.next(), hosts.next()) {
        (_, _, Some(_)) => return Err(Fault::RepeatedHost),
        (Some(authority), Some(host), None) if authority != host.as_bytes() => {
            return Err(Fault::RepeatedHost);
        }
        (Some(authority), _, None) => head.set_authority(authority),
        (None, Some(host), None) => head.set_authority(host.as_bytes()),
        (None, None, None) => return Err(Fault::MissingHost),
    }
    if connect {
        head.set_form(TargetForm::Authority);
        return Ok(());
    }
    match uri.path_and_query.as_ref().map_or("", |path| path.as_str()) {
        "*" if head.method() == Method::Options => head.set_form(TargetForm::Asterisk),
        path if path.starts_with('/') => {}
        _ => return Err(Fault::InvalidTarget),
    }
    if let Some(path) = &uri.path_and_query {
        head.set_path_and_query(path.as_str().as_bytes());
    }
    Ok(())
}

/// A received response's head into `head`; its declared length.
pub fn response_in(
    head: &mut Head,
    status: http::StatusCode,
    headers: &HeaderMap,
    bounds: HeadBounds,
    respell: bool,
) -> Result<Option<u64>, Fault> {
    head.clear();
    head.reserve(headers.len().saturating_add(OWN_FIELDS), USUAL_BYTES);
    head.set_version(Version::Http2);
    head.set_status(status.as_u16());
    fields_in(head, headers, bounds, respell)
}

/// Received trailers. Fields about the message's framing, route or sender are removed.
pub fn trailers_in(head: &mut Head, headers: &HeaderMap) {
    head.clear();
    for (name, value) in headers {
        let (name, value) = (name.as_str().as_bytes(), value.as_bytes());
        let id = HeaderId::of(name);
        if is_allowed_trailer(FieldRef { id, name, value }) {
            head.append_token(id, name, value);
        }
    }
}

fn fields_in(
    head: &mut Head,
    headers: &HeaderMap,
    bounds: HeadBounds,
    respell: bool,
) -> Result<Option<u64>, Fault> {
    if headers.len() > bounds.fields {
        return Err(Fault::TooManyFields);
    }
    let mut bytes = head
        .path_and_query()
        .len()
        .saturating_add(head.authority().len());
    let mut cookie = Vec::new();
    let mut length = None;
    for (name, value) in headers {
        let (name, value) = (name.as_str().as_bytes(), value.as_bytes());
        bytes = [name.len(), value.len(), 32]
            .iter()
            .fold(bytes, |sum, part| sum.saturating_add(*part));
        let id = HeaderId::of(name);
        match id {
            HeaderId::Te | HeaderId::Host => continue,
            HeaderId::Cookie => {
                // Crumbs become one field again (RFC 9113 8.2.3).
                if !cookie.is_empty() {
                    cookie.extend_from_slice(b"; ");
                }
                cookie.extend_from_slice(value);
                continue;
            }
            HeaderId::ContentLength => {
                length = Some(content_length(value).ok_or(Fault::InvalidContentLength)?);
            }
            HeaderId::XAnyamHeaderCase if !respell => continue,
            _ => {}
        }
        head.append_token(id, name, value);
    }
    if !cookie.is_empty() {
        head.append(HeaderId::Cookie, &cookie);
    }
    if bytes > bounds.bytes {
        return Err(Fault::HeadTooLarge);
    }
    if respell {
        header_case::apply(head);
    }
    Ok(length)
}

fn content_length(value: &[u8]) -> Option<u64> {
    if value.is_empty() || !value.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(value).ok()?.parse().ok()
}

fn take_expectation(head: &mut Head) -> bool {
    let expects = head
        .get(HeaderId::Expect)
        .is_some_and(|value| value.eq_ignore_ascii_case(b"100-continue"));
    expects && head.remove(HeaderId::Expect)
}

/// A request to send. `None`: something in it is not allowed in HTTP/2.
pub fn request_out(head: &Head, info: &Framing, spell: bool) -> Option<Request<()>> {
    let mut request = Request::new(());
    let mut upgrade = None;
    match info.tunnel {
        TunnelRequest::None => {
            *request.method_mut() = http::Method::from_bytes(head.method_name()).ok()?;
        }
        TunnelRequest::Connect => *request.method_mut() = http::Method::CONNECT,
        TunnelRequest::Upgrade => {
            // RFC 8441: the upgrade's name travels as `:protocol` of an extended CONNECT.
            *request.method_mut() = http::Method::CONNECT;
            let name = head.get(HeaderId::Upgrade)?;
            upgrade = Some(std::str::from_utf8(name).ok()?.to_ascii_lowercase());
        }
    }
    let mut uri = Uri::default().into_parts();
    uri.authority = Some(Authority::from_maybe_shared(head.shared(head.authority)).ok()?);
    if info.tunnel != TunnelRequest::Connect {
        let https = head.scheme() == b"https";
        uri.scheme = Some(if https { Scheme::HTTPS } else { Scheme::HTTP });
        let path = head.shared(head.path);
        uri.path_and_query = Some(PathAndQuery::from_maybe_shared(path).ok()?);
    } else {
        uri.path_and_query = None;
    }
    *request.uri_mut() = Uri::from_parts(uri).ok()?;
    if let Some(name) = upgrade {
        let protocol = h2::ext::Protocol::from(name.as_str());
        request.extensions_mut().insert(protocol);
    }
    *request.version_mut() = http::Version::HTTP_2;
    let skip_length = info.tunnel != TunnelRequest::None;
    fields_out(head, request.headers_mut(), skip_length, spell)?;
    if info.te_trailers {
        let trailers = HeaderValue::from_static("trailers");
        request.headers_mut().insert(http::header::TE, trailers);
    }
    Some(request)
}

/// A response to send. `None`: something in it is not allowed in HTTP/2.
pub fn response_out(head: &Head, spell: bool) -> Option<Response<()>> {
    let mut response = Response::new(());
    // An upgrade that HTTP/1 agreed to with 101 is plain success here (RFC 8441 5).
    let (status, tunnel) = match head.status() {
        101 => (200, true),
        status => (status, false),
    };
    *response.status_mut() = http::StatusCode::from_u16(status).ok()?;
    *response.version_mut() = http::Version::HTTP_2;
    fields_out(head, response.headers_mut(), tunnel, spell)?;
    Some(response)
}

pub fn trailers_out(head: &Head) -> HeaderMap {
    let mut map = HeaderMap::with_capacity(head.len());
    // What cannot be a trailer is left out; framing does not depend on it.
    let _ = fields_out(head, &mut map, true, false);
    map
}

fn fields_out(head: &Head, map: &mut HeaderMap, skip_length: bool, spell: bool) -> Option<()> {
    map.reserve(head.len().saturating_add(1));
    for (index, field) in head.iter().enumerate() {
        match field.id {
            HeaderId::Host | HeaderId::XAnyamHeaderCase => continue,
            HeaderId::ContentLength if skip_length => continue,
            id if id.is_hop_by_hop() => continue,
            _ => {}
        }
        let name = match name_of(field.id) {
            Some(name) => name.clone(),
            // The handshake's proof belongs to HTTP/1 (RFC 8441 5).
            None if is_websocket_proof(field.name) => continue,
            None => HeaderName::from_bytes(field.name).ok()?,
        };
        let mut value = HeaderValue::from_maybe_shared(head.value_bytes(index)?).ok()?;
        value.set_sensitive(UNIQUE.contains(field.id));
        map.append(name, value);
    }
    if spell {
        let mut list = Vec::new();
        header_case::encode(head, &mut list);
        if !list.is_empty() {
            let name = name_of(HeaderId::XAnyamHeaderCase)?;
            map.insert(name, HeaderValue::from_bytes(&list).ok()?);
        }
    }
    Some(())
}

fn is_websocket_proof(name: &[u8]) -> bool {
    name.eq_ignore_ascii_case(b"sec-websocket-key")
        || name.eq_ignore_ascii_case(b"sec-websocket-accept")
}

/// Well-known names as the `http` crate's type, made once; none for pseudo-headers.
static HTTP_NAMES: LazyLock<Vec<Option<HeaderName>>> = LazyLock::new(|| {
    let name = |name: &&'static str| HeaderName::from_bytes(name.as_bytes()).ok();
    NAMES.iter().map(name).collect()
});

fn name_of(id: HeaderId) -> Option<&'static HeaderName> {
    HTTP_NAMES.get(id as usize)?.as_ref()
}
