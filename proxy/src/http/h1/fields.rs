//! From bytes to fields: `httparse` finds the tokens, the strictness is added here.
//!
//! A fault is reported once the line that holds it is complete, so the same bytes give the same
//! answer however they were split, and a client that drips bytes costs one parse per line.

use std::mem::MaybeUninit;

use bytes::BytesMut;
use httparse::{EMPTY_HEADER, Error, Header, Status};

use super::classify::{classify, is_token_byte};
use super::{HeadLimits, MAX_FIELDS};
use crate::message::fault::Fault;
use crate::message::head::{Head, HeaderId, Method, Span, Version};

/// Heads with no more fields than this are parsed on a small stack frame.
const USUAL: usize = 128;

/// How far a head that has not arrived in full was scanned.
#[derive(Debug, Default)]
pub(super) struct HeadScan {
    scanned: usize,
}

/// What is read: the fields after a start line, or trailers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FieldSection {
    Request,
    Response,
    Trailers,
}

impl FieldSection {
    fn too_large(self) -> Fault {
        match self {
            Self::Trailers => Fault::TrailersTooLarge,
            Self::Request | Self::Response => Fault::HeadTooLarge,
        }
    }

    pub fn too_many(self) -> Fault {
        match self {
            Self::Trailers => Fault::TooManyTrailers,
            Self::Request | Self::Response => Fault::TooManyFields,
        }
    }
}

impl HeadScan {
    /// Moves a complete head from `input` to `head`: start line and fields, with ids; only syntax
    /// and limits are checked. A request's target goes to `head.path` as it is. `false`: more bytes
    /// are needed. After a fault `head` has what could be read, and the bytes that its spans refer
    /// to, because access logs and taps read it.
    pub fn read(
        &mut self,
        kind: FieldSection,
        limits: &HeadLimits,
        input: &mut BytesMut,
        head: &mut Head,
    ) -> Result<bool, Fault> {
        let full = input.len() >= limits.head_bytes;
        let (seen, _) = input.split_at(input.len().min(limits.head_bytes));
        // A TLS record, alert or handshake (RFC 8446 5.1): no end of a line may ever come.
        if kind != FieldSection::Trailers && matches!(seen.first(), Some(0x15 | 0x16)) {
            return Err(Fault::Tls);
        }
        // What can't begin a request need not be waited for.
        if kind == FieldSection::Request && seen.first().is_some_and(|&b| !is_token_byte(b)) {
            return Err(Fault::InvalidMethod);
        }
        let fresh = seen.get(self.scanned..).unwrap_or(seen);
        if !full && memchr::memchr(b'\n', fresh).is_none() {
            self.scanned = seen.len();
            return Ok(false);
        }
        let len = seen.len();
        let fault = match tokenise(kind, seen, limits, head) {
            Ok(Status::Complete(len)) => {
                // First of all: the head's spans lie in these bytes, whatever is found in them.
                head.buf = input.split_to(len.min(input.len())).freeze();
                self.scanned = 0;
                return check_line_ends(head).map(|()| true);
            }
            Ok(Status::Partial) => None,
            Err(_) => fault_in_lines(kind, seen, limits, head),
        };
        if fault.is_none() && !full {
            self.scanned = len;
            head.clear();
            return Ok(false);
        }
        head.buf = input.split_to(len).freeze();
        Err(fault.unwrap_or(kind.too_large()))
    }

    /// Nothing of a head has been seen.
    pub fn is_fresh(&self) -> bool {
        self.scanned == 0
    }
}

/// The fault in those lines that are complete; what comes after them may still change.
#[cold]
fn fault_in_lines(
    kind: FieldSection,
    seen: &[u8],
    limits: &HeadLimits,
    head: &mut Head,
) -> Option<Fault> {
    let complete = seen.get(..=memchr::memrchr(b'\n', seen)?)?;
    let error = tokenise(kind, complete, limits, head).err()?;
    Some(classify(kind, complete, error))
}

fn tokenise(
    kind: FieldSection,
    seen: &[u8],
    limits: &HeadLimits,
    head: &mut Head,
) -> Result<Status<usize>, Error> {
    match limits.fields.min(MAX_FIELDS) {
        max @ ..=USUAL => tokenise_into::<USUAL>(kind, seen, max, head),
        max => tokenise_into::<MAX_FIELDS>(kind, seen, max, head),
    }
}

fn tokenise_into<const N: usize>(
    kind: FieldSection,
    seen: &[u8],
    max: usize,
    head: &mut Head,
) -> Result<Status<usize>, Error> {
    let base = seen.as_ptr() as usize;
    let mut slots = [const { MaybeUninit::<Header<'_>>::uninit() }; N];
    match kind {
        FieldSection::Request => {
            let mut request = httparse::Request::new(&mut []);
            let status = request.parse_with_uninit_headers(seen, &mut slots[..max])?;
            if let (Some(method), Some(target), Some(minor)) =
                (request.method, request.path, request.version)
            {
                head.method = Method::of(method.as_bytes());
                head.method_span = span(base, method.as_bytes());
                head.path = span(base, target.as_bytes());
                head.version = version(minor);
            }
            if status.is_complete() {
                push_all(base, request.headers, head);
            }
            Ok(status)
        }
        FieldSection::Response => {
            let mut response = httparse::Response::new(&mut []);
            let status = httparse::ParserConfig::default().parse_response_with_uninit_headers(
                &mut response,
                seen,
                &mut slots[..max],
            )?;
            if let (Some(code), Some(minor)) = (response.code, response.version) {
                head.status = code;
                head.version = version(minor);
            }
            if status.is_complete() {
                push_all(base, response.headers, head);
                head.reason = reason(seen);
            }
            Ok(status)
        }
        FieldSection::Trailers => {
            let mut slots = [EMPTY_HEADER; N];
            Ok(match httparse::parse_headers(seen, &mut slots[..max])? {
                Status::Complete((len, headers)) => {
                    push_all(base, headers, head);
                    Status::Complete(len)
                }
                Status::Partial => Status::Partial,
            })
        }
    }
}

#[inline]
fn push_all(base: usize, headers: &[Header<'_>], head: &mut Head) {
    head.fields.reserve(headers.len());
    for header in headers {
        let name = header.name.as_bytes();
        head.push_spans(
            HeaderId::of(name),
            span(base, name),
            span(base, header.value),
        );
    }
}

#[inline]
fn span(base: usize, part: &[u8]) -> Span {
    Span::received((part.as_ptr() as usize).wrapping_sub(base), part.len())
}

fn version(minor: u8) -> Version {
    if minor == 0 {
        Version::Http10
    } else {
        Version::Http11
    }
}

/// The reason phrase with whatever bytes it has; `httparse` hides it when it is not ASCII.
fn reason(seen: &[u8]) -> Span {
    const START: usize = "HTTP/1.1 200 ".len();
    let end = memchr::memchr2(b'\r', b'\n', seen).unwrap_or(seen.len());
    Span::received(START.min(end), end.saturating_sub(START))
}

/// `httparse` takes LF alone for a line end; we don't.
fn check_line_ends(head: &Head) -> Result<(), Fault> {
    let bytes = &*head.buf;
    let ends_with_crlf = |end: usize| match end.checked_sub(2) {
        Some(at) => bytes.get(at) == Some(&b'\r'),
        None => true,
    };
    let blank_line = bytes.len().saturating_sub(2);
    let strict = bytes.ends_with(b"\r\n")
        && ends_with_crlf(blank_line)
        && head
            .fields
            .iter()
            .all(|field| ends_with_crlf(field.name.start()));
    if strict {
        Ok(())
    } else {
        Err(Fault::BareLineFeed)
    }
}
