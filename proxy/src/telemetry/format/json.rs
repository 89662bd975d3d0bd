//! JSON formats.

use std::io::Write;

use super::{metadata, operate};
use crate::config::access_log::{Format, JsonField, JsonValue, Operator, Part};
use crate::metadata::Value;
use crate::telemetry::escape;
use crate::telemetry::record::Record;

/// An object of fields.
pub fn object(fields: &[JsonField], omit_empty: bool, record: &Record<'_>, out: &mut Vec<u8>) {
    out.push(b'{');
    let mut first = true;
    for JsonField { key, value } in fields {
        let start = out.len();
        if !first {
            out.push(b',');
        }
        out.extend_from_slice(key);
        let empty = render_json(value, omit_empty, record, out);
        if empty && omit_empty {
            out.truncate(start);
        } else {
            first = false;
        }
    }
    out.push(b'}');
}

/// Returns whether the value is `null`.
fn render_json(
    value: &JsonValue,
    omit_empty: bool,
    record: &Record<'_>,
    out: &mut Vec<u8>,
) -> bool {
    match value {
        JsonValue::Format(format) => return render_json_format(format, record, out),
        JsonValue::Object(fields) => object(fields, omit_empty, record, out),
        JsonValue::List(values) => {
            out.push(b'[');
            for (n, value) in values.iter().enumerate() {
                if n > 0 {
                    out.push(b',');
                }
                render_json(value, omit_empty, record, out);
            }
            out.push(b']');
        }
        JsonValue::Number(number) => push_fmt(out, format_args!("{number}")),
        JsonValue::Bool(value) => push_fmt(out, format_args!("{value}")),
        JsonValue::Null => {
            out.extend_from_slice(b"null");
            return true;
        }
    }
    false
}

/// A lone operator keeps its type (numbers stay numbers, absent is `null`), as in Envoy; a mix of
/// text and operators is a string.
fn render_json_format(format: &Format, record: &Record<'_>, out: &mut Vec<u8>) -> bool {
    let [Part::Operator(operator)] = format.0.as_slice() else {
        let mut text = Vec::with_capacity(64);
        for part in &format.0 {
            match part {
                Part::Literal(literal) => text.extend_from_slice(literal.as_bytes()),
                Part::Operator(operator) => {
                    if !operate(operator, record, &mut |value| text.extend_from_slice(value)) {
                        text.push(b'-');
                    }
                }
            }
        }
        escape::json(&text, out);
        return false;
    };
    if let Operator::DynamicMetadata {
        namespace,
        path,
        max: None,
    } = operator
    {
        let known = record.metadata.and_then(|all| all.get(namespace, path));
        metadata::json(known.unwrap_or(&Value::Null), out);
        return known.is_none();
    }
    let start = out.len();
    let there = if is_numeric(operator) {
        operate(operator, record, &mut |part| out.extend_from_slice(part))
    } else {
        out.push(b'"');
        let there = operate(operator, record, &mut |part| escape::json_part(part, out));
        out.push(b'"');
        there
    };
    if !there {
        out.truncate(start);
        out.extend_from_slice(b"null");
    }
    !there
}

fn is_numeric(operator: &Operator) -> bool {
    use Operator as O;
    matches!(
        operator,
        O::Duration
            | O::RequestDuration
            | O::ResponseDuration
            | O::BytesReceived
            | O::BytesSent
            | O::ResponseCode
            | O::UpstreamRequestAttemptCount
            | O::DownstreamLocalPort
            | O::ConnectionId
    )
}

fn push_fmt(out: &mut Vec<u8>, arguments: std::fmt::Arguments<'_>) {
    // Writing into a Vec cannot fail.
    let _ = out.write_fmt(arguments);
}
