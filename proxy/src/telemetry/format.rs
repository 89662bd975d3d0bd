//! Format strings and JSON formats rendered into a line. Source: Envoy's access log format
//! documentation.
//!
//! Whatever came from a peer is escaped: control and bidirectional-override characters never
//! reach a terminal or break a line (see `escape`).

mod metadata;

use std::io::Write;
use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use super::escape;
use super::record::{Headers, Record};
use crate::config::access_log::{
    AccessLog, Format, JsonField, JsonValue, LogFilter, LogFormat, Operator, Part,
};
use crate::matcher::HeaderName;
use crate::metadata::Value;

/// Appends one line, newline included, when the log's filter accepts the record.
pub fn render_line(log: &AccessLog, record: &Record<'_>, out: &mut Vec<u8>) -> bool {
    if log
        .filter
        .as_ref()
        .is_some_and(|filter| !passes(filter, record))
    {
        return false;
    }
    match &log.format {
        LogFormat::Text(format) => {
            render_with(escape::text, format, record, out);
            // Envoy's formats carry their own newline; a format without one still ends its line.
            if out.last() != Some(&b'\n') {
                out.push(b'\n');
            }
        }
        LogFormat::Json { fields, omit_empty } => {
            render_object(fields, *omit_empty, record, out);
            out.push(b'\n');
        }
    }
    true
}

/// Renders a format string as a header's value: literals as they are, operators escaped.
pub fn render(format: &Format, record: &Record<'_>, out: &mut Vec<u8>) {
    render_with(escape::value, format, record, out);
}

fn render_with(
    escape: fn(&[u8], &mut Vec<u8>),
    format: &Format,
    record: &Record<'_>,
    out: &mut Vec<u8>,
) {
    for part in &format.0 {
        match part {
            Part::Literal(text) => out.extend_from_slice(text.as_bytes()),
            Part::Operator(operator) => {
                let start = out.len();
                if !operate(operator, record, &mut |value| escape(value, out)) {
                    out.truncate(start);
                    out.push(b'-');
                }
            }
        }
    }
}

/// Renders a format string as a header's value: as it is, an operator without a value as nothing.
pub fn render_value<A: smallvec::Array<Item = u8>>(
    format: &Format,
    record: &Record<'_>,
    out: &mut smallvec::SmallVec<A>,
) {
    for part in &format.0 {
        match part {
            Part::Literal(text) => out.extend_from_slice(text.as_bytes()),
            Part::Operator(operator) => {
                operate(operator, record, &mut |value| out.extend_from_slice(value));
            }
        }
    }
}

fn passes(filter: &LogFilter, record: &Record<'_>) -> bool {
    match filter {
        LogFilter::StatusAtLeast(code) => record.code >= *code,
        LogFilter::NotHealthCheck => !record.is_health_check,
        LogFilter::ResponseFlags(flags) if flags.is_empty() => !record.flags.is_empty(),
        LogFilter::ResponseFlags(flags) => record
            .flags
            .short_names()
            .any(|flag| flags.iter().any(|wanted| **wanted == *flag)),
        LogFilter::And(all) => all.iter().all(|filter| passes(filter, record)),
        LogFilter::Or(any) => any.iter().any(|filter| passes(filter, record)),
    }
}

fn render_object(fields: &[JsonField], omit_empty: bool, record: &Record<'_>, out: &mut Vec<u8>) {
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
        JsonValue::Object(fields) => render_object(fields, omit_empty, record, out),
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

/// Calls `put` with the operator's value, possibly in pieces. False: there is none.
fn operate(operator: &Operator, record: &Record<'_>, put: &mut dyn FnMut(&[u8])) -> bool {
    use Operator as O;
    match operator {
        O::StartTime(format) => put_time(record.start, format.as_deref(), put),
        O::Duration => put_number(whole_millis(record.duration), put),
        O::RequestDuration => put_millis(record.request_duration, put),
        O::ResponseDuration => put_millis(record.response_duration, put),
        O::BytesReceived => put_number(record.bytes_received, put),
        O::BytesSent => put_number(record.bytes_sent, put),
        O::ResponseCode => put_number(u64::from(record.code), put),
        O::UpstreamRequestAttemptCount => put_number(u64::from(record.attempts), put),
        O::ConnectionId => put_number(record.connection_id, put),
        O::ResponseFlags => put_flags(record.flags.short_names(), put),
        O::ResponseFlagsLong => put_flags(record.flags.long_names(), put),
        O::Protocol => put_str(record.protocol, put),
        O::ResponseCodeDetails => put_str(record.details, put),
        O::ConnectionTerminationDetails => put_str(record.termination_details, put),
        O::RouteName => put_str(record.route, put),
        O::UpstreamCluster => put_str(record.cluster, put),
        O::UpstreamTransportFailureReason => put_str(record.upstream_failure, put),
        O::RequestedServerName => put_str(record.sni, put),
        O::DownstreamPeerUriSan => put_str(record.peer_uri_san, put),
        O::DownstreamLocalUriSan => put_str(record.local_uri_san, put),
        O::DownstreamPeerSubject => put_str(record.peer_subject, put),
        O::DownstreamTlsVersion => put_str(record.tls_version, put),
        O::DownstreamTlsCipher => put_str(record.tls_cipher, put),
        O::UpstreamPeerUriSan => put_str(record.upstream_peer_uri_san, put),
        O::FilterChainName => put_str(record.chain, put),
        O::GrpcStatus => record
            .grpc_status
            .is_some_and(|status| put_number(status, put)),
        O::UpstreamHost => put_address(record.upstream_host, true, put),
        O::UpstreamLocalAddress => put_address(record.upstream_local, true, put),
        O::DownstreamRemoteAddress { port } => put_address(record.remote, *port, put),
        O::DownstreamDirectRemoteAddress { port } => put_address(record.direct_remote, *port, put),
        O::DownstreamLocalAddress { port } => put_address(record.local, *port, put),
        O::DownstreamLocalPort => record
            .local
            .is_some_and(|address| put_number(u64::from(address.port()), put)),
        O::Method => put_bytes(record.method, put),
        O::Path => put_bytes(record.path, put),
        O::Authority => put_bytes(record.authority, put),
        O::Scheme => put_bytes(record.scheme, put),
        O::RequestHeader {
            name,
            alternative,
            max,
        } => {
            put_header(record.request, name, *max, put)
                || alternative
                    .as_ref()
                    .is_some_and(|name| put_header(record.request, name, *max, put))
        }
        O::ResponseHeader {
            name,
            alternative,
            max,
        } => {
            put_header(record.response, name, *max, put)
                || alternative
                    .as_ref()
                    .is_some_and(|name| put_header(record.response, name, *max, put))
        }
        O::ResponseTrailer { name, max } => put_header(record.trailers, name, *max, put),
        O::DynamicMetadata {
            namespace,
            path,
            max,
        } => {
            let known = record.metadata.and_then(|all| all.get(namespace, path));
            known.is_some_and(|value| metadata::put(value, *max, put))
        }
        O::VirtualClusterName | O::Hostname => false,
        O::Percent => {
            put(b"%");
            true
        }
    }
}

fn whole_millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn put_number(number: impl itoa::Integer, put: &mut dyn FnMut(&[u8])) -> bool {
    put(itoa::Buffer::new().format(number).as_bytes());
    true
}

fn put_millis(duration: Option<Duration>, put: &mut dyn FnMut(&[u8])) -> bool {
    duration.is_some_and(|duration| put_number(whole_millis(duration), put))
}

fn put_str(value: Option<&str>, put: &mut dyn FnMut(&[u8])) -> bool {
    put_bytes(value.map(str::as_bytes), put)
}

fn put_bytes(value: Option<&[u8]>, put: &mut dyn FnMut(&[u8])) -> bool {
    value.filter(|value| !value.is_empty()).map(put).is_some()
}

fn put_flags(names: impl Iterator<Item = &'static str>, put: &mut dyn FnMut(&[u8])) -> bool {
    let mut any = false;
    for name in names {
        if any {
            put(b",");
        }
        put(name.as_bytes());
        any = true;
    }
    any
}

fn put_address(address: Option<SocketAddr>, port: bool, put: &mut dyn FnMut(&[u8])) -> bool {
    match address {
        None => return false,
        Some(SocketAddr::V4(address)) => {
            for (n, octet) in address.ip().octets().into_iter().enumerate() {
                if n > 0 {
                    put(b".");
                }
                put_number(u64::from(octet), put);
            }
            if port {
                put(b":");
                put_number(u64::from(address.port()), put);
            }
        }
        Some(SocketAddr::V6(address)) => {
            let mut text = Text::new();
            // Writing to memory cannot fail.
            let _ = match port {
                true => write!(text, "{address}"),
                false => write!(text, "{}", address.ip()),
            };
            put(&text);
        }
    }
    true
}

/// What is formatted, off the heap.
type Text = smallvec::SmallVec<[u8; 64]>;

/// Every value, joined by commas, cut at `max` bytes.
fn put_header(
    headers: Option<&dyn Headers>,
    name: &HeaderName,
    max: Option<usize>,
    put: &mut dyn FnMut(&[u8]),
) -> bool {
    let Some(headers) = headers else { return false };
    let mut left = max.unwrap_or(usize::MAX);
    let mut any = false;
    headers.values(name, &mut |value| {
        if any && left > 0 {
            put(b",");
            left = left.saturating_sub(1);
        }
        let cut = value.len().min(left);
        put(value.split_at(cut).0);
        left = left.saturating_sub(cut);
        any = true;
    });
    any
}

/// RFC 3339 with milliseconds unless a format is given, of which `%s` (seconds), `%3f` and the
/// date and time digits are known.
fn put_time(at: SystemTime, format: Option<&str>, put: &mut dyn FnMut(&[u8])) -> bool {
    let since = at
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    let time = escape::Civil::from_unix(since.as_secs());
    let Some(format) = format else {
        put(&time.rfc3339(since.subsec_millis()));
        return true;
    };
    let mut text = Text::new();
    let written = escape::strftime(&mut text, format, &time, since);
    put(&text);
    written.is_ok()
}

fn push_fmt(out: &mut Vec<u8>, arguments: std::fmt::Arguments<'_>) {
    // Writing into a Vec cannot fail.
    let _ = out.write_fmt(arguments);
}
