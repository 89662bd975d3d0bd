//! The HTTP connection manager.

use std::sync::Arc;
use std::time::Duration;

use xds_proto::envoy::extensions::filters::network::http_connection_manager::v3 as pb;

use super::http_fields::{CommonHttpOptions, check};
use super::http_filters::filters;
use super::local_reply;
use super::protocol::{http1_options, http2_options};
use super::scope::Scope;
use crate::config::RouteRef;
use crate::config::access_log::AccessLog;
use crate::config::compile::filter::FilterScope;
use crate::config::compile::support::{
    At, CompileError, bool_or, duration, each, ignored, known, positive, required, timeout, u32_or,
    unsupported,
};
use crate::config::compile::{Compiler, access_log, route, values};
use crate::config::filter::HttpFilter;
use crate::config::http::{
    CodecType, ForwardClientCert, HttpConnectionManager, ServerHeader, StripPort,
};
use crate::message::path::{EscapedSlashes, Fragment, PathOptions};

type Hcm = pb::HttpConnectionManager;

/// envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager.
pub fn manager(
    scope: &mut Scope<'_>,
    at: At<'_>,
    m: &Hcm,
) -> Result<HttpConnectionManager, CompileError> {
    check(at, m)?;
    let Hcm {
        codec_type,
        http_filters,
        common_http_protocol_options,
        http_protocol_options,
        http2_protocol_options,
        server_name,
        server_header_transformation,
        max_request_headers_kb,
        stream_idle_timeout,
        request_timeout,
        request_headers_timeout,
        drain_timeout,
        delayed_close_timeout,
        access_log,
        use_remote_address,
        xff_num_trusted_hops,
        skip_xff_append,
        via,
        generate_request_id,
        preserve_external_request_id,
        always_set_request_id_in_response,
        forward_client_cert_details,
        set_current_client_cert_details,
        upgrade_configs,
        normalize_path,
        merge_slashes,
        path_with_escaped_slashes_action,
        strip_matching_host_port,
        strip_trailing_host_dot,
        proxy_100_continue,
        local_reply_config,
        proxy_status_config,
        route_specifier,
        stat_prefix,
        strip_port_mode,
        ..
    } = m;

    let common = CommonHttpOptions::of(at, common_http_protocol_options)?;
    let specifier = required!(at, route_specifier);
    let filters = filter_chain(scope, at, http_filters, stat_prefix)?;
    Ok(HttpConnectionManager {
        codec: codec(at, *codec_type)?,
        routes: route_source(at, specifier, scope)?,
        filters,
        access_log: logs(scope.compiler, at, access_log)?,
        path: path_options(
            at,
            normalize_path,
            *merge_slashes,
            *path_with_escaped_slashes_action,
        )?,
        strip_port: match (strip_matching_host_port, strip_port_mode) {
            (_, Some(pb::http_connection_manager::StripPortMode::StripAnyHostPort(true))) => {
                StripPort::Any
            }
            (true, _) => StripPort::Matching,
            (false, _) => StripPort::Keep,
        },
        strip_trailing_host_dot: *strip_trailing_host_dot,
        server_header: server_header(at, *server_header_transformation, server_name)?,
        via: (!via.is_empty()).then(|| via.as_str().into()),
        use_remote_address: bool_or(use_remote_address, false),
        xff_num_trusted_hops: *xff_num_trusted_hops,
        skip_xff_append: *skip_xff_append,
        forward_client_cert: client_cert(at, *forward_client_cert_details)?,
        client_cert_uri: client_cert_uri(set_current_client_cert_details),
        generate_request_id: bool_or(generate_request_id, true),
        preserve_external_request_id: *preserve_external_request_id,
        always_set_request_id_in_response: *always_set_request_id_in_response,
        proxy_100_continue: *proxy_100_continue,
        upgrades: upgrades(at, upgrade_configs)?,
        idle_timeout: common.idle_timeout,
        max_connection_duration: common.max_connection_duration,
        max_requests_per_connection: common.max_requests_per_connection,
        max_stream_duration: common.max_stream_duration,
        stream_idle_timeout: timeout(
            at.field("stream_idle_timeout"),
            stream_idle_timeout,
            Some(Duration::from_secs(300)),
        )?,
        request_timeout: timeout(at.field("request_timeout"), request_timeout, None)?,
        request_headers_timeout: timeout(
            at.field("request_headers_timeout"),
            request_headers_timeout,
            None,
        )?,
        drain_timeout: positive(
            at.field("drain_timeout"),
            drain_timeout,
            Duration::from_secs(5),
        )?,
        delayed_close_timeout: duration(at.field("delayed_close_timeout"), delayed_close_timeout)?
            .unwrap_or(Duration::from_secs(1)),
        max_request_headers_bytes: headers_bytes(at, max_request_headers_kb)?,
        max_headers_count: common.max_headers_count,
        underscores: common.underscores,
        http1: http1_options(
            at.field("http_protocol_options"),
            http_protocol_options.as_ref(),
        )?,
        http2: http2_options(
            at.field("http2_protocol_options"),
            http2_protocol_options.as_ref(),
        )?,
        local_replies: local_reply::local_replies(at, local_reply_config)?,
        proxy_status: proxy_status_config.is_some(),
    })
}

/// The filters. What they ask over a cluster needs it, as routes do theirs.
fn filter_chain(
    scope: &mut Scope<'_>,
    at: At<'_>,
    http_filters: &[pb::HttpFilter],
    stat_prefix: &str,
) -> Result<Vec<HttpFilter>, CompileError> {
    let filter_scope = FilterScope {
        stat_prefix,
        ..scope.compiler.filter_scope()
    };
    let filters = filters(at, http_filters, filter_scope)?;
    for cluster in filters.iter().flat_map(|filter| filter.config.clusters()) {
        scope.clusters.refer(cluster);
    }
    Ok(filters)
}

fn codec(at: At<'_>, codec: i32) -> Result<CodecType, CompileError> {
    use pb::http_connection_manager::CodecType as Kind;
    let at = at.field("codec_type");
    Ok(match known(at, codec)? {
        Kind::Auto => CodecType::Auto,
        Kind::Http1 => CodecType::Http1,
        Kind::Http2 => CodecType::Http2,
        Kind::Http3 => return at.fail("HTTP/3 is not supported by this proxy"),
    })
}

fn route_source(
    at: At<'_>,
    specifier: &pb::http_connection_manager::RouteSpecifier,
    scope: &mut Scope<'_>,
) -> Result<RouteRef, CompileError> {
    use pb::http_connection_manager::RouteSpecifier as Spec;
    let filters = scope.compiler.filter_scope();
    match specifier {
        Spec::RouteConfig(m) => {
            Ok(scope
                .routes
                .inline(route::route_config(at.field("route_config"), m, filters)?))
        }
        Spec::Rds(m) => {
            let at = at.field("rds");
            let pb::Rds {
                config_source,
                route_config_name,
            } = m;
            let source = required!(at, config_source);
            let initial_fetch_timeout = values::over_ads(at.field("config_source"), source)?;
            if route_config_name.is_empty() {
                return at.field("route_config_name").fail("is required");
            }
            scope.fetches.wait(initial_fetch_timeout);
            Ok(scope.routes.named(route_config_name))
        }
        Spec::ScopedRoutes(_) => at
            .field("scoped_routes")
            .fail("is not supported by this proxy"),
    }
}

/// Access logs of a listener, a connection manager or a TCP proxy.
pub fn logs(
    compiler: &Compiler,
    at: At<'_>,
    logs: &[xds_proto::envoy::config::accesslog::v3::AccessLog],
) -> Result<Vec<Arc<AccessLog>>, CompileError> {
    each(at, "access_log", logs, |at, m| {
        access_log::access_log(at, m, &compiler.sinks)
    })
}

fn path_options(
    at: At<'_>,
    normalize: &Option<xds_proto::google::protobuf::BoolValue>,
    merge_slashes: bool,
    escaped: i32,
) -> Result<PathOptions, CompileError> {
    use pb::http_connection_manager::PathWithEscapedSlashesAction as Escaped;
    Ok(PathOptions {
        normalize: bool_or(normalize, false),
        merge_slashes,
        escaped_slashes: match known(at.field("path_with_escaped_slashes_action"), escaped)? {
            Escaped::ImplementationSpecificDefault | Escaped::KeepUnchanged => EscapedSlashes::Keep,
            Escaped::RejectRequest => EscapedSlashes::Reject,
            Escaped::UnescapeAndRedirect => EscapedSlashes::UnescapeAndRedirect,
            Escaped::UnescapeAndForward => EscapedSlashes::UnescapeAndForward,
        },
        fragment: Fragment::Reject,
    })
}

fn server_header(at: At<'_>, how: i32, name: &str) -> Result<ServerHeader, CompileError> {
    use pb::http_connection_manager::ServerHeaderTransformation as How;
    let name = if name.is_empty() { "envoy" } else { name };
    Ok(
        match known(at.field("server_header_transformation"), how)? {
            How::Overwrite => ServerHeader::Overwrite(name.into()),
            How::AppendIfAbsent => ServerHeader::AppendIfAbsent(name.into()),
            How::PassThrough => ServerHeader::PassThrough,
        },
    )
}

fn client_cert(at: At<'_>, how: i32) -> Result<ForwardClientCert, CompileError> {
    use pb::http_connection_manager::ForwardClientCertDetails as How;
    Ok(match known(at.field("forward_client_cert_details"), how)? {
        How::Sanitize => ForwardClientCert::Sanitize,
        How::ForwardOnly => ForwardClientCert::ForwardOnly,
        How::AppendForward => ForwardClientCert::AppendForward,
        How::SanitizeSet => ForwardClientCert::SanitizeSet,
        How::AlwaysForwardOnly => ForwardClientCert::AlwaysForwardOnly,
    })
}

fn client_cert_uri(m: &Option<pb::http_connection_manager::SetCurrentClientCertDetails>) -> bool {
    let Some(m) = m else {
        return false;
    };
    let pb::http_connection_manager::SetCurrentClientCertDetails {
        subject,
        cert,
        chain,
        dns,
        uri,
        issuer,
        format,
    } = m;
    ignored!(
        "of a peer's certificate only its SPIFFE id is kept",
        subject,
        cert,
        chain,
        dns,
        issuer,
        format
    );
    *uri
}

fn upgrades(
    at: At<'_>,
    configs: &[pb::http_connection_manager::UpgradeConfig],
) -> Result<Vec<Box<str>>, CompileError> {
    let mut allowed = Vec::new();
    for (index, m) in configs.iter().enumerate() {
        let at = at.index("upgrade_configs", index);
        let pb::http_connection_manager::UpgradeConfig {
            upgrade_type,
            filters,
            enabled,
        } = m;
        unsupported!(at, filters);
        if bool_or(enabled, true) {
            allowed.push(upgrade_type.to_ascii_lowercase().into());
        }
    }
    Ok(allowed)
}

fn headers_bytes(
    at: At<'_>,
    kb: &Option<xds_proto::google::protobuf::UInt32Value>,
) -> Result<usize, CompileError> {
    match u32_or(kb, 60) {
        kb @ 1..=8192 => Ok(kb as usize * 1024),
        kb => at
            .field("max_request_headers_kb")
            .fail(format_args!("{kb} is not in 1..=8192")),
    }
}
