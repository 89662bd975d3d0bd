//! Access log configurations and format strings, compiled into operators.

use std::sync::Arc;

use crate::matcher::HeaderMatch;

/// One access log: where to, in which format, which requests.
pub struct AccessLog {
    pub sink: Arc<crate::log_sink::Sink>,
    pub format: LogFormat,
    pub filter: Option<LogFilter>,
}

pub enum LogFormat {
    Text(Format),
    /// Ordered fields; `omit_empty` as Envoy's `omit_empty_values`.
    Json {
        fields: Vec<JsonField>,
        omit_empty: bool,
    },
}

pub struct JsonField {
    /// The name as it is written: in quotes, escaped, with its colon.
    pub key: Box<[u8]>,
    pub value: JsonValue,
}

pub enum JsonValue {
    Format(Format),
    Object(Vec<JsonField>),
    List(Vec<JsonValue>),
    Number(f64),
    Bool(bool),
    Null,
}

/// envoy.config.accesslog.v3.AccessLogFilter, the supported part.
pub enum LogFilter {
    Status(Comparison),
    /// Milliseconds.
    Duration(Comparison),
    /// Requests that are no health checks of this proxy.
    NotHealthCheck,
    /// Any flag when empty.
    ResponseFlags(Vec<Box<str>>),
    /// Of the request.
    Header(Box<HeaderMatch>),
    GrpcStatus {
        /// By their numbers.
        statuses: Vec<i32>,
        /// Those that are not listed.
        exclude: bool,
    },
    And(Vec<LogFilter>),
    Or(Vec<LogFilter>),
}

/// envoy.config.accesslog.v3.ComparisonFilter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Comparison {
    pub op: ComparisonOp,
    pub value: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ComparisonOp {
    Equal,
    AtLeast,
    AtMost,
    NotEqual,
}

impl Comparison {
    pub fn holds(self, value: u128) -> bool {
        let own = u128::from(self.value);
        match self.op {
            ComparisonOp::Equal => value == own,
            ComparisonOp::AtLeast => value >= own,
            ComparisonOp::AtMost => value <= own,
            ComparisonOp::NotEqual => value != own,
        }
    }
}

/// A format string: literal text and command operators (`%RESPONSE_CODE%`).
#[derive(Default)]
pub struct Format(pub Vec<Part>);

pub enum Part {
    Literal(Box<str>),
    Operator(Operator),
}

/// Envoy's command operators. `max` truncates.
pub enum Operator {
    StartTime(Option<Box<str>>),
    Duration,
    RequestDuration,
    ResponseDuration,
    BytesReceived,
    BytesSent,
    Protocol,
    ResponseCode,
    ResponseCodeDetails,
    ConnectionTerminationDetails,
    ResponseFlags,
    ResponseFlagsLong,
    RouteName,
    VirtualClusterName,
    UpstreamCluster,
    UpstreamHost,
    UpstreamLocalAddress,
    UpstreamTransportFailureReason,
    /// Only known while the body of a local reply is made.
    LocalReplyBody,
    UpstreamRequestAttemptCount,
    DownstreamRemoteAddress {
        port: bool,
    },
    DownstreamDirectRemoteAddress {
        port: bool,
    },
    DownstreamLocalAddress {
        port: bool,
    },
    DownstreamLocalPort,
    RequestedServerName,
    DownstreamPeerUriSan,
    DownstreamLocalUriSan,
    DownstreamPeerSubject,
    DownstreamTlsVersion,
    DownstreamTlsCipher,
    UpstreamPeerUriSan,
    ConnectionId,
    Hostname,
    GrpcStatus,
    Method,
    Path,
    Authority,
    Scheme,
    RequestHeader {
        name: crate::matcher::HeaderName,
        alternative: Option<crate::matcher::HeaderName>,
        max: Option<usize>,
    },
    ResponseHeader {
        name: crate::matcher::HeaderName,
        alternative: Option<crate::matcher::HeaderName>,
        max: Option<usize>,
    },
    ResponseTrailer {
        name: crate::matcher::HeaderName,
        max: Option<usize>,
    },
    FilterChainName,
    /// Dynamic metadata that a filter set, at a path of keys in its namespace.
    DynamicMetadata {
        namespace: Box<str>,
        path: Vec<Box<str>>,
        max: Option<usize>,
    },
    /// A literal `%`.
    Percent,
}
