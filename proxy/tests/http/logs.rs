//! Access logs with everything in them, text and JSON: what reads a request at its end reads all
//! of it in every test.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyam_proxy::config::access_log::{
    AccessLog, Format, JsonField, JsonValue, LogFormat, Operator, Part,
};
use anyam_proxy::log_sink::{Destination, Sinks};
use anyam_proxy::matcher::HeaderName;
use anyam_proxy::metrics::Registry;
use anyam_proxy::telemetry::Telemetry;

/// Both logs, in a temporary folder.
pub struct Logs {
    folder: tempfile::TempDir,
    sinks: Sinks,
}

impl Logs {
    pub fn new() -> Self {
        let dropped = prometheus::IntCounter::new("dropped", "dropped").unwrap();
        Self {
            folder: tempfile::tempdir().unwrap(),
            sinks: Sinks::new(dropped, 16 << 10),
        }
    }

    pub fn access_logs(&self) -> Vec<Arc<AccessLog>> {
        let (separator, end) = (|| Part::Literal(" ".into()), Part::Literal("\n".into()));
        let parts = operators().into_iter();
        let text = parts.flat_map(|operator| [Part::Operator(operator), separator()]);
        let text = LogFormat::Text(Format(text.chain([end]).collect()));
        let fields = operators()
            .into_iter()
            .enumerate()
            .map(|(index, operator)| {
                let value = JsonValue::Format(Format(vec![Part::Operator(operator)]));
                JsonField::new(&format!("field{index}"), value)
            });
        let named = [
            ("code", Operator::ResponseCode),
            ("path", Operator::Path),
            ("details", Operator::ResponseCodeDetails),
            ("grpc", Operator::GrpcStatus),
        ];
        let named = named.map(|(name, operator)| {
            let value = JsonValue::Format(Format(vec![Part::Operator(operator)]));
            JsonField::new(name, value)
        });
        let json = LogFormat::Json {
            fields: named.into_iter().chain(fields).collect(),
            omit_empty: false,
        };
        let log = |name: &str, format| {
            let target = Destination::File(self.path(name));
            Arc::new(AccessLog {
                sink: self.sinks.open(target).unwrap(),
                format,
                filter: None,
            })
        };
        vec![log("text", text), log("json", json)]
    }

    /// What the JSON log has by now. Complete once the workers have ended.
    pub fn json(&self) -> Vec<serde_json::Value> {
        self.sinks.flush(Duration::from_secs(10));
        let lines = std::fs::read_to_string(self.path("json")).unwrap_or_default();
        let lines = lines.lines().map(serde_json::from_str);
        lines.collect::<Result<_, _>>().unwrap()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
}

/// One of each operator.
fn operators() -> Vec<Operator> {
    use Operator as O;
    let name = |name: &str| HeaderName::parse(name).unwrap();
    vec![
        O::StartTime(None),
        O::StartTime(Some("%s.%3f".into())),
        O::Duration,
        O::RequestDuration,
        O::ResponseDuration,
        O::BytesReceived,
        O::BytesSent,
        O::Protocol,
        O::ResponseCode,
        O::ResponseCodeDetails,
        O::ConnectionTerminationDetails,
        O::ResponseFlags,
        O::ResponseFlagsLong,
        O::RouteName,
        O::VirtualClusterName,
        O::UpstreamCluster,
        O::UpstreamHost,
        O::UpstreamLocalAddress,
        O::UpstreamTransportFailureReason,
        O::UpstreamRequestAttemptCount,
        O::DownstreamRemoteAddress { port: true },
        O::DownstreamDirectRemoteAddress { port: true },
        O::DownstreamLocalAddress { port: true },
        O::DownstreamLocalPort,
        O::RequestedServerName,
        O::DownstreamPeerUriSan,
        O::DownstreamLocalUriSan,
        O::DownstreamPeerSubject,
        O::DownstreamTlsVersion,
        O::DownstreamTlsCipher,
        O::UpstreamPeerUriSan,
        O::ConnectionId,
        O::Hostname,
        O::GrpcStatus,
        O::Method,
        O::Path,
        O::Authority,
        O::Scheme,
        O::RequestHeader {
            name: name("content-type"),
            alternative: Some(name("x-custom")),
            max: Some(20),
        },
        O::ResponseHeader {
            name: name("content-type"),
            alternative: Some(name("x-custom")),
            max: Some(20),
        },
        O::ResponseTrailer {
            name: name("grpc-status"),
            max: None,
        },
        O::FilterChainName,
        O::Percent,
    ]
}

/// A telemetry that counts in `registry`.
pub fn telemetry(registry: &Arc<Registry>) -> Arc<Telemetry> {
    use anyam_proxy::metrics::{Edges, SpliceMetrics};
    Arc::new(Telemetry {
        splices: SpliceMetrics::new(registry).unwrap(),
        edges: Edges::new(registry.clone()),
        local: Default::default(),
        taps: Default::default(),
    })
}
