//! The HTTP version towards an upstream, and its ALPN.

use std::collections::HashMap;
use std::time::Duration;

use xds_proto::envoy::config::core::v3 as core;
use xds_proto::envoy::extensions::http::header_formatters::preserve_case::v3::PreserveCaseFormatterConfig;
use xds_proto::envoy::extensions::upstreams::http::v3 as http;
use xds_proto::google::protobuf::Any;

use super::naming::Carries;
use super::proto::{duration, extension, typed, u32v};
use super::tls;
use crate::model::manifest::service::AppProtocol;

const KEY: &str = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";

/// The protocol of a cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UpstreamProtocol {
    Http1,
    Http2,
    /// By ALPN; HTTP/1.1 without TLS.
    Auto,
    /// As the request came in.
    AsReceived,
    Tcp,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Upstream {
    pub protocol: UpstreamProtocol,
    /// Offered to a peer's sidecar.
    pub alpn: &'static [&'static str],
}

impl Upstream {
    /// Towards a service. `anyam`: our own proxy, which supports our ALPNs; Envoy takes
    /// any ALPN but `h2` for HTTP/1.1, so it is given one version.
    pub fn of(protocol: AppProtocol, carries: Carries, http2: bool, anyam: bool) -> Self {
        const H2: &[&str] = &[tls::H2_CASE, tls::H2];
        let (protocol, alpn): (UpstreamProtocol, &[&str]) = match (protocol, carries, anyam) {
            // The port declares TCP, so the peer offers only that; when HTTP is detected, it is
            // answered as HTTP.
            (_, Carries::Http1, _) => (UpstreamProtocol::Http1, &[tls::TCP]),
            (AppProtocol::Tcp | AppProtocol::Tls, ..) | (_, Carries::Tcp, _) => {
                (UpstreamProtocol::Tcp, &[tls::TCP])
            }
            (AppProtocol::Http2 | AppProtocol::Grpc, ..) | (_, Carries::Http2, _) => match anyam {
                true => (UpstreamProtocol::Http2, H2),
                false => (UpstreamProtocol::Http2, &[tls::H2]),
            },
            (AppProtocol::Http, _, true) if http2 => (UpstreamProtocol::Auto, &tls::HTTP),
            (AppProtocol::Http | AppProtocol::Undeclared, ..) => {
                (UpstreamProtocol::Http1, &[tls::HTTP1])
            }
        };
        Upstream { protocol, alpn }
    }

    /// ALPN towards an app that speaks TLS itself.
    pub fn app_alpn(&self) -> &'static [&'static str] {
        match self.protocol {
            UpstreamProtocol::Http1 => &["http/1.1"],
            UpstreamProtocol::Http2 => &["h2"],
            UpstreamProtocol::Auto | UpstreamProtocol::AsReceived => &["h2", "http/1.1"],
            UpstreamProtocol::Tcp => &[],
        }
    }

    /// Towards the app beside the sidecar.
    pub fn app(protocol: AppProtocol) -> Self {
        let protocol = match protocol {
            AppProtocol::Http => UpstreamProtocol::Http1,
            AppProtocol::Http2 | AppProtocol::Grpc => UpstreamProtocol::Http2,
            AppProtocol::Undeclared => UpstreamProtocol::AsReceived,
            AppProtocol::Tcp | AppProtocol::Tls => UpstreamProtocol::Tcp,
        };
        Upstream {
            protocol,
            alpn: &[],
        }
    }
}

/// `typed_extension_protocol_options` of a cluster.
pub fn options(
    upstream: &Upstream,
    idle: Option<Duration>,
    max_requests: Option<u32>,
) -> HashMap<String, Any> {
    use choice::UpstreamProtocolOptions as Choice;
    use choice::explicit_http_config::ProtocolConfig;
    use http::http_protocol_options as choice;
    let explicit = |config| {
        Choice::ExplicitHttpConfig(choice::ExplicitHttpConfig {
            protocol_config: Some(config),
        })
    };
    let chosen = match upstream.protocol {
        UpstreamProtocol::Tcp => return HashMap::new(),
        UpstreamProtocol::Http1 => explicit(ProtocolConfig::HttpProtocolOptions(http1())),
        UpstreamProtocol::Http2 => explicit(ProtocolConfig::Http2ProtocolOptions(http2())),
        UpstreamProtocol::Auto => Choice::AutoConfig(choice::AutoHttpConfig {
            http_protocol_options: Some(http1()),
            http2_protocol_options: Some(http2()),
            ..choice::AutoHttpConfig::default()
        }),
        UpstreamProtocol::AsReceived => {
            Choice::UseDownstreamProtocolConfig(choice::UseDownstreamHttpConfig {
                http_protocol_options: Some(http1()),
                http2_protocol_options: Some(http2()),
                ..choice::UseDownstreamHttpConfig::default()
            })
        }
    };
    let common = core::HttpProtocolOptions {
        idle_timeout: idle.and_then(duration),
        max_requests_per_connection: max_requests.and_then(u32v),
        ..core::HttpProtocolOptions::default()
    };
    let options = http::HttpProtocolOptions {
        common_http_protocol_options: (idle.is_some() || max_requests.is_some()).then_some(common),
        upstream_protocol_options: Some(chosen),
        ..http::HttpProtocolOptions::default()
    };
    HashMap::from([(KEY.to_owned(), typed(&options))])
}

/// HTTP/1 as apps wrote it: the spelling of header names is kept.
pub fn http1() -> core::Http1ProtocolOptions {
    use core::http1_protocol_options::{HeaderKeyFormat, header_key_format::HeaderFormat};
    core::Http1ProtocolOptions {
        accept_http_10: true,
        header_key_format: Some(HeaderKeyFormat {
            header_format: Some(HeaderFormat::StatefulFormatter(extension(
                "envoy.http.stateful_header_formatters.preserve_case",
                &PreserveCaseFormatterConfig {
                    forward_reason_phrase: true,
                    ..PreserveCaseFormatterConfig::default()
                },
            ))),
        }),
        enable_trailers: true,
        ..core::Http1ProtocolOptions::default()
    }
}

/// HTTP/2 with extended CONNECT, which upgrades need between sidecars.
pub fn http2() -> core::Http2ProtocolOptions {
    core::Http2ProtocolOptions {
        allow_connect: true,
        ..core::Http2ProtocolOptions::default()
    }
}
