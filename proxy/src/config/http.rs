//! The HTTP connection manager, compiled.

use std::sync::Arc;
use std::time::Duration;

use super::access_log::AccessLog;
use super::filter::{FilterConfig, HttpFilter};
use super::local_reply::LocalReplies;
use crate::config::RouteRef;
use crate::message::path::PathOptions;

/// envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager.
pub struct HttpConnectionManager {
    pub codec: CodecType,
    /// Index into the listener's route links, for inline routes too: a link of an inline route
    /// always has its target.
    pub routes: RouteRef,
    /// In the order of the request path; the router is always last and not part of the list.
    pub filters: Vec<HttpFilter>,
    pub access_log: Vec<Arc<AccessLog>>,

    pub path: PathOptions,
    pub strip_port: StripPort,
    pub strip_trailing_host_dot: bool,
    pub server_header: ServerHeader,
    pub via: Option<Box<str>>,
    pub use_remote_address: bool,
    pub xff_num_trusted_hops: u32,
    pub skip_xff_append: bool,
    pub forward_client_cert: ForwardClientCert,
    /// `set_current_client_cert_details.uri`: the peer's SPIFFE id goes into the element that
    /// APPEND_FORWARD and SANITIZE_SET write.
    pub client_cert_uri: bool,
    pub generate_request_id: bool,
    pub preserve_external_request_id: bool,
    pub always_set_request_id_in_response: bool,
    /// `Expect: 100-continue` and the 100 pass through; else the proxy itself sends the 100.
    pub proxy_100_continue: bool,
    /// Upgrade types allowed by default, lower case (`websocket`, `connect`).
    pub upgrades: Vec<Box<str>>,

    /// Idle connection without a request; `None`: off. Envoy's default is one hour.
    pub idle_timeout: Option<Duration>,
    pub max_connection_duration: Option<Duration>,
    pub max_requests_per_connection: Option<u32>,
    /// The longest a stream may last, unless its route sets it; `None`: no limit.
    pub max_stream_duration: Option<Duration>,
    /// Stream without progress; `None`: off. Envoy's default is five minutes.
    pub stream_idle_timeout: Option<Duration>,
    /// The whole request must have arrived; `None`: off (Envoy's default).
    pub request_timeout: Option<Duration>,
    pub request_headers_timeout: Option<Duration>,
    pub drain_timeout: Duration,
    pub delayed_close_timeout: Duration,

    /// Decoded bytes of a request head. Envoy's default is 60 KiB.
    pub max_request_headers_bytes: usize,
    /// Envoy's default is 100.
    pub max_headers_count: usize,
    pub underscores: UnderscoresInNames,
    pub http1: Http1Options,
    pub http2: Http2Options,
    /// `None`: they stay as they are.
    pub local_replies: Option<Box<LocalReplies>>,
    /// Beyond Envoy, set by our own control plane: sends `proxy-status` (RFC 9209).
    pub proxy_status: bool,
}

impl HttpConnectionManager {
    /// Whether it has filters that authorise requests.
    pub fn authorises(&self) -> bool {
        let rules = |filter: &HttpFilter| matches!(filter.config, FilterConfig::Rbac(_));
        self.filters.iter().any(rules)
    }
}

/// What becomes of headers whose names have an underscore.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum UnderscoresInNames {
    /// Names that spell one which the proxy vouches for are dropped all the same.
    #[default]
    Allow,
    Drop,
    /// 400.
    Reject,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CodecType {
    /// By ALPN, else by the first bytes.
    Auto,
    Http1,
    Http2,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StripPort {
    Keep,
    Matching,
    Any,
}

/// The `server` header of a response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ServerHeader {
    Overwrite(Box<str>),
    AppendIfAbsent(Box<str>),
    PassThrough,
}

/// How `x-forwarded-client-cert` is handled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ForwardClientCert {
    Sanitize,
    ForwardOnly,
    AppendForward,
    SanitizeSet,
    AlwaysForwardOnly,
}

#[derive(Clone, Copy, Debug)]
pub struct Http1Options {
    pub accept_http_10: bool,
    pub allow_absolute_url: bool,
    /// `header_key_format.stateful_formatter` preserve_case. Off in Envoy, on by our translate.
    pub preserve_case: bool,
    /// The formatter's `forward_reason_phrase`, which matters where responses are received.
    pub forward_reason: bool,
}

#[derive(Clone, Copy, Debug)]
pub struct Http2Options {
    pub max_concurrent_streams: u32,
    pub initial_stream_window: u32,
    pub initial_connection_window: u32,
    pub max_frame_size: u32,
    /// Streams a peer may reset before any answer, within a minute or so, before GOAWAY.
    pub max_resets: usize,
    pub keepalive_interval: Option<Duration>,
    pub keepalive_timeout: Duration,
    pub allow_connect: bool,
}
