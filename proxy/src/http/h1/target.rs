//! The request target: which of the four forms it has, and its parts.

use super::RequestOptions;
use crate::message::authority::Authority;
use crate::message::fault::Fault;
use crate::message::head::{Head, Method, Span, TargetForm};

/// Splits the target in `head.path` into scheme, authority and path. The authority of an absolute
/// target replaces the Host field's value (RFC 9112 3.2.2), so that only one remains.
pub(super) fn interpret(
    head: &mut Head,
    host: Span,
    options: &RequestOptions,
) -> Result<(), Fault> {
    let target = head.path;
    head.authority = host;
    if head.method == Method::Connect {
        return connect(head, target);
    }
    match head.slice(target) {
        [b'/', ..] => Ok(()),
        b"*" if head.method == Method::Options => {
            head.form = TargetForm::Asterisk;
            Ok(())
        }
        _ => absolute(head, target, options),
    }
}

/// `host:port`, nothing else.
fn connect(head: &mut Head, target: Span) -> Result<(), Fault> {
    let authority = Authority::parse(head.slice(target)).map_err(|_| Fault::InvalidTarget)?;
    if authority.port.is_none() {
        return Err(Fault::InvalidTarget);
    }
    head.form = TargetForm::Authority;
    head.authority = target;
    head.path = Span::EMPTY;
    head.align_host();
    Ok(())
}

fn absolute(head: &mut Head, target: Span, options: &RequestOptions) -> Result<(), Fault> {
    let bytes = head.slice(target);
    let colon = memchr::memchr(b':', bytes).ok_or(Fault::InvalidTarget)?;
    let (scheme, rest) = bytes.split_at(colon);
    let Some(rest) = rest.strip_prefix(b"://") else {
        return Err(Fault::InvalidTarget);
    };
    if !scheme.eq_ignore_ascii_case(b"http") && !scheme.eq_ignore_ascii_case(b"https") {
        return Err(Fault::UnsupportedScheme);
    }
    if !options.allow_absolute_url {
        return Err(Fault::AbsoluteTarget);
    }
    let len = rest
        .iter()
        .position(|b| matches!(b, b'/' | b'?' | b'#'))
        .unwrap_or(rest.len());
    if len == 0 {
        return Err(Fault::InvalidTarget);
    }
    let (authority, tail) = rest.split_at(len);
    Authority::parse(authority)?;
    let rooted = tail.starts_with(b"/");
    let path = bytes.len().saturating_sub(tail.len());
    let start = path.saturating_sub(len);
    let tail = target.part(path..target.len());

    head.form = TargetForm::Absolute;
    head.scheme = target.part(0..colon);
    head.authority = target.part(start..path);
    head.path = if rooted {
        tail
    } else if tail.is_empty() && head.method == Method::Options {
        head.scratch(b"*")
    } else {
        let root = head.scratch(b"/");
        let tail = head.shared(tail);
        head.extra.extend_from_slice(&tail);
        Span::extra(root.start(), tail.len().saturating_add(1))
    };
    head.align_host();
    Ok(())
}
