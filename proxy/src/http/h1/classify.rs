//! What exactly is wrong with a head that `httparse` refused. Only refused heads come here.

use super::fields::FieldSection;
use crate::message::fault::Fault;

/// RFC 9110 5.6.2.
#[inline]
pub(in crate::http) const fn is_token_byte(byte: u8) -> bool {
    matches!(
        byte,
        b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9'
            | b'!' | b'#' | b'$' | b'%' | b'&' | b'\'' | b'*' | b'+'
            | b'-' | b'.' | b'^' | b'_' | b'`' | b'|' | b'~'
    )
}

/// The first fault in order of bytes; `lines` are complete.
#[cold]
pub(super) fn classify(kind: FieldSection, lines: &[u8], error: httparse::Error) -> Fault {
    if error == httparse::Error::TooManyHeaders {
        return kind.too_many();
    }
    let mut first = kind != FieldSection::Trailers;
    for line in lines.split_inclusive(|&b| b == b'\n') {
        let Some(line) = line.strip_suffix(b"\r\n") else {
            return Fault::BareLineFeed;
        };
        let fault = if memchr::memchr(b'\r', line).is_some() {
            Some(Fault::BareCarriageReturn)
        } else if first && kind == FieldSection::Request {
            request_line(line)
        } else if first {
            status_line(line)
        } else {
            field_line(line)
        };
        if let Some(fault) = fault {
            return fault;
        }
        first = false;
    }
    // Every line is valid by the rules above: `httparse` has a further one.
    Fault::InvalidStartLine
}

fn request_line(line: &[u8]) -> Option<Fault> {
    let mut parts = line.split(|&b| b == b' ');
    let method = parts.next().unwrap_or_default();
    if method.is_empty() || !method.iter().all(|&b| is_token_byte(b)) {
        return Some(Fault::InvalidMethod);
    }
    let (Some(target), Some(version), None) = (parts.next(), parts.next(), parts.next()) else {
        // HTTP/0.9 has no version; more blanks than two are no better.
        return Some(Fault::InvalidStartLine);
    };
    if target.is_empty() || target.iter().any(|&b| b <= b' ' || b >= 0x7f) {
        return Some(Fault::InvalidTarget);
    }
    version_fault(version)
}

fn status_line(line: &[u8]) -> Option<Fault> {
    let mut parts = line.splitn(3, |&b| b == b' ');
    let version = parts.next().unwrap_or_default();
    if let Some(fault) = version_fault(version) {
        return Some(fault);
    }
    match parts.next() {
        Some([b'0'..=b'9', b'0'..=b'9', b'0'..=b'9']) => {}
        _ => return Some(Fault::InvalidStatus),
    }
    let reason = parts.next().unwrap_or_default();
    reason
        .iter()
        .any(|&b| is_control(b))
        .then_some(Fault::InvalidStartLine)
}

fn version_fault(version: &[u8]) -> Option<Fault> {
    match version {
        b"HTTP/1.0" | b"HTTP/1.1" => None,
        [b'H', b'T', b'T', b'P', b'/', major, b'.', minor]
            if major.is_ascii_digit() && minor.is_ascii_digit() =>
        {
            Some(Fault::UnsupportedVersion)
        }
        _ => Some(Fault::InvalidStartLine),
    }
}

fn field_line(line: &[u8]) -> Option<Fault> {
    if matches!(line.first(), Some(b' ' | b'\t')) {
        return Some(Fault::ObsoleteFold);
    }
    let end = line.iter().position(|&b| !is_token_byte(b));
    let Some(end) = end.filter(|&end| end > 0) else {
        return Some(Fault::InvalidName);
    };
    let (_, rest) = line.split_at(end);
    match rest.trim_ascii_start() {
        [b':', ..] if !rest.starts_with(b":") => Some(Fault::SpaceBeforeColon),
        [b':', value @ ..] => value
            .iter()
            .any(|&b| is_control(b))
            .then_some(Fault::InvalidValue),
        _ => Some(Fault::InvalidName),
    }
}

fn is_control(byte: u8) -> bool {
    byte < b' ' && byte != b'\t' || byte == 0x7f
}
