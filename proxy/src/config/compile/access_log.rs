//! Access logs: Envoy's format strings into operators, sinks opened.
//! Source: Envoy's access log documentation, "Format strings" and "Command operators".

use std::collections::BTreeMap;
use std::sync::Arc;

use xds_proto::envoy::config::accesslog::v3 as log;
use xds_proto::envoy::config::core::v3 as core;
use xds_proto::envoy::extensions::access_loggers::{file::v3 as file, stream::v3 as stream};
use xds_proto::google::protobuf as pb;

use super::support::{
    At, CompileError, decode, each, elsewhere, ignored, required, type_name, unknown_type,
    unsupported,
};
use super::{log_filter, matcher, values};
use crate::config::access_log::{
    AccessLog, Format, JsonField, JsonValue, LogFormat, Operator, Part,
};
use crate::log_sink::{Destination, Sinks};
use crate::matcher::HeaderName;

/// Envoy's default format.
const DEFAULT: &str = "[%START_TIME%] \"%REQ(:METHOD)% \
    %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%\" %RESPONSE_CODE% %RESPONSE_FLAGS% \
    %BYTES_RECEIVED% %BYTES_SENT% %DURATION% %RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)% \
    \"%REQ(X-FORWARDED-FOR)%\" \"%REQ(USER-AGENT)%\" \"%REQ(X-REQUEST-ID)%\" \
    \"%REQ(:AUTHORITY)%\" \"%UPSTREAM_HOST%\"\n";
/// Deepest nesting of filters and JSON objects; it bounds recursion.
pub(super) const MAX_DEPTH: u32 = 16;

/// One access log.
pub fn access_log(
    at: At<'_>,
    m: &log::AccessLog,
    sinks: &Sinks,
) -> Result<Arc<AccessLog>, CompileError> {
    let log::AccessLog {
        name,
        filter,
        config_type,
    } = m;
    ignored!("the type says what the extension is", name);
    let filter = match filter {
        Some(m) => Some(log_filter::filter(at.field("filter"), m, 0)?),
        None => None,
    };
    let log::access_log::ConfigType::TypedConfig(any) = required!(at, config_type);
    let (target, format) = typed(at.field("typed_config"), any)?;
    let sink = sinks
        .open(target)
        .map_err(|e| at.error(format_args!("cannot be opened: {e}")))?;
    Ok(Arc::new(AccessLog {
        sink,
        format,
        filter,
    }))
}

fn typed(at: At<'_>, any: &pb::Any) -> Result<(Destination, LogFormat), CompileError> {
    match type_name(any) {
        "envoy.extensions.access_loggers.file.v3.FileAccessLog" => file_log(at, &decode(at, any)?),
        "envoy.extensions.access_loggers.stream.v3.StdoutAccessLog" => {
            use stream::stdout_access_log::AccessLogFormat::LogFormat as Given;
            let stream::StdoutAccessLog { access_log_format } = decode(at, any)?;
            let format = match &access_log_format {
                None => default_format(at)?,
                Some(Given(m)) => substitution(at.field("log_format"), m)?,
            };
            Ok((Destination::Stdout, format))
        }
        "envoy.extensions.access_loggers.stream.v3.StderrAccessLog" => {
            use stream::stderr_access_log::AccessLogFormat::LogFormat as Given;
            let stream::StderrAccessLog { access_log_format } = decode(at, any)?;
            let format = match &access_log_format {
                None => default_format(at)?,
                Some(Given(m)) => substitution(at.field("log_format"), m)?,
            };
            Ok((Destination::Stderr, format))
        }
        _ => unknown_type(at, any),
    }
}

fn file_log(at: At<'_>, m: &file::FileAccessLog) -> Result<(Destination, LogFormat), CompileError> {
    use file::file_access_log::AccessLogFormat as Given;
    let file::FileAccessLog {
        path,
        access_log_format,
    } = m;
    let format = match access_log_format {
        None => default_format(at)?,
        Some(Given::Format(text)) => LogFormat::Text(format(at.field("format"), text)?),
        Some(Given::JsonFormat(object) | Given::TypedJsonFormat(object)) => LogFormat::Json {
            fields: json_object(at.field("json_format"), object, 0)?,
            omit_empty: false,
        },
        Some(Given::LogFormat(m)) => substitution(at.field("log_format"), m)?,
    };
    let target = match path.as_str() {
        "" => return at.field("path").fail("is required"),
        "/dev/stdout" => Destination::Stdout,
        "/dev/stderr" => Destination::Stderr,
        path => Destination::File(path.into()),
    };
    Ok((target, format))
}

fn default_format(at: At<'_>) -> Result<LogFormat, CompileError> {
    Ok(LogFormat::Text(format(at, DEFAULT)?))
}

/// A format, without its content type.
pub fn substitution(
    at: At<'_>,
    m: &core::SubstitutionFormatString,
) -> Result<LogFormat, CompileError> {
    use core::substitution_format_string::Format as Given;
    let core::SubstitutionFormatString {
        omit_empty_values,
        content_type,
        formatters,
        json_format_options,
        format: given,
    } = m;
    unsupported!(at, formatters);
    // A log line has none; see `listener/local_reply`.
    elsewhere!(content_type);
    ignored!("fields are sorted", json_format_options);
    Ok(match required!(at, given) {
        Given::TextFormat(text) => LogFormat::Text(format(at.field("text_format"), text)?),
        Given::JsonFormat(object) => LogFormat::Json {
            fields: json_object(at.field("json_format"), object, 0)?,
            omit_empty: *omit_empty_values,
        },
        Given::TextFormatSource(source) => {
            let at = at.field("text_format_source");
            let text = String::from_utf8(values::data_source(at, source)?);
            LogFormat::Text(format(at, &text.map_err(|e| at.error(e))?)?)
        }
    })
}

fn json_object(
    at: At<'_>,
    object: &pb::Struct,
    depth: u32,
) -> Result<Vec<JsonField>, CompileError> {
    if depth > MAX_DEPTH {
        return at.fail("is nested too deep");
    }
    let sorted: BTreeMap<_, _> = object.fields.iter().collect();
    let compiled = sorted.into_iter().map(|(key, value)| {
        let value = json_value(at.field(key), value, depth + 1)?;
        Ok(JsonField::new(key, value))
    });
    compiled.collect()
}

fn json_value(at: At<'_>, value: &pb::Value, depth: u32) -> Result<JsonValue, CompileError> {
    use pb::value::Kind;
    Ok(match &value.kind {
        None | Some(Kind::NullValue(_)) => JsonValue::Null,
        Some(Kind::NumberValue(number)) => JsonValue::Number(*number),
        Some(Kind::BoolValue(value)) => JsonValue::Bool(*value),
        Some(Kind::StringValue(text)) => JsonValue::Format(format(at, text)?),
        Some(Kind::StructValue(object)) => JsonValue::Object(json_object(at, object, depth)?),
        Some(Kind::ListValue(list)) => {
            if depth > MAX_DEPTH {
                return at.fail("is nested too deep");
            }
            let item = |at: At<'_>, value: &_| json_value(at, value, depth + 1);
            JsonValue::List(each(at, "", &list.values, item)?)
        }
    })
}

/// A format string.
pub fn format(at: At<'_>, text: &str) -> Result<Format, CompileError> {
    let mut parts = Vec::new();
    let mut rest = text;
    while let Some(percent) = rest.find('%') {
        push_literal(&mut parts, &rest[..percent]);
        rest = &rest[percent + 1..];
        if let Some(after) = rest.strip_prefix('%') {
            parts.push(Part::Operator(Operator::Percent));
            rest = after;
            continue;
        }
        let end = command_end(rest)
            .ok_or_else(|| at.error(format_args!("`%{rest}` has no closing `%`")))?;
        parts.push(Part::Operator(operator(at, &rest[..end])?));
        rest = &rest[end + 1..];
    }
    push_literal(&mut parts, rest);
    Ok(Format(parts))
}

fn push_literal(parts: &mut Vec<Part>, text: &str) {
    if !text.is_empty() {
        parts.push(Part::Literal(text.into()));
    }
}

/// The place of the closing `%`: not within parentheses, where `%START_TIME(%s)%` has its own.
fn command_end(command: &str) -> Option<usize> {
    let mut inside = false;
    command.char_indices().find_map(|(index, c)| {
        match c {
            '(' => inside = true,
            ')' => inside = false,
            '%' if !inside => return Some(index),
            _ => {}
        }
        None
    })
}

/// `NAME`, `NAME(ARGUMENT)` or `NAME(ARGUMENT):LENGTH`.
fn operator(at: At<'_>, command: &str) -> Result<Operator, CompileError> {
    let malformed = || at.error(format_args!("`%{command}%` is not a command operator"));
    let (name, argument, length) = match command.split_once('(') {
        None => match command.split_once(':') {
            None => (command, None, None),
            Some((name, length)) => (name, None, Some(length)),
        },
        Some((name, rest)) => {
            let (argument, after) = rest.rsplit_once(')').ok_or_else(malformed)?;
            let length = match after {
                "" => None,
                after => Some(after.strip_prefix(':').ok_or_else(malformed)?),
            };
            (name, Some(argument), length)
        }
    };
    let max = match length {
        None => None,
        Some(digits) => Some(digits.parse::<usize>().map_err(|_| malformed())?),
    };
    if let Some(operator) = with_argument(at, name, argument, max)? {
        return Ok(operator);
    }
    if argument.is_some() || max.is_some() {
        return Err(malformed());
    }
    simple(name).ok_or_else(|| {
        at.error(format_args!(
            "command operator `%{command}%` is not supported"
        ))
    })
}

fn with_argument(
    at: At<'_>,
    name: &str,
    argument: Option<&str>,
    max: Option<usize>,
) -> Result<Option<Operator>, CompileError> {
    let headers = |argument: &str| -> Result<(HeaderName, Option<HeaderName>), CompileError> {
        Ok(match argument.split_once('?') {
            None => (matcher::header_name(at, argument)?, None),
            Some((first, second)) => (
                matcher::header_name(at, first)?,
                Some(matcher::header_name(at, second)?),
            ),
        })
    };
    let Some(argument) = argument else {
        return Ok(match name {
            "START_TIME" => Some(Operator::StartTime(None)),
            _ => None,
        });
    };
    Ok(Some(match name {
        "START_TIME" => Operator::StartTime(Some(argument.into())),
        "REQ" | "REQUEST_HEADER" => {
            let (name, alternative) = headers(argument)?;
            Operator::RequestHeader {
                name,
                alternative,
                max,
            }
        }
        "RESP" | "RESPONSE_HEADER" => {
            let (name, alternative) = headers(argument)?;
            Operator::ResponseHeader {
                name,
                alternative,
                max,
            }
        }
        "TRAILER" | "RESPONSE_TRAILER" => Operator::ResponseTrailer {
            name: matcher::header_name(at, argument)?,
            max,
        },
        "GRPC_STATUS" => Operator::GrpcStatus,
        "DYNAMIC_METADATA" => {
            let mut keys = argument.split(':').map(Box::from);
            Operator::DynamicMetadata {
                namespace: keys.next().unwrap_or_default(),
                path: keys.collect(),
                max,
            }
        }
        _ => return Ok(None),
    }))
}

fn simple(name: &str) -> Option<Operator> {
    use Operator as O;
    let port = true;
    Some(match name {
        "DURATION" => O::Duration,
        "REQUEST_DURATION" => O::RequestDuration,
        "RESPONSE_DURATION" => O::ResponseDuration,
        "BYTES_RECEIVED" => O::BytesReceived,
        "BYTES_SENT" => O::BytesSent,
        "PROTOCOL" => O::Protocol,
        "RESPONSE_CODE" => O::ResponseCode,
        "RESPONSE_CODE_DETAILS" => O::ResponseCodeDetails,
        "CONNECTION_TERMINATION_DETAILS" => O::ConnectionTerminationDetails,
        "RESPONSE_FLAGS" => O::ResponseFlags,
        "RESPONSE_FLAGS_LONG" => O::ResponseFlagsLong,
        "ROUTE_NAME" => O::RouteName,
        "VIRTUAL_CLUSTER_NAME" => O::VirtualClusterName,
        "UPSTREAM_CLUSTER" | "UPSTREAM_CLUSTER_RAW" => O::UpstreamCluster,
        "UPSTREAM_HOST" | "UPSTREAM_REMOTE_ADDRESS" => O::UpstreamHost,
        "UPSTREAM_LOCAL_ADDRESS" => O::UpstreamLocalAddress,
        "LOCAL_REPLY_BODY" => O::LocalReplyBody,
        "UPSTREAM_TRANSPORT_FAILURE_REASON" => O::UpstreamTransportFailureReason,
        "UPSTREAM_REQUEST_ATTEMPT_COUNT" => O::UpstreamRequestAttemptCount,
        "UPSTREAM_PEER_URI_SAN" => O::UpstreamPeerUriSan,
        "DOWNSTREAM_REMOTE_ADDRESS" => O::DownstreamRemoteAddress { port },
        "DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT" => O::DownstreamRemoteAddress { port: false },
        "DOWNSTREAM_DIRECT_REMOTE_ADDRESS" => O::DownstreamDirectRemoteAddress { port },
        "DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT" => {
            O::DownstreamDirectRemoteAddress { port: false }
        }
        "DOWNSTREAM_LOCAL_ADDRESS" => O::DownstreamLocalAddress { port },
        "DOWNSTREAM_LOCAL_ADDRESS_WITHOUT_PORT" => O::DownstreamLocalAddress { port: false },
        "DOWNSTREAM_LOCAL_PORT" => O::DownstreamLocalPort,
        "REQUESTED_SERVER_NAME" => O::RequestedServerName,
        "DOWNSTREAM_PEER_URI_SAN" => O::DownstreamPeerUriSan,
        "DOWNSTREAM_LOCAL_URI_SAN" => O::DownstreamLocalUriSan,
        "DOWNSTREAM_PEER_SUBJECT" => O::DownstreamPeerSubject,
        "DOWNSTREAM_TLS_VERSION" => O::DownstreamTlsVersion,
        "DOWNSTREAM_TLS_CIPHER" => O::DownstreamTlsCipher,
        "CONNECTION_ID" => O::ConnectionId,
        "HOSTNAME" => O::Hostname,
        "GRPC_STATUS" | "GRPC_STATUS_NUMBER" => O::GrpcStatus,
        "FILTER_CHAIN_NAME" => O::FilterChainName,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Format, CompileError> {
        format(At::root("f"), text)
    }

    #[test]
    fn literals_operators_and_percent_signs() {
        let Format(parts) = parse("a %PROTOCOL% 100%% %START_TIME(%s.%3f)%z").unwrap();
        let shown: Vec<String> = parts
            .iter()
            .map(|part| match part {
                Part::Literal(text) => text.to_string(),
                Part::Operator(Operator::Protocol) => "<protocol>".into(),
                Part::Operator(Operator::Percent) => "<%>".into(),
                Part::Operator(Operator::StartTime(Some(f))) => format!("<{f}>"),
                Part::Operator(_) => "?".into(),
            })
            .collect();
        assert_eq!(
            shown,
            ["a ", "<protocol>", " 100", "<%>", " ", "<%s.%3f>", "z"]
        );
    }

    #[test]
    fn headers_with_alternative_and_length() {
        let Format(parts) = parse("%REQ(X-ENVOY-ORIGINAL-PATH?:PATH):12%").unwrap();
        let [
            Part::Operator(Operator::RequestHeader {
                name,
                alternative,
                max,
            }),
        ] = &parts[..]
        else {
            panic!("one operator");
        };
        assert_eq!(&*name.name, "x-envoy-original-path");
        assert_eq!(&*alternative.as_ref().unwrap().name, ":path");
        assert_eq!(*max, Some(12));
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        for text in [
            "%",
            "%NOPE%",
            "%REQ(a b)%",
            "%REQ(a):x%",
            "%DURATION:3%",
            "%REQ(a%",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
        parse(DEFAULT).unwrap();
    }
}
