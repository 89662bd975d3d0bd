//! The connection manager's fields: refused, without effect, or read; and those that it shares with
//! clusters.

use std::time::Duration;

use xds_proto::envoy::config::core::v3 as core;
use xds_proto::envoy::extensions::filters::network::http_connection_manager::v3 as pb;

use crate::config::compile::support::{
    At, CompileError, bool_or, elsewhere, ignored, known, timeout, u32_opt, u32_or, unsupported,
};

use crate::config::http::UnderscoresInNames;

const HOUR: Duration = Duration::from_secs(3600);

/// Every field of the manager: refused, without effect, or read by [`super::http::manager`].
pub fn check(at: At<'_>, m: &pb::HttpConnectionManager) -> Result<(), CompileError> {
    let pb::HttpConnectionManager {
        codec_type,
        stat_prefix,
        http_filters,
        add_user_agent,
        tracing,
        common_http_protocol_options,
        http1_safe_max_connection_duration,
        http_protocol_options,
        http2_protocol_options,
        http3_protocol_options,
        server_name,
        server_header_transformation,
        scheme_header_transformation,
        max_request_headers_kb,
        stream_idle_timeout,
        stream_flush_timeout,
        request_timeout,
        request_headers_timeout,
        drain_timeout,
        drain_timeout_jitter,
        delayed_close_timeout,
        access_log,
        access_log_flush_interval,
        flush_access_log_on_new_request,
        access_log_options,
        use_remote_address,
        xff_num_trusted_hops,
        original_ip_detection_extensions,
        early_header_mutation_extensions,
        internal_address_config,
        skip_xff_append,
        via,
        generate_request_id,
        preserve_external_request_id,
        always_set_request_id_in_response,
        forward_client_cert_details,
        set_current_client_cert_details,
        forward_client_cert_matcher,
        proxy_100_continue,
        represent_ipv4_remote_address_as_ipv4_mapped_ipv6,
        upgrade_configs,
        normalize_path,
        merge_slashes,
        path_with_escaped_slashes_action,
        request_id_extension,
        local_reply_config,
        strip_matching_host_port,
        stream_error_on_invalid_http_message,
        path_normalization_options,
        strip_trailing_host_dot,
        proxy_status_config,
        typed_header_validation_config,
        append_x_forwarded_port,
        append_local_overload,
        add_proxy_protocol_connection_state,
        forward_proto_config,
        route_specifier,
        strip_port_mode,
    } = m;
    let add_user_agent = &bool_or(add_user_agent, false);
    unsupported!(
        at,
        add_user_agent,
        http3_protocol_options,
        scheme_header_transformation,
        access_log_flush_interval,
        flush_access_log_on_new_request,
        access_log_options,
        original_ip_detection_extensions,
        early_header_mutation_extensions,
        internal_address_config,
        forward_client_cert_matcher,
        represent_ipv4_remote_address_as_ipv4_mapped_ipv6,
        request_id_extension,
        path_normalization_options,
        typed_header_validation_config,
        append_x_forwarded_port,
        forward_proto_config,
    );
    ignored!("spans are not made yet", tracing);
    ignored!(
        "a stalled reader falls under the stream idle time-out",
        stream_flush_timeout
    );
    ignored!(
        "time-outs of connections end them only between requests",
        http1_safe_max_connection_duration
    );
    ignored!(
        "every connection drains at its own next request",
        drain_timeout_jitter
    );
    ignored!(
        "a malformed message always ends an HTTP/1 connection and an HTTP/2 stream",
        stream_error_on_invalid_http_message
    );
    ignored!(
        "only the PROXY protocol filter reads it, and that is rejected",
        add_proxy_protocol_connection_state
    );
    ignored!(
        "refusals by a limit always carry a reason",
        append_local_overload
    );
    elsewhere! {
        stat_prefix,
        codec_type, http_filters, common_http_protocol_options,
        http_protocol_options, http2_protocol_options, server_name, server_header_transformation,
        max_request_headers_kb, stream_idle_timeout, request_timeout, request_headers_timeout,
        drain_timeout, delayed_close_timeout, access_log, use_remote_address,
        xff_num_trusted_hops, skip_xff_append, via, generate_request_id,
        preserve_external_request_id, always_set_request_id_in_response,
        forward_client_cert_details, set_current_client_cert_details, upgrade_configs,
        normalize_path, merge_slashes, path_with_escaped_slashes_action, strip_matching_host_port,
        strip_trailing_host_dot, proxy_status_config, local_reply_config, route_specifier, strip_port_mode,
        proxy_100_continue,
    }
    Ok(())
}

/// envoy.config.core.v3.HttpProtocolOptions of the downstream side.
pub struct CommonHttpOptions {
    pub idle_timeout: Option<Duration>,
    pub max_connection_duration: Option<Duration>,
    pub max_stream_duration: Option<Duration>,
    pub max_requests_per_connection: Option<u32>,
    pub max_headers_count: usize,
    pub underscores: UnderscoresInNames,
}

impl CommonHttpOptions {
    pub fn of(at: At<'_>, m: &Option<core::HttpProtocolOptions>) -> Result<Self, CompileError> {
        let none = core::HttpProtocolOptions::default();
        let at = at.field("common_http_protocol_options");
        let core::HttpProtocolOptions {
            idle_timeout,
            max_connection_duration,
            max_connection_duration_jitter,
            max_headers_count,
            max_response_headers_kb,
            max_stream_duration,
            headers_with_underscores_action,
            max_requests_per_connection,
        } = m.as_ref().unwrap_or(&none);
        ignored!(
            "workers accept at different times; that is jitter enough",
            max_connection_duration_jitter
        );
        ignored!("for upstreams only", max_response_headers_kb);
        Ok(Self {
            idle_timeout: timeout(at.field("idle_timeout"), idle_timeout, Some(HOUR))?,
            max_connection_duration: timeout(
                at.field("max_connection_duration"),
                max_connection_duration,
                None,
            )?,
            max_stream_duration: timeout(
                at.field("max_stream_duration"),
                max_stream_duration,
                None,
            )?,
            max_requests_per_connection: u32_opt(max_requests_per_connection).filter(|n| *n > 0),
            max_headers_count: u32_or(max_headers_count, 100) as usize,
            underscores: underscores(at, *headers_with_underscores_action)?,
        })
    }
}

fn underscores(at: At<'_>, action: i32) -> Result<UnderscoresInNames, CompileError> {
    use core::http_protocol_options::HeadersWithUnderscoresAction as Action;
    Ok(
        match known(at.field("headers_with_underscores_action"), action)? {
            Action::Allow => UnderscoresInNames::Allow,
            Action::DropHeader => UnderscoresInNames::Drop,
            Action::RejectRequest => UnderscoresInNames::Reject,
        },
    )
}
