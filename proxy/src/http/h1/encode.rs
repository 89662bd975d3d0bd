//! Encodes heads. Unchanged runs of a received head are written as they were received, in one piece
//! each.

use super::out::{COPY_MAX, Out};
use super::{BodyLength, Framing, TunnelRequest};
use crate::message::head::{Field, Head, HeaderId, Method, Span, TargetForm, Version};

/// How a head is written.
#[derive(Clone, Copy, Debug)]
pub struct Spelling {
    /// Names as received or configured; else in lower case, as Envoy writes them.
    pub preserve_case: bool,
    /// A response's reason phrase as received; else the registered one.
    pub forward_reason: bool,
}

impl Default for Spelling {
    fn default() -> Self {
        Self {
            preserve_case: true,
            forward_reason: true,
        }
    }
}

/// How a body will be framed on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BodyFraming {
    /// No framing field, no body.
    None,
    /// No body, but a Content-Length that is there stays (HEAD, 304).
    Described,
    Length(u64),
    Chunked,
    UntilClose,
    /// Opaque from here on.
    Tunnel,
}

/// The options of the Connection field.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Persistence {
    pub close: bool,
    pub keep_alive: bool,
    pub te_trailers: bool,
}

/// Fields that the encoder decides on itself.
const OWN: u128 = HeaderId::Connection.bit()
    | HeaderId::KeepAlive.bit()
    | HeaderId::ProxyConnection.bit()
    | HeaderId::Te.bit()
    | HeaderId::TransferEncoding.bit()
    | HeaderId::Http2Settings.bit()
    | HeaderId::XAnyamHeaderCase.bit();

/// Framing of a request's body; requests to upstreams are HTTP/1.1.
pub(super) fn request_framing(
    method: Method,
    body: BodyLength,
    tunnel: TunnelRequest,
) -> BodyFraming {
    match body {
        _ if tunnel == TunnelRequest::Connect => BodyFraming::Tunnel,
        BodyLength::Known(length) => BodyFraming::Length(length),
        BodyLength::Unknown | BodyLength::UntilClose => BodyFraming::Chunked,
        // RFC 9110 8.6: methods that anticipate a body send Content-Length 0 when there is none; Envoy
        // has OPTIONS among them.
        BodyLength::None
            if matches!(
                method,
                Method::Post | Method::Put | Method::Patch | Method::Options
            ) =>
        {
            BodyFraming::Length(0)
        }
        BodyLength::None => BodyFraming::None,
    }
}

/// Framing of a final response's body.
pub(super) fn response_framing(
    client: Version,
    method: Method,
    status: u16,
    body: BodyLength,
) -> BodyFraming {
    match (status, body) {
        (100..=199 | 204, _) => BodyFraming::None,
        (304, _) => BodyFraming::Described,
        _ if method == Method::Head => BodyFraming::Described,
        (_, BodyLength::None) => BodyFraming::Length(0),
        (_, BodyLength::Known(length)) => BodyFraming::Length(length),
        (_, BodyLength::Unknown | BodyLength::UntilClose) => match client {
            Version::Http10 => BodyFraming::UntilClose,
            Version::Http11 | Version::Http2 => BodyFraming::Chunked,
        },
    }
}

pub(super) fn request(
    head: &Head,
    framing: BodyFraming,
    info: &Framing,
    spelling: Spelling,
    out: &mut Out,
) {
    out.reserve(head.buf.len().saturating_add(128));
    visible(head.method_name(), out);
    out.copy(b" ");
    match head.form() {
        TargetForm::Authority => visible(head.authority(), out),
        TargetForm::Asterisk => out.copy(b"*"),
        _ if head.path_and_query().is_empty() => out.copy(b"/"),
        _ => visible(head.path_and_query(), out),
    }
    out.copy(b" HTTP/1.1\r\n");
    // Without a Host field (HTTP/2, HTTP/1.0) the authority comes first, as RFC 9110 7.2
    // recommends.
    if head.present & HeaderId::Host.bit() == 0 {
        line(b"host", head.authority(), out);
    }
    let upgrade = info.tunnel == TunnelRequest::Upgrade;
    let length = fields(head, framing, upgrade, spelling, out);
    let persistence = Persistence {
        te_trailers: info.te_trailers,
        ..Persistence::default()
    };
    connection(persistence, upgrade && head.has(HeaderId::Upgrade), out);
    body(framing, length, out);
    out.copy(b"\r\n");
}

pub(super) fn response(
    head: &Head,
    version: Version,
    framing: BodyFraming,
    persistence: Persistence,
    spelling: Spelling,
    out: &mut Out,
) {
    out.reserve(head.buf.len().saturating_add(128));
    let status = head.status();
    out.copy(if version == Version::Http10 {
        b"HTTP/1.0 "
    } else {
        b"HTTP/1.1 "
    });
    out.copy(itoa::Buffer::new().format(status).as_bytes());
    out.copy(b" ");
    if head.reason().is_empty() {
        out.copy(reason(status).as_bytes());
    } else {
        out.copy(head.reason());
    }
    out.copy(b"\r\n");
    let upgrade = matches!(status, 101 | 426) && head.has(HeaderId::Upgrade);
    let length = fields(head, framing, upgrade, spelling, out);
    connection(persistence, upgrade, out);
    body(framing, length, out);
    out.copy(b"\r\n");
}

/// Trailers and the end of the chunked body they belong to.
pub(super) fn trailers(head: &Head, spelling: Spelling, out: &mut Out) {
    out.copy(b"0\r\n");
    let mut run = UnchangedFields::new(spelling);
    for field in &head.fields {
        let allowed = super::trailers::is_allowed(head.field_ref(field));
        if allowed && field.id.bit() & OWN == 0 {
            run.add(head, field, out);
        }
    }
    run.flush(head, out);
    out.copy(b"\r\n");
}

/// All fields but those the encoder decides on. Returns the length that none of them declares.
fn fields(
    head: &Head,
    framing: BodyFraming,
    upgrade: bool,
    spelling: Spelling,
    out: &mut Out,
) -> Option<u64> {
    let mut skip = OWN;
    if !upgrade {
        skip |= HeaderId::Upgrade.bit();
    }
    let mut length = match framing {
        BodyFraming::Length(length) => Some(length),
        BodyFraming::Described => None,
        BodyFraming::None
        | BodyFraming::Chunked
        | BodyFraming::UntilClose
        | BodyFraming::Tunnel => {
            skip |= HeaderId::ContentLength.bit();
            None
        }
    };
    let mut run = UnchangedFields::new(spelling);
    for field in &head.fields {
        if field.id.bit() & skip != 0 {
            continue;
        }
        if let (HeaderId::ContentLength, Some(declared)) = (field.id, length) {
            if super::framing::content_length(head.slice(field.value)) != Ok(declared) {
                continue;
            }
            length = None;
            skip |= HeaderId::ContentLength.bit();
        }
        run.add(head, field, out);
    }
    run.flush(head, out);
    length
}

/// The field that says how the body is framed. It comes last, as Envoy writes it.
fn body(framing: BodyFraming, length: Option<u64>, out: &mut Out) {
    if let Some(length) = length {
        line(
            b"content-length",
            itoa::Buffer::new().format(length).as_bytes(),
            out,
        );
    }
    if framing == BodyFraming::Chunked {
        out.copy(b"transfer-encoding: chunked\r\n");
    }
}

fn connection(persistence: Persistence, upgrade: bool, out: &mut Out) {
    if persistence.te_trailers {
        out.copy(b"te: trailers\r\n");
    }
    out.copy(match (upgrade, persistence.te_trailers) {
        (true, true) => b"connection: Upgrade, te\r\n",
        (true, false) => b"connection: Upgrade\r\n",
        (false, true) => b"connection: te\r\n",
        (false, false) if persistence.close => b"connection: close\r\n",
        (false, false) if persistence.keep_alive => b"connection: keep-alive\r\n",
        (false, false) => return,
    });
}

/// Consecutive fields whose lines lie unchanged in the received bytes.
struct UnchangedFields {
    start: usize,
    end: usize,
    spelling: Spelling,
}

impl UnchangedFields {
    fn new(spelling: Spelling) -> Self {
        Self {
            start: 0,
            end: 0,
            spelling,
        }
    }

    #[inline]
    fn add(&mut self, head: &Head, field: &Field, out: &mut Out) {
        if !self.spelling.preserve_case || !is_verbatim(field.name, field.value) {
            self.flush(head, out);
            self.rebuild(head, field, out);
            return;
        }
        let (start, end) = (field.name.start(), field.value.range().end);
        // Received lines end with CRLF: what follows it directly was the next line.
        if self.end == 0 || self.end.saturating_add(2) != start {
            self.flush(head, out);
            self.start = start;
        }
        self.end = end;
    }

    #[inline]
    fn flush(&mut self, head: &Head, out: &mut Out) {
        if self.end > self.start {
            out.shared(&head.buf, self.start..self.end);
            out.copy(b"\r\n");
        }
        (self.start, self.end) = (0, 0);
    }

    fn rebuild(&self, head: &Head, field: &Field, out: &mut Out) {
        let (name, value) = (head.slice(field.name), field.value);
        let start = match (self.spelling.preserve_case, field.id) {
            (true, _) => {
                out.copy_all(&[name, b": "]);
                &[]
            }
            (false, HeaderId::Other) => {
                out.copy_lower(name);
                b": ".as_slice()
            }
            (false, id) => id.line_start().as_bytes(),
        };
        if value.is_extra() || value.len() <= COPY_MAX {
            out.copy_all(&[start, head.slice(value), b"\r\n"]);
        } else {
            out.copy(start);
            out.shared(&head.buf, value.range());
            out.copy(b"\r\n");
        }
    }
}

/// Name, colon, at most one blank, value: all as received.
#[inline]
fn is_verbatim(name: Span, value: Span) -> bool {
    let end = name.range().end;
    !name.is_extra()
        && !value.is_extra()
        && !value.is_empty()
        && (end.saturating_add(1)..=end.saturating_add(2)).contains(&value.start())
}

#[inline]
fn line(name: &[u8], value: &[u8], out: &mut Out) {
    out.copy_all(&[name, b": ", value, b"\r\n"]);
}

/// Writes a part of the request line. What is not visible ASCII, which only an edit can have
/// brought in, is percent-encoded: a blank would end the part early.
fn visible(part: &[u8], out: &mut Out) {
    let is_visible = |byte: u8| matches!(byte, b'!'..=b'~');
    if part.iter().copied().all(is_visible) {
        out.copy(part);
        return;
    }
    for &byte in part {
        if is_visible(byte) {
            out.copy(&[byte]);
        } else {
            out.copy(&[b'%', hex(byte >> 4), hex(byte)]);
        }
    }
}

/// The lowest four bits as a digit.
fn hex(bits: u8) -> u8 {
    match bits & 15 {
        low @ ..=9 => b'0' | low,
        high => high.wrapping_add(b'A' - 10),
    }
}

/// The registered reason phrase; Envoy's word when there is none.
fn reason(status: u16) -> &'static str {
    match http::StatusCode::from_u16(status) {
        // Registered for a joke, which Envoy does not know.
        Ok(http::StatusCode::IM_A_TEAPOT) | Err(_) => "Unknown",
        Ok(status) => status.canonical_reason().unwrap_or("Unknown"),
    }
}
