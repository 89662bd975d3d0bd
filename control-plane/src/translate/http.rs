//! The connection manager, and access logs.

use std::time::Duration;

use xds_proto::envoy::config::accesslog::v3 as accesslog;
use xds_proto::envoy::config::core::v3 as core;
use xds_proto::envoy::config::listener::v3 as listener;
use xds_proto::envoy::extensions::access_loggers::stream::v3::{
    StdoutAccessLog, stdout_access_log::AccessLogFormat,
};
use xds_proto::envoy::extensions::filters::http::rbac::v3::Rbac;
use xds_proto::envoy::extensions::filters::http::router::v3::Router;
use xds_proto::envoy::extensions::filters::network::http_connection_manager::v3 as hcm;
use xds_proto::google::protobuf::{Any, Struct};

use super::policy::Authorization;
use super::proto::{boolv, duration, inline, text, typed};
use super::protocol::{http1, http2};
use crate::model::manifest::policy::{EscapedSlashes, LogFormat};

/// Without a byte in either direction. Long: streams may rest.
const STREAM_IDLE: Duration = Duration::from_secs(3600);
/// Within this time a request's head must be complete, once its first byte has arrived.
const HEAD: Duration = Duration::from_secs(10);

/// Upgrades of HTTP/1.1 that are forwarded; others are ignored, as RFC 9110 7.8 allows. `tcp` is
/// the one of Docker's attach and exec.
const UPGRADES: [&str; 2] = ["websocket", "tcp"];

/// The direction of a connection manager, and whether inbound connections use mTLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    Outbound,
    /// Over mTLS.
    InboundMtls,
    InboundPlain,
}

/// A connection manager as network filter. `filters`: before the router.
pub fn manager(
    side: Side,
    stat_prefix: &str,
    routes: hcm::http_connection_manager::RouteSpecifier,
    filters: Vec<hcm::HttpFilter>,
    log: LogFormat,
    escaped_slashes: EscapedSlashes,
) -> listener::Filter {
    use hcm::http_connection_manager as part;
    use part::PathWithEscapedSlashesAction as Escaped;
    let details = match side {
        Side::InboundMtls => part::ForwardClientCertDetails::SanitizeSet,
        // Only a verified identity is passed on.
        Side::InboundPlain | Side::Outbound => part::ForwardClientCertDetails::Sanitize,
    };
    let manager = hcm::HttpConnectionManager {
        codec_type: part::CodecType::Auto as i32,
        stat_prefix: stat_prefix.to_owned(),
        route_specifier: Some(routes),
        http_filters: filters.into_iter().chain([router()]).collect(),
        http_protocol_options: Some(http1()),
        http2_protocol_options: Some(http2()),
        server_header_transformation: part::ServerHeaderTransformation::PassThrough as i32,
        forward_client_cert_details: details as i32,
        set_current_client_cert_details: (side == Side::InboundMtls).then(|| {
            part::SetCurrentClientCertDetails {
                uri: true,
                ..Default::default()
            }
        }),
        normalize_path: boolv(true),
        merge_slashes: true,
        path_with_escaped_slashes_action: match escaped_slashes {
            EscapedSlashes::Reject => Escaped::RejectRequest,
            EscapedSlashes::Keep => Escaped::KeepUnchanged,
            EscapedSlashes::Unescape => Escaped::UnescapeAndForward,
        } as i32,
        preserve_external_request_id: true,
        stream_idle_timeout: duration(STREAM_IDLE),
        request_headers_timeout: duration(HEAD),
        upgrade_configs: UPGRADES.map(upgrade).to_vec(),
        use_remote_address: boolv(false),
        access_log: access_log(log, true),
        proxy_status_config: Some(part::ProxyStatusConfig {
            proxy_name: Some(part::proxy_status_config::ProxyName::UseNodeId(true)),
            ..part::ProxyStatusConfig::default()
        }),
        ..hcm::HttpConnectionManager::default()
    };
    filter(
        "envoy.filters.network.http_connection_manager",
        typed(&manager),
    )
}

fn upgrade(name: &str) -> hcm::http_connection_manager::UpgradeConfig {
    hcm::http_connection_manager::UpgradeConfig {
        upgrade_type: name.to_owned(),
        ..Default::default()
    }
}

pub fn filter(name: &str, config: Any) -> listener::Filter {
    listener::Filter {
        name: name.to_owned(),
        config_type: Some(listener::filter::ConfigType::TypedConfig(config)),
    }
}

pub fn http_filter(name: &str, config: Any) -> hcm::HttpFilter {
    hcm::HttpFilter {
        name: name.to_owned(),
        config_type: Some(hcm::http_filter::ConfigType::TypedConfig(config)),
        ..hcm::HttpFilter::default()
    }
}

fn router() -> hcm::HttpFilter {
    http_filter("envoy.filters.http.router", typed(&Router::default()))
}

/// Filters by which requests are authorised.
pub fn rbac(authorization: &Authorization) -> Vec<hcm::HttpFilter> {
    let rbac = |rules, shadow_rules| {
        typed(&Rbac {
            rules,
            shadow_rules,
            ..Rbac::default()
        })
    };
    let mut filters = Vec::new();
    if authorization.deny.is_some() || authorization.audit.is_some() {
        let config = rbac(authorization.deny.clone(), authorization.audit.clone());
        filters.push(http_filter("envoy.filters.http.rbac.deny", config));
    }
    if let Some(allow) = &authorization.allow {
        filters.push(http_filter(
            "envoy.filters.http.rbac.allow",
            rbac(Some(allow.clone()), None),
        ));
    }
    filters
}

/// Routes that come by name.
pub fn by_name(name: String) -> hcm::http_connection_manager::RouteSpecifier {
    hcm::http_connection_manager::RouteSpecifier::Rds(hcm::Rds {
        config_source: super::proto::ads(),
        route_config_name: name,
    })
}

/// What is logged of each request: name in JSON and command. The text form has them in this order.
const REQUEST: [(&str, &str); 24] = [
    ("start_time", "%START_TIME%"),
    ("method", "%REQ(:METHOD)%"),
    ("path", "%REQ(X-ENVOY-ORIGINAL-PATH?:PATH)%"),
    ("protocol", "%PROTOCOL%"),
    ("response_code", "%RESPONSE_CODE%"),
    ("grpc_status", "%GRPC_STATUS%"),
    ("response_flags", "%RESPONSE_FLAGS%"),
    ("response_code_details", "%RESPONSE_CODE_DETAILS%"),
    (
        "upstream_transport_failure_reason",
        "%UPSTREAM_TRANSPORT_FAILURE_REASON%",
    ),
    ("bytes_received", "%BYTES_RECEIVED%"),
    ("bytes_sent", "%BYTES_SENT%"),
    ("duration", "%DURATION%"),
    ("user_agent", "%REQ(USER-AGENT)%"),
    ("request_id", "%REQ(X-REQUEST-ID)%"),
    ("traceparent", "%REQ(TRACEPARENT)%"),
    ("authority", "%REQ(:AUTHORITY)%"),
    ("upstream_host", "%UPSTREAM_HOST%"),
    ("upstream_cluster", "%UPSTREAM_CLUSTER%"),
    ("upstream_peer", "%UPSTREAM_PEER_URI_SAN%"),
    ("attempts", "%UPSTREAM_REQUEST_ATTEMPT_COUNT%"),
    ("downstream_local_address", "%DOWNSTREAM_LOCAL_ADDRESS%"),
    ("downstream_remote_address", "%DOWNSTREAM_REMOTE_ADDRESS%"),
    ("downstream_peer", "%DOWNSTREAM_PEER_URI_SAN%"),
    ("route_name", "%ROUTE_NAME%"),
];

/// What is logged of each TCP connection.
const CONNECTION: [(&str, &str); 13] = [
    ("start_time", "%START_TIME%"),
    ("response_flags", "%RESPONSE_FLAGS%"),
    (
        "connection_termination_details",
        "%CONNECTION_TERMINATION_DETAILS%",
    ),
    (
        "upstream_transport_failure_reason",
        "%UPSTREAM_TRANSPORT_FAILURE_REASON%",
    ),
    ("bytes_received", "%BYTES_RECEIVED%"),
    ("bytes_sent", "%BYTES_SENT%"),
    ("duration", "%DURATION%"),
    ("upstream_host", "%UPSTREAM_HOST%"),
    ("upstream_cluster", "%UPSTREAM_CLUSTER%"),
    ("upstream_peer", "%UPSTREAM_PEER_URI_SAN%"),
    ("downstream_local_address", "%DOWNSTREAM_LOCAL_ADDRESS%"),
    ("downstream_remote_address", "%DOWNSTREAM_REMOTE_ADDRESS%"),
    ("downstream_peer", "%DOWNSTREAM_PEER_URI_SAN%"),
];

/// Access logs to standard output.
pub fn access_log(format: LogFormat, http: bool) -> Vec<accesslog::AccessLog> {
    let commands: &[_] = if http { &REQUEST } else { &CONNECTION };
    use core::substitution_format_string::Format;
    let format = match format {
        LogFormat::Off => return Vec::new(),
        LogFormat::Json => {
            let values = commands
                .iter()
                .map(|(name, command)| ((*name).to_owned(), text(*command)));
            Format::JsonFormat(Struct {
                fields: values.collect(),
            })
        }
        LogFormat::Text => Format::TextFormatSource(inline(&line(commands))),
    };
    let config = typed(&StdoutAccessLog {
        access_log_format: Some(AccessLogFormat::LogFormat(core::SubstitutionFormatString {
            format: Some(format),
            ..core::SubstitutionFormatString::default()
        })),
    });
    vec![accesslog::AccessLog {
        name: "envoy.access_loggers.stdout".to_owned(),
        config_type: Some(accesslog::access_log::ConfigType::TypedConfig(config)),
        ..accesslog::AccessLog::default()
    }]
}

/// `[time]`, then values; those that clients choose are quoted.
fn line(commands: &[(&str, &str)]) -> String {
    let one = |(name, command): &(&str, &str)| match *name {
        "start_time" => format!("[{command}]"),
        _ if command.starts_with("%REQ") || name.contains("details") || name.contains("reason") => {
            format!("\"{command}\"")
        }
        _ => (*command).to_owned(),
    };
    let mut line = commands.iter().map(one).collect::<Vec<_>>().join(" ");
    line.push('\n');
    line
}
