//! Header additions and removals.

use xds_proto::envoy::config::core::v3 as core;

use super::access_log::format;
use super::matcher::header_name;
use super::support::{At, CompileError, each, known, required};
use crate::config::access_log::{Format, Part};
use crate::config::route::{AppendAction, HeaderAppend, HeaderEdits};
use crate::matcher::HeaderName;

/// `request_headers_to_add` and `request_headers_to_remove`.
pub fn request_edits(
    at: At<'_>,
    add: &[core::HeaderValueOption],
    remove: &[String],
) -> Result<HeaderEdits, CompileError> {
    Ok(HeaderEdits {
        append: each(at, "request_headers_to_add", add, append)?,
        remove: each(at, "request_headers_to_remove", remove, |at, name| {
            editable(at, name)
        })?,
    })
}

/// `response_headers_to_add` and `response_headers_to_remove`.
pub fn response_edits(
    at: At<'_>,
    add: &[core::HeaderValueOption],
    remove: &[String],
) -> Result<HeaderEdits, CompileError> {
    Ok(HeaderEdits {
        append: each(at, "response_headers_to_add", add, append)?,
        remove: each(at, "response_headers_to_remove", remove, |at, name| {
            editable(at, name)
        })?,
    })
}

pub fn append(at: At<'_>, option: &core::HeaderValueOption) -> Result<HeaderAppend, CompileError> {
    use core::header_value_option::HeaderAppendAction as Action;
    let core::HeaderValueOption {
        header,
        append,
        append_action,
        keep_empty_value,
    } = option;
    let core::HeaderValue {
        key,
        value,
        raw_value,
    } = required!(at, header);
    let at = at.field("header");
    let text = match raw_value.as_slice() {
        [] => value.as_str(),
        raw => std::str::from_utf8(raw)
            .or_else(|_| at.field("raw_value").fail("only UTF-8 is supported"))?,
    };
    let action = match (append, known(at.field("append_action"), *append_action)?) {
        (Some(append), _) if append.value => AppendAction::AppendIfExistsOrAdd,
        (Some(_), _) => AppendAction::OverwriteIfExistsOrAdd,
        (None, Action::AppendIfExistsOrAdd) => AppendAction::AppendIfExistsOrAdd,
        (None, Action::AddIfAbsent) => AppendAction::AddIfAbsent,
        (None, Action::OverwriteIfExistsOrAdd) => AppendAction::OverwriteIfExistsOrAdd,
        (None, Action::OverwriteIfExists) => AppendAction::OverwriteIfExists,
    };
    let value = format(at.field("value"), text)?;
    if !is_field_value(&value) {
        return at
            .field("value")
            .fail("has characters that no header may have");
    }
    Ok(HeaderAppend {
        spelling: key.as_str().into(),
        name: editable(at.field("key"), key)?,
        value,
        action,
        keep_empty_value: *keep_empty_value,
    })
}

fn is_field_value(format: &Format) -> bool {
    format.0.iter().all(|part| match part {
        Part::Literal(text) => !text.bytes().any(|b| matches!(b, b'\r' | b'\n' | 0)),
        Part::Operator(_) => true,
    })
}

/// As in Envoy, pseudo-headers and the host cannot be edited this way: routing has used them.
pub fn editable(at: At<'_>, name: &str) -> Result<HeaderName, CompileError> {
    let name = header_name(at, name)?;
    if name.name.starts_with(':') || &*name.name == "host" {
        return at.fail("pseudo-headers and host cannot be edited; use a rewrite");
    }
    Ok(name)
}
