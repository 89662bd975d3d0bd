//! HTTP settings of a cluster.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use xds_proto::envoy::config::core::v3 as core;
use xds_proto::envoy::extensions::filters::http::upstream_codec::v3::UpstreamCodec;
use xds_proto::envoy::extensions::filters::network::http_connection_manager::v3::{
    HttpFilter, http_filter::ConfigType,
};
use xds_proto::envoy::extensions::upstreams::http::v3 as pb;
use xds_proto::google::protobuf as google;

use crate::config::cluster::{UpstreamHttp1, UpstreamProtocol};
use crate::config::compile::listener::protocol::{http1_options, http2_options};
use crate::config::compile::route::hash::hash_policy;
use crate::config::compile::route::retry::retry_policy;
use crate::config::compile::support::{
    At, CompileError, decode, each, ignored, required, timeout, type_name, u32_opt, u32_or,
    unknown_type, unsupported,
};
use crate::config::compile::values::of_type;
use crate::config::hash::HashPolicy;
use crate::config::http::Http2Options;
use crate::config::route::RetryPolicy;

/// The places of a cluster's HTTP options: the extension, and the fields it replaced.
pub struct Sources<'m> {
    pub typed: &'m HashMap<String, google::Any>,
    pub upstream: &'m Option<core::UpstreamHttpProtocolOptions>,
    pub common: &'m Option<core::HttpProtocolOptions>,
    pub http1: &'m Option<core::Http1ProtocolOptions>,
    pub http2: &'m Option<core::Http2ProtocolOptions>,
    pub selection: i32,
    pub max_requests: &'m Option<google::UInt32Value>,
}

/// The options compiled from them.
pub struct ClusterHttp {
    pub protocol: UpstreamProtocol,
    pub http1: UpstreamHttp1,
    pub http2: Http2Options,
    pub idle_timeout: Option<Duration>,
    pub max_connection_duration: Option<Duration>,
    pub max_requests_per_connection: Option<u32>,
    pub max_response_headers_count: usize,
    pub max_response_headers_bytes: usize,
    pub hash_policy: Option<Arc<HashPolicy>>,
    pub retry: Option<Arc<RetryPolicy>>,
}

pub fn of(at: At<'_>, sources: &Sources<'_>) -> Result<ClusterHttp, CompileError> {
    let mut extension = None;
    let typed_at = at.field("typed_extension_protocol_options");
    for (name, any) in sources.typed {
        let at = at.key("typed_extension_protocol_options", name);
        match type_name(any) {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions" => {
                extension = Some(decode::<pb::HttpProtocolOptions>(at, any)?);
            }
            "envoy.extensions.upstreams.tcp.v3.TcpProtocolOptions" => {
                return at.fail("is not supported by this proxy");
            }
            _ => return unknown_type(at, any),
        }
    }
    match &extension {
        Some(m) => from_extension(typed_at, m, sources),
        None => from_fields(at, sources),
    }
}

fn from_fields(at: At<'_>, sources: &Sources<'_>) -> Result<ClusterHttp, CompileError> {
    // 1 is USE_DOWNSTREAM_PROTOCOL.
    let protocol = match (sources.selection, sources.http2) {
        (1, _) => UpstreamProtocol::Downstream,
        (_, Some(_)) => UpstreamProtocol::Http2,
        (_, None) => UpstreamProtocol::Http1,
    };
    auto_options(at.field("upstream_http_protocol_options"), sources.upstream)?;
    let codecs = Codecs {
        protocol,
        http1: sources.http1.as_ref(),
        http2: sources.http2.as_ref(),
    };
    compose(at, &codecs, sources.common, sources)
}

fn from_extension(
    at: At<'_>,
    m: &pb::HttpProtocolOptions,
    sources: &Sources<'_>,
) -> Result<ClusterHttp, CompileError> {
    let pb::HttpProtocolOptions {
        common_http_protocol_options,
        upstream_http_protocol_options,
        http_filters,
        header_validation_config,
        outlier_detection,
        request_mirror_policies,
        hash_policy: hash_rules,
        retry_policy: retry,
        upstream_protocol_options,
    } = m;
    unsupported!(
        at,
        header_validation_config,
        outlier_detection,
        request_mirror_policies
    );
    each(at, "http_filters", http_filters, upstream_filter)?;
    auto_options(
        at.field("upstream_http_protocol_options"),
        upstream_http_protocol_options,
    )?;
    let codecs = Codecs::of(at, required!(at, upstream_protocol_options))?;
    let mut http = compose(at, &codecs, common_http_protocol_options, sources)?;
    http.hash_policy = hash_policy(at, hash_rules)?;
    if let Some(m) = retry {
        http.retry = Some(Arc::new(retry_policy(at.field("retry_policy"), m, false)?));
    }
    Ok(http)
}

/// The upstream codec filter is required, and no other is supported.
fn upstream_filter(at: At<'_>, m: &HttpFilter) -> Result<(), CompileError> {
    let codec = match &m.config_type {
        Some(ConfigType::TypedConfig(any)) => of_type(at, any)?,
        _ => None,
    };
    match codec {
        Some(UpstreamCodec {}) => Ok(()),
        None => at.fail("upstream HTTP filters are not supported by this proxy"),
    }
}

/// Which protocol, with which options.
struct Codecs<'m> {
    protocol: UpstreamProtocol,
    http1: Option<&'m core::Http1ProtocolOptions>,
    http2: Option<&'m core::Http2ProtocolOptions>,
}

impl<'m> Codecs<'m> {
    fn of(
        at: At<'_>,
        m: &'m pb::http_protocol_options::UpstreamProtocolOptions,
    ) -> Result<Self, CompileError> {
        use pb::http_protocol_options as options;
        use pb::http_protocol_options::UpstreamProtocolOptions as Options;
        match m {
            Options::ExplicitHttpConfig(m) => {
                let options::ExplicitHttpConfig { protocol_config } = m;
                Self::explicit(at.field("explicit_http_config"), protocol_config)
            }
            Options::UseDownstreamProtocolConfig(m) => {
                let at = at.field("use_downstream_protocol_config");
                let options::UseDownstreamHttpConfig {
                    http_protocol_options,
                    http2_protocol_options,
                    http3_protocol_options,
                } = m;
                unsupported!(at, http3_protocol_options);
                Ok(Self {
                    protocol: UpstreamProtocol::Downstream,
                    http1: http_protocol_options.as_ref(),
                    http2: http2_protocol_options.as_ref(),
                })
            }
            Options::AutoConfig(m) => {
                let at = at.field("auto_config");
                let options::AutoHttpConfig {
                    http_protocol_options,
                    http2_protocol_options,
                    http3_protocol_options,
                    alternate_protocols_cache_options,
                } = m;
                unsupported!(
                    at,
                    http3_protocol_options,
                    alternate_protocols_cache_options
                );
                Ok(Self {
                    protocol: UpstreamProtocol::Auto,
                    http1: http_protocol_options.as_ref(),
                    http2: http2_protocol_options.as_ref(),
                })
            }
        }
    }

    fn explicit(
        at: At<'_>,
        protocol_config: &'m Option<
            pb::http_protocol_options::explicit_http_config::ProtocolConfig,
        >,
    ) -> Result<Self, CompileError> {
        use pb::http_protocol_options::explicit_http_config::ProtocolConfig as Explicit;
        match required!(at, protocol_config) {
            Explicit::HttpProtocolOptions(m) => Ok(Self {
                protocol: UpstreamProtocol::Http1,
                http1: Some(m),
                http2: None,
            }),
            Explicit::Http2ProtocolOptions(m) => Ok(Self {
                protocol: UpstreamProtocol::Http2,
                http1: None,
                http2: Some(m),
            }),
            Explicit::Http3ProtocolOptions(_) => at
                .field("http3_protocol_options")
                .fail("HTTP/3 is not supported by this proxy"),
        }
    }
}

fn auto_options(
    at: At<'_>,
    m: &Option<core::UpstreamHttpProtocolOptions>,
) -> Result<(), CompileError> {
    let Some(m) = m else {
        return Ok(());
    };
    let core::UpstreamHttpProtocolOptions {
        auto_sni,
        auto_san_validation,
        override_auto_sni_header,
    } = m;
    unsupported!(at, auto_sni, auto_san_validation, override_auto_sni_header);
    Ok(())
}

fn compose(
    at: At<'_>,
    codecs: &Codecs<'_>,
    common: &Option<core::HttpProtocolOptions>,
    sources: &Sources<'_>,
) -> Result<ClusterHttp, CompileError> {
    let none = core::HttpProtocolOptions::default();
    let core::HttpProtocolOptions {
        idle_timeout,
        max_connection_duration,
        max_connection_duration_jitter,
        max_headers_count,
        max_response_headers_kb,
        max_stream_duration,
        headers_with_underscores_action,
        max_requests_per_connection,
    } = common.as_ref().unwrap_or(&none);
    let at_common = at.field("common_http_protocol_options");
    unsupported!(at_common, max_stream_duration);
    ignored!(
        "connections begin at different times; that is jitter enough",
        max_connection_duration_jitter
    );
    ignored!("for requests only", headers_with_underscores_action);
    let http1 = http1_options(at.field("http_protocol_options"), codecs.http1)?;
    let requests = u32_opt(max_requests_per_connection).or(u32_opt(sources.max_requests));
    Ok(ClusterHttp {
        protocol: codecs.protocol,
        http1: UpstreamHttp1 {
            preserve_case: http1.preserve_case,
            forward_reason: http1.forward_reason,
        },
        http2: http2_options(at.field("http2_protocol_options"), codecs.http2)?,
        idle_timeout: timeout(
            at_common.field("idle_timeout"),
            idle_timeout,
            Some(Duration::from_secs(3600)),
        )?,
        max_connection_duration: timeout(
            at_common.field("max_connection_duration"),
            max_connection_duration,
            None,
        )?,
        max_requests_per_connection: requests.filter(|count| *count > 0),
        max_response_headers_count: u32_or(max_headers_count, 100) as usize,
        // Envoy's default over HTTP/1, where it allows more than over HTTP/2.
        max_response_headers_bytes: (u32_or(max_response_headers_kb, 80) as usize)
            .saturating_mul(1024),
        hash_policy: None,
        retry: None,
    })
}
