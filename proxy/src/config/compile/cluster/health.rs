//! Active health checks.

use std::sync::Arc;
use std::time::Duration;

use xds_proto::envoy::config::cluster::v3 as cluster_pb;
use xds_proto::envoy::config::core::v3 as core;
use xds_proto::envoy::config::core::v3::health_check as pb;
use xds_proto::envoy::extensions::health_check::event_sinks::file::v3 as file;
use xds_proto::envoy::r#type::v3::{CodecClientType, Int64Range};

use crate::config::cluster::{Discovery, UpstreamProtocol};
use crate::config::compile::Compiler;
use crate::config::compile::headers::{append, request_edits};
use crate::config::compile::matcher::string;
use crate::config::compile::support::{
    At, CompileError, bool_or, decode, duration, each, ignored, known, positive, required,
    type_name, unknown_type, unsupported,
};
use crate::config::compile::values::{extension, string_metadata};
use crate::config::health::{
    CheckIntervals, CheckJitter, EventLog, GrpcHealthCheck, HealthCheck, HealthProtocol,
    HttpHealthCheck, Payloads, StatusRange, TcpHealthCheck,
};
use crate::config::route::HeaderEdits;
use crate::log_sink::Destination;

/// Envoy's default for `no_traffic_interval`.
const NO_TRAFFIC: Duration = Duration::from_secs(60);
/// Envoy's default for `response_buffer_size`.
const RESPONSE_BUFFER: usize = 1024;
/// Bytes of a body that are kept where `response_buffer_size` is 0, or larger.
const MAX_RESPONSE_BUFFER: usize = 1 << 20;
/// Bytes that a check may send, or look for.
const MAX_PAYLOAD: usize = 64 << 10;

/// The health checks of a cluster: as in Envoy, at most one.
pub fn checks(
    compiler: &Compiler,
    at: At<'_>,
    m: &cluster_pb::Cluster,
    discovery: &Discovery,
    protocol: UpstreamProtocol,
) -> Result<Option<Arc<HealthCheck>>, CompileError> {
    let Some(first) = m.health_checks.first() else {
        return Ok(None);
    };
    if m.health_checks.len() > 1 {
        let at = at.index("health_checks", 1);
        return at.fail("only one health check of a cluster is supported, as in Envoy");
    }
    if m.close_connections_on_host_health_failure {
        let at = at.field("close_connections_on_host_health_failure");
        return at.fail("is not supported by this proxy");
    }
    let at = at.index("health_checks", 0);
    if matches!(discovery, Discovery::OriginalDst { .. }) {
        return at.fail("endpoints of an original-destination cluster are not kept, nor checked");
    }
    let check = health_check(compiler, at, first)?;
    if matches!(check.protocol, HealthProtocol::Grpc(_)) && protocol == UpstreamProtocol::Http1 {
        let at = at.field("grpc_health_check");
        return at.fail("needs a cluster that has HTTP/2, as in Envoy");
    }
    Ok(Some(Arc::new(check)))
}

fn health_check(
    compiler: &Compiler,
    at: At<'_>,
    m: &core::HealthCheck,
) -> Result<HealthCheck, CompileError> {
    let core::HealthCheck {
        timeout,
        interval,
        initial_jitter,
        interval_jitter,
        interval_jitter_percent,
        unhealthy_threshold,
        healthy_threshold,
        alt_port,
        reuse_connection,
        no_traffic_interval,
        no_traffic_healthy_interval,
        unhealthy_interval,
        unhealthy_edge_interval,
        healthy_edge_interval,
        event_log_path,
        event_logger,
        event_service,
        always_log_health_check_failures,
        always_log_health_check_success,
        tls_options,
        transport_socket_match_criteria,
        health_checker,
    } = m;
    unsupported!(at, event_service);
    ignored!("Envoy does not read it either", alt_port);
    let given = |name, value: &_, default| positive(at.field(name), value, default);
    let needed = |name, value: &Option<_>| match value {
        Some(_) => given(name, value, Duration::ZERO),
        None => at.field(name).fail("is required"),
    };
    let healthy = needed("interval", interval)?;
    let unhealthy = given("unhealthy_interval", unhealthy_interval, healthy)?;
    let no_traffic = given("no_traffic_interval", no_traffic_interval, NO_TRAFFIC)?;
    let jitter = |name, value: &_| Ok(duration(at.field(name), value)?.unwrap_or_default());
    let protocol = protocol(at, required!(at, health_checker))?;
    Ok(HealthCheck {
        timeout: needed("timeout", timeout)?,
        intervals: CheckIntervals {
            healthy,
            healthy_edge: given("healthy_edge_interval", healthy_edge_interval, healthy)?,
            unhealthy,
            unhealthy_edge: given(
                "unhealthy_edge_interval",
                unhealthy_edge_interval,
                unhealthy,
            )?,
            no_traffic,
            no_traffic_healthy: given(
                "no_traffic_healthy_interval",
                no_traffic_healthy_interval,
                no_traffic,
            )?,
        },
        jitter: CheckJitter {
            initial: jitter("initial_jitter", initial_jitter)?,
            interval: jitter("interval_jitter", interval_jitter)?,
            percent: *interval_jitter_percent,
        },
        unhealthy_threshold: required!(at, unhealthy_threshold).value,
        healthy_threshold: required!(at, healthy_threshold).value,
        reuse_connection: bool_or(reuse_connection, true),
        alpn: tls_options.as_ref().and_then(alpn),
        transport_metadata: transport_socket_match_criteria
            .as_ref()
            .map(string_metadata),
        events: EventLog {
            sinks: sinks(compiler, at, event_log_path, event_logger)?,
            all_failures: *always_log_health_check_failures,
            all_successes: *always_log_health_check_success,
        },
        protocol,
    })
}

/// As in Envoy an empty list leaves the transport's own.
fn alpn(m: &pb::TlsOptions) -> Option<Vec<Vec<u8>>> {
    let pb::TlsOptions { alpn_protocols } = m;
    let names = alpn_protocols.iter().map(|name| name.clone().into_bytes());
    (!alpn_protocols.is_empty()).then(|| names.collect())
}

fn sinks(
    compiler: &Compiler,
    at: At<'_>,
    path: &str,
    loggers: &[core::TypedExtensionConfig],
) -> Result<Vec<Arc<crate::log_sink::Sink>>, CompileError> {
    let open = |at: At<'_>, path: &str| {
        let sink = compiler.sinks.open(Destination::File(path.into()));
        sink.map_err(|error| at.error(format_args!("{path}: {error}")))
    };
    let mut all = each(at, "event_logger", loggers, |at, m| {
        let any = extension(at, m)?;
        if type_name(any)
            != "envoy.extensions.health_check.event_sinks.file.v3.HealthCheckEventFileSink"
        {
            return unknown_type(at, any);
        }
        let at = at.field("typed_config");
        let m: file::HealthCheckEventFileSink = decode(at, any)?;
        let file::HealthCheckEventFileSink { event_log_path } = &m;
        let at = at.field("event_log_path");
        match event_log_path.is_empty() {
            true => at.fail("is required"),
            false => open(at, event_log_path),
        }
    })?;
    if !path.is_empty() {
        all.push(open(at.field("event_log_path"), path)?);
    }
    Ok(all)
}

fn protocol(
    at: At<'_>,
    m: &core::health_check::HealthChecker,
) -> Result<HealthProtocol, CompileError> {
    use core::health_check::HealthChecker;
    match m {
        HealthChecker::HttpHealthCheck(m) => {
            let check = http(at.field("http_health_check"), m)?;
            Ok(HealthProtocol::Http(check))
        }
        HealthChecker::GrpcHealthCheck(m) => {
            let check = grpc(at.field("grpc_health_check"), m)?;
            Ok(HealthProtocol::Grpc(check))
        }
        HealthChecker::TcpHealthCheck(m) => {
            let check = tcp(at.field("tcp_health_check"), m)?;
            Ok(HealthProtocol::Tcp(check))
        }
        HealthChecker::CustomHealthCheck(_) => at
            .field("custom_health_check")
            .fail("is not supported by this proxy"),
    }
}

fn http(at: At<'_>, m: &pb::HttpHealthCheck) -> Result<HttpHealthCheck, CompileError> {
    let pb::HttpHealthCheck {
        host,
        path,
        send,
        receive,
        response_buffer_size,
        request_headers_to_add,
        request_headers_to_remove,
        expected_statuses,
        retriable_statuses,
        codec_client_type,
        service_name_matcher,
        method,
    } = m;
    let method = method_of(at.field("method"), *method)?;
    let send = send
        .as_ref()
        .map(|m| payload(at.field("send"), m))
        .transpose()?;
    if send.is_some() && matches!(method, "GET" | "HEAD" | "DELETE" | "TRACE") {
        return at
            .field("send")
            .fail(format_args!("a request by {method} has no body"));
    }
    let at_path = at.field("path");
    if path.is_empty() {
        return at_path.fail("is required");
    }
    if !is_target(path) {
        return at_path.fail("has characters that no request's path may have");
    }
    let mut expected = each(at, "expected_statuses", expected_statuses, range)?;
    if expected.is_empty() {
        expected.push(StatusRange {
            start: 200,
            end: 201,
        });
    }
    let receive = payloads(at, receive)?;
    let response_buffer = match response_buffer_size.as_ref().map(|size| size.value) {
        None => RESPONSE_BUFFER,
        Some(0) => MAX_RESPONSE_BUFFER,
        Some(size) => {
            usize::try_from(size).map_or(MAX_RESPONSE_BUFFER, |size| size.min(MAX_RESPONSE_BUFFER))
        }
    };
    if receive.0.iter().map(|part| part.len()).sum::<usize>() > response_buffer {
        return at
            .field("receive")
            .fail("is longer than response_buffer_size");
    }
    Ok(HttpHealthCheck {
        method,
        path: path.as_str().into(),
        host: authority(at.field("host"), host)?,
        send,
        expected,
        retriable: each(at, "retriable_statuses", retriable_statuses, range)?,
        edits: request_edits(at, request_headers_to_add, request_headers_to_remove)?,
        service_name: match service_name_matcher {
            Some(m) => Some(string(at.field("service_name_matcher"), m)?),
            None => None,
        },
        http2: match known(at.field("codec_client_type"), *codec_client_type)? {
            CodecClientType::Http1 => false,
            CodecClientType::Http2 => true,
            CodecClientType::Http3 => {
                return at
                    .field("codec_client_type")
                    .fail("HTTP/3 is not supported");
            }
        },
        receive,
        response_buffer,
    })
}

fn method_of(at: At<'_>, method: i32) -> Result<&'static str, CompileError> {
    use core::RequestMethod as Method;
    Ok(match known(at, method)? {
        Method::MethodUnspecified | Method::Get => "GET",
        Method::Head => "HEAD",
        Method::Post => "POST",
        Method::Put => "PUT",
        Method::Delete => "DELETE",
        Method::Options => "OPTIONS",
        Method::Trace => "TRACE",
        Method::Patch => "PATCH",
        Method::Connect => return at.fail("CONNECT checks nothing"),
    })
}

fn is_target(path: &str) -> bool {
    path.bytes().all(|byte| byte.is_ascii_graphic())
}

/// `None`: not given.
fn authority(at: At<'_>, host: &str) -> Result<Option<Box<str>>, CompileError> {
    match host {
        "" => Ok(None),
        host if is_target(host) => Ok(Some(host.into())),
        _ => at.fail("has characters that no authority may have"),
    }
}

fn range(at: At<'_>, m: &Int64Range) -> Result<StatusRange, CompileError> {
    let Int64Range { start, end } = m;
    match (u16::try_from(*start), u16::try_from(*end)) {
        (Ok(start), Ok(end)) if start >= 100 && start < end && end <= 600 => {
            Ok(StatusRange { start, end })
        }
        _ => at.fail("is not a range of statuses from 100 to below 600"),
    }
}

fn grpc(at: At<'_>, m: &pb::GrpcHealthCheck) -> Result<GrpcHealthCheck, CompileError> {
    let pb::GrpcHealthCheck {
        service_name,
        authority: host,
        initial_metadata,
    } = m;
    Ok(GrpcHealthCheck {
        service: service_name.as_str().into(),
        authority: authority(at.field("authority"), host)?,
        metadata: HeaderEdits {
            append: each(at, "initial_metadata", initial_metadata, append)?,
            remove: Vec::new(),
        },
    })
}

fn tcp(at: At<'_>, m: &pb::TcpHealthCheck) -> Result<TcpHealthCheck, CompileError> {
    let pb::TcpHealthCheck {
        send,
        receive,
        proxy_protocol_config,
    } = m;
    unsupported!(at, proxy_protocol_config);
    Ok(TcpHealthCheck {
        send: send
            .as_ref()
            .map(|m| payload(at.field("send"), m))
            .transpose()?,
        receive: payloads(at, receive)?,
    })
}

fn payloads(at: At<'_>, all: &[pb::Payload]) -> Result<Payloads, CompileError> {
    let parts: Vec<Box<[u8]>> = each(at, "receive", all, |at, m| {
        payload(at, m).map(|bytes| Box::from(&*bytes))
    })?;
    let bytes: usize = parts.iter().map(|part| part.len()).sum();
    match bytes > MAX_PAYLOAD {
        true => at.field("receive").fail("is larger than 64 KiB"),
        false => Ok(Payloads(parts)),
    }
}

fn payload(at: At<'_>, m: &pb::Payload) -> Result<bytes::Bytes, CompileError> {
    use pb::payload::Payload as Given;
    let pb::Payload { payload } = m;
    let bytes = match required!(at, payload) {
        Given::Text(text) => hex(text).ok_or_else(|| {
            let at = at.field("text");
            at.error(format_args!("`{}` is not hexadecimal", text.escape_debug()))
        })?,
        Given::Binary(bytes) => bytes.clone(),
    };
    match bytes.len() {
        0 => at.fail("is empty"),
        1..=MAX_PAYLOAD => Ok(bytes.into()),
        _ => at.fail("is larger than 64 KiB"),
    }
}

fn hex(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| {
        char::from(byte)
            .to_digit(16)
            .and_then(|d| u8::try_from(d).ok())
    };
    let pairs = text.as_bytes().chunks(2).map(|pair| match *pair {
        [high, low] => Some((digit(high)? << 4) | digit(low)?),
        _ => None,
    });
    pairs.collect()
}
