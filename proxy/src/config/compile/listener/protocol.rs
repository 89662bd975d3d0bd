//! Options of HTTP/1 and HTTP/2, for both sides.

use std::time::Duration;

use xds_proto::envoy::config::core::v3 as pb;
use xds_proto::envoy::extensions::http::header_formatters::preserve_case::v3::PreserveCaseFormatterConfig;

use crate::config::compile::support::{
    At, CompileError, bool_or, duration, ignored, positive, required, u32_or, unknown_type,
    unsupported,
};
use crate::config::compile::values::{extension, of_type};
use crate::config::http::{Http1Options, Http2Options};

/// Envoy's default windows, bytes: 16 MiB and 24 MiB.
const STREAM_WINDOW: u32 = 16 << 20;
const CONNECTION_WINDOW: u32 = 24 << 20;
/// Envoy's default for concurrent streams.
const STREAMS: u32 = 1024;
/// Bytes of a frame we accept; HTTP/2's smallest, as Envoy's.
const FRAME: u32 = 16 << 10;
/// Streams a peer may have reset without a response before it receives GOAWAY.
const RESETS: usize = 200;

pub fn http1_options(
    at: At<'_>,
    m: Option<&pb::Http1ProtocolOptions>,
) -> Result<Http1Options, CompileError> {
    let none = pb::Http1ProtocolOptions::default();
    let pb::Http1ProtocolOptions {
        allow_absolute_url,
        accept_http_10,
        default_host_for_http_10,
        header_key_format,
        enable_trailers,
        allow_chunked_length,
        override_stream_error_on_invalid_http_message,
        send_fully_qualified_url,
        use_balsa_parser,
        allow_custom_methods,
        ignore_http_11_upgrade,
    } = m.unwrap_or(&none);
    unsupported!(
        at,
        default_host_for_http_10,
        allow_chunked_length,
        send_fully_qualified_url,
        ignore_http_11_upgrade,
    );
    ignored!("trailers are always relayed", enable_trailers);
    ignored!(
        "a malformed message always ends the connection",
        override_stream_error_on_invalid_http_message
    );
    ignored!(
        "there is one parser, and it takes any token for a method",
        use_balsa_parser,
        allow_custom_methods
    );
    let formatter = match header_key_format {
        Some(m) => Some(formatter(at.field("header_key_format"), m)?),
        None => None,
    };
    Ok(Http1Options {
        accept_http_10: *accept_http_10,
        allow_absolute_url: bool_or(allow_absolute_url, true),
        preserve_case: formatter.is_some(),
        forward_reason: formatter.is_some_and(|formatter| formatter.forward_reason),
    })
}

/// Header names keep their spelling.
struct PreserveCase {
    forward_reason: bool,
}

fn formatter(
    at: At<'_>,
    m: &pb::http1_protocol_options::HeaderKeyFormat,
) -> Result<PreserveCase, CompileError> {
    use pb::http1_protocol_options::header_key_format::HeaderFormat as Format;
    let pb::http1_protocol_options::HeaderKeyFormat { header_format } = m;
    match required!(at, header_format) {
        Format::ProperCaseWords(_) => at
            .field("proper_case_words")
            .fail("is not supported; use preserve_case"),
        Format::StatefulFormatter(m) => {
            let at = at.field("stateful_formatter");
            let any = extension(at, m)?;
            let inner = at.field("typed_config");
            let Some(PreserveCaseFormatterConfig {
                forward_reason_phrase,
                formatter_type_on_envoy_headers,
            }) = &of_type(inner, any)?
            else {
                return unknown_type(at, any);
            };
            unsupported!(inner, formatter_type_on_envoy_headers);
            Ok(PreserveCase {
                forward_reason: *forward_reason_phrase,
            })
        }
    }
}

pub fn http2_options(
    at: At<'_>,
    m: Option<&pb::Http2ProtocolOptions>,
) -> Result<Http2Options, CompileError> {
    let none = pb::Http2ProtocolOptions::default();
    let pb::Http2ProtocolOptions {
        hpack_table_size,
        max_concurrent_streams,
        initial_stream_window_size,
        initial_connection_window_size,
        allow_connect,
        allow_metadata,
        max_outbound_frames,
        max_outbound_control_frames,
        max_consecutive_inbound_frames_with_empty_payload,
        max_inbound_priority_frames_per_stream,
        max_inbound_window_update_frames_per_data_frame_sent,
        stream_error_on_invalid_http_messaging,
        override_stream_error_on_invalid_http_message,
        custom_settings_parameters,
        connection_keepalive,
        use_oghttp2_codec,
        max_metadata_size,
        enable_huffman_encoding,
        max_header_field_size_kb,
        disallow_obs_text,
        stream_reset_burst,
        stream_reset_rate,
    } = m.unwrap_or(&none);
    unsupported!(at, allow_metadata, custom_settings_parameters);
    ignored!(
        "the codec's own table size holds",
        hpack_table_size,
        enable_huffman_encoding
    );
    ignored!(
        "floods are bounded by the codec, tighter than by these counts",
        max_outbound_frames,
        max_outbound_control_frames,
        max_consecutive_inbound_frames_with_empty_payload,
        max_inbound_priority_frames_per_stream,
        max_inbound_window_update_frames_per_data_frame_sent,
        stream_reset_rate
    );
    ignored!(
        "a malformed message resets its stream",
        stream_error_on_invalid_http_messaging,
        override_stream_error_on_invalid_http_message
    );
    ignored!("there is one codec", use_oghttp2_codec, max_metadata_size);
    ignored!(
        "heads are limited as a whole; values are checked as in HTTP/1",
        max_header_field_size_kb,
        disallow_obs_text
    );
    let (keepalive_interval, keepalive_timeout) =
        keepalive(at.field("connection_keepalive"), connection_keepalive)?;
    Ok(Http2Options {
        max_concurrent_streams: u32_or(max_concurrent_streams, STREAMS).max(1),
        initial_stream_window: window(
            at.field("initial_stream_window_size"),
            initial_stream_window_size,
            STREAM_WINDOW,
        )?,
        initial_connection_window: window(
            at.field("initial_connection_window_size"),
            initial_connection_window_size,
            CONNECTION_WINDOW,
        )?,
        max_frame_size: FRAME,
        max_resets: match stream_reset_burst {
            Some(burst) => usize::try_from(burst.value).unwrap_or(usize::MAX),
            None => RESETS,
        },
        keepalive_interval,
        keepalive_timeout,
        allow_connect: *allow_connect,
    })
}

fn window(
    at: At<'_>,
    value: &Option<xds_proto::google::protobuf::UInt32Value>,
    default: u32,
) -> Result<u32, CompileError> {
    match u32_or(value, default) {
        size @ 65_535..=0x7fff_ffff => Ok(size),
        size => at.fail(format_args!("{size} is not between 65535 and 2147483647")),
    }
}

fn keepalive(
    at: At<'_>,
    m: &Option<pb::KeepaliveSettings>,
) -> Result<(Option<Duration>, Duration), CompileError> {
    let default = Duration::from_secs(20);
    let Some(m) = m else {
        return Ok((None, default));
    };
    let pb::KeepaliveSettings {
        interval,
        timeout,
        interval_jitter,
        connection_idle_interval,
    } = m;
    unsupported!(at, connection_idle_interval);
    ignored!(
        "connections begin at different times; that is jitter enough",
        interval_jitter
    );
    Ok((
        duration(at.field("interval"), interval)?.filter(|time| !time.is_zero()),
        positive(at.field("timeout"), timeout, default)?,
    ))
}
