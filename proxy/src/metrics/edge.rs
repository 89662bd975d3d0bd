//! Edges: who calls whom. The labels of Istio's metrics, resolved once per peer.
//!
//! An [`Edge`] is looked up when a connection opens (inbound) or an endpoint is first used
//! (outbound); from then on a request touches atomics only. The number of edges is bounded: what
//! comes after the bound is counted under the label `overflow`, so a hostile peer cannot grow the
//! label space.

use std::collections::HashMap;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, PoisonError};

use prometheus::{Histogram, IntCounter};
use xds_proto::inspect::LATENCY_BOUNDS_MS;

use super::counts::EdgeCounts;
use super::flags::ResponseFlags;
use super::registry::Registry;

/// Edges kept; one more is counted as overflow.
const MAX_EDGES: usize = 2000;
/// Distinct (code, gRPC status, flags) per edge; one more is counted under code 0.
const MAX_OUTCOMES: usize = 64;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reporter {
    Source,
    Destination,
}

/// Half of an edge: what is known of a workload. Unknown fields are empty and shown as `unknown`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Peer {
    pub workload: String,
    pub namespace: String,
    /// SPIFFE id; empty without mTLS.
    pub principal: String,
    pub app: String,
    pub version: String,
    pub cluster: String,
}

/// The service that was called.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Service {
    /// Fully qualified.
    pub host: String,
    pub name: String,
    pub namespace: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct EdgeKey {
    pub reporter: Reporter,
    pub source: Peer,
    pub destination: Peer,
    pub service: Service,
    pub mutual_tls: bool,
    pub protocol: RequestProtocol,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RequestProtocol {
    Http,
    Grpc,
    Tcp,
}

impl RequestProtocol {
    pub fn label(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Grpc => "grpc",
            Self::Tcp => "tcp",
        }
    }
}

/// What distinguishes a request's series on one edge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Outcome {
    code: u16,
    /// -1: not gRPC.
    grpc: i8,
    flags: ResponseFlags,
}

#[derive(Clone)]
struct OutcomeHandles {
    outcome: Outcome,
    requests: IntCounter,
    duration: Histogram,
    request_bytes: Histogram,
    response_bytes: Histogram,
}

/// One finished request.
#[derive(Clone, Copy, Debug)]
pub struct RequestSample {
    /// 0 when no response head was sent.
    pub code: u16,
    /// gRPC status; -1: not gRPC.
    pub grpc: i8,
    pub flags: ResponseFlags,
    pub duration: std::time::Duration,
    pub request_bytes: u64,
    pub response_bytes: u64,
    /// Refused by authorisation.
    pub denied: bool,
}

/// Metric handles and report counters of one edge. Shared by all workers.
pub struct Edge {
    pub key: EdgeKey,
    registry: Arc<Registry>,
    /// Grows to [`MAX_OUTCOMES`] and is then read only; replaced whole when it grows.
    outcomes: arc_swap::ArcSwap<Vec<OutcomeHandles>>,
    growing: Mutex<()>,
    tcp: std::sync::OnceLock<TcpHandles>,
    pub counts: EdgeCounts,
}

struct TcpHandles {
    opened: IntCounter,
    closed: IntCounter,
    sent: IntCounter,
    received: IntCounter,
}

impl Edge {
    /// Records a finished request. No strings, no locks once the outcome was seen before.
    pub fn record(&self, sample: &RequestSample) {
        let outcome = Outcome {
            code: sample.code,
            grpc: sample.grpc,
            flags: sample.flags,
        };
        let millis = sample.duration.as_secs_f64() * 1e3;
        self.with_outcome(outcome, |handles| {
            handles.requests.inc();
            handles.duration.observe(millis);
            handles.request_bytes.observe(sample.request_bytes as f64);
            handles.response_bytes.observe(sample.response_bytes as f64);
        });
        let counts = &self.counts;
        counts.requests.fetch_add(1, Relaxed);
        counts.raised(sample.flags);
        if sample.denied {
            counts.denied.fetch_add(1, Relaxed);
        }
        if sample.code >= 500 || sample.code == 0 || sample.grpc > 0 {
            counts.failures.fetch_add(1, Relaxed);
        }
        counts
            .bytes_received
            .fetch_add(sample.request_bytes, Relaxed);
        counts.bytes_sent.fetch_add(sample.response_bytes, Relaxed);
        let bucket = LATENCY_BOUNDS_MS.iter().position(|bound| millis <= *bound);
        counts.latency[bucket.unwrap_or(LATENCY_BOUNDS_MS.len())].fetch_add(1, Relaxed);
    }

    pub fn tcp_opened(&self) {
        self.tcp_handles().opened.inc();
        self.counts.opened.fetch_add(1, Relaxed);
    }

    /// Bytes as they flow, so that long connections show before they end.
    pub fn tcp_bytes(&self, sent: u64, received: u64) {
        let handles = self.tcp_handles();
        handles.sent.inc_by(sent);
        handles.received.inc_by(received);
        self.counts.bytes_sent.fetch_add(sent, Relaxed);
        self.counts.bytes_received.fetch_add(received, Relaxed);
    }

    /// A connection ended; `failed` when it never reached the endpoint or was cut.
    pub fn tcp_closed(&self, flags: ResponseFlags, failed: bool, denied: bool) {
        if flags.is_empty() {
            self.tcp_handles().closed.inc();
        } else {
            let labels = self.labels_with(&["tcp", &flags.label()]);
            self.registry
                .tcp_closed
                .with_label_values(&as_strs(&labels))
                .inc();
        }
        self.counts.closed.fetch_add(1, Relaxed);
        self.counts.raised(flags);
        if failed {
            self.counts.failures.fetch_add(1, Relaxed);
        }
        if denied {
            self.counts.denied.fetch_add(1, Relaxed);
        }
    }

    fn with_outcome(&self, outcome: Outcome, record: impl Fn(&OutcomeHandles)) {
        if let Some(handles) = self.outcomes.load().iter().find(|h| h.outcome == outcome) {
            return record(handles);
        }
        let _growing = self.growing.lock().unwrap_or_else(PoisonError::into_inner);
        let known = self.outcomes.load();
        if let Some(handles) = known.iter().find(|h| h.outcome == outcome) {
            return record(handles);
        }
        let bounded = if known.len() < MAX_OUTCOMES - 1 {
            outcome
        } else {
            Outcome {
                code: 0,
                grpc: -1,
                flags: ResponseFlags::NONE,
            }
        };
        if let Some(handles) = known.iter().find(|h| h.outcome == bounded) {
            return record(handles);
        }
        let handles = self.resolve(bounded);
        record(&handles);
        let mut grown = known.as_ref().clone();
        grown.push(handles);
        self.outcomes.store(Arc::new(grown));
    }

    fn resolve(&self, outcome: Outcome) -> OutcomeHandles {
        let grpc = if outcome.grpc < 0 {
            String::new()
        } else {
            outcome.grpc.to_string()
        };
        let labels = self.labels_with(&[
            self.key.protocol.label(),
            &outcome.code.to_string(),
            &grpc,
            &outcome.flags.label(),
        ]);
        let labels = as_strs(&labels);
        let registry = &self.registry;
        OutcomeHandles {
            outcome,
            requests: registry.requests.with_label_values(&labels),
            duration: registry.request_duration.with_label_values(&labels),
            request_bytes: registry.request_bytes.with_label_values(&labels),
            response_bytes: registry.response_bytes.with_label_values(&labels),
        }
    }

    fn tcp_handles(&self) -> &TcpHandles {
        self.tcp.get_or_init(|| {
            let labels = self.labels_with(&["tcp", "-"]);
            let labels = as_strs(&labels);
            let registry = &self.registry;
            TcpHandles {
                opened: registry.tcp_opened.with_label_values(&labels),
                closed: registry.tcp_closed.with_label_values(&labels),
                sent: registry.tcp_sent.with_label_values(&labels),
                received: registry.tcp_received.with_label_values(&labels),
            }
        })
    }

    /// Values in the order of [`super::registry::EDGE_LABELS`], then `more`.
    fn labels_with(&self, more: &[&str]) -> Vec<String> {
        let key = &self.key;
        let reporter = match key.reporter {
            Reporter::Source => "source",
            Reporter::Destination => "destination",
        };
        let security = match (key.reporter, key.mutual_tls) {
            (_, true) => "mutual_tls",
            (Reporter::Destination, false) => "none",
            (Reporter::Source, false) => "unknown",
        };
        let mut labels = vec![reporter.to_owned()];
        for peer in [&key.source, &key.destination] {
            labels.extend([
                known(&peer.workload),
                known(&peer.namespace),
                known(&peer.principal),
                known(&peer.app),
                known(&peer.version),
                known(&peer.app),
                known(&peer.version),
                known(&peer.cluster),
            ]);
        }
        let service = &key.service;
        labels.extend([
            known(&service.host),
            known(&service.name),
            known(&service.namespace),
        ]);
        labels.push(security.to_owned());
        labels.extend(more.iter().map(|v| (*v).to_owned()));
        labels
    }
}

fn known(value: &str) -> String {
    if value.is_empty() {
        "unknown".into()
    } else {
        value.into()
    }
}

fn as_strs(labels: &[String]) -> Vec<&str> {
    labels.iter().map(String::as_str).collect()
}

/// All edges of this process, bounded.
pub struct Edges {
    registry: Arc<Registry>,
    edges: Mutex<HashMap<EdgeKey, Arc<Edge>>>,
}

impl Edges {
    pub fn new(registry: Arc<Registry>) -> Self {
        Self {
            registry,
            edges: Mutex::new(HashMap::new()),
        }
    }

    /// The edge of `key`, made on first use. Called per connection or endpoint, not per request.
    pub fn get(&self, key: EdgeKey) -> Arc<Edge> {
        let mut edges = self.edges.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(edge) = edges.get(&key) {
            return edge.clone();
        }
        let key = if edges.len() < MAX_EDGES {
            key
        } else {
            self.registry.edges_overflowed.inc();
            overflow(&key)
        };
        edges
            .entry(key)
            .or_insert_with_key(|key| Arc::new(Edge::new(key.clone(), self.registry.clone())))
            .clone()
    }

    /// Every edge, for reports.
    pub fn all(&self) -> Vec<Arc<Edge>> {
        self.edges
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .values()
            .cloned()
            .collect()
    }
}

impl Edge {
    fn new(key: EdgeKey, registry: Arc<Registry>) -> Self {
        Self {
            key,
            registry,
            outcomes: arc_swap::ArcSwap::from_pointee(Vec::new()),
            growing: Mutex::new(()),
            tcp: std::sync::OnceLock::new(),
            counts: EdgeCounts::default(),
        }
    }
}

/// The key under which edges beyond the bound are counted: direction, protocol and security stay.
fn overflow(key: &EdgeKey) -> EdgeKey {
    let peer = || Peer {
        workload: "overflow".into(),
        namespace: "overflow".into(),
        principal: "overflow".into(),
        app: "overflow".into(),
        version: "overflow".into(),
        cluster: "overflow".into(),
    };
    EdgeKey {
        reporter: key.reporter,
        source: peer(),
        destination: peer(),
        service: Service {
            host: "overflow".into(),
            name: "overflow".into(),
            namespace: "overflow".into(),
        },
        mutual_tls: key.mutual_tls,
        protocol: key.protocol,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn key(n: usize) -> EdgeKey {
        EdgeKey {
            reporter: Reporter::Destination,
            source: Peer {
                workload: format!("w{n}"),
                ..Peer::default()
            },
            destination: Peer::default(),
            service: Service::default(),
            mutual_tls: true,
            protocol: RequestProtocol::Http,
        }
    }

    fn sample(code: u16) -> RequestSample {
        RequestSample {
            code,
            grpc: -1,
            flags: ResponseFlags::NONE,
            duration: Duration::from_millis(3),
            request_bytes: 10,
            response_bytes: 20,
            denied: false,
        }
    }

    #[test]
    fn requests_show_under_istios_names_and_labels() {
        let registry = Arc::new(Registry::new().unwrap());
        let edge = Edges::new(registry.clone()).get(key(1));
        edge.record(&sample(200));
        edge.record(&sample(503));
        let text = String::from_utf8(registry.expose().unwrap()).unwrap();
        let line = text
            .lines()
            .find(|l| l.starts_with("istio_requests_total") && l.contains("response_code=\"503\""))
            .unwrap();
        for label in [
            "reporter=\"destination\"",
            "source_workload=\"w1\"",
            "destination_service=\"unknown\"",
            "connection_security_policy=\"mutual_tls\"",
            "response_flags=\"-\"",
        ] {
            assert!(line.contains(label), "{label} missing in {line}");
        }
        assert!(line.ends_with(" 1"));
        assert_eq!(edge.counts.failures.load(Relaxed), 1);
    }

    #[test]
    fn label_space_is_bounded_in_edges_and_in_outcomes() {
        let registry = Arc::new(Registry::new().unwrap());
        let edges = Edges::new(registry.clone());
        for n in 0..MAX_EDGES + 50 {
            edges.get(key(n)).tcp_opened();
        }
        assert_eq!(edges.all().len(), MAX_EDGES + 1);
        let edge = edges.get(key(0));
        for code in 100..600 {
            edge.record(&sample(code));
        }
        assert!(edge.outcomes.load().len() <= MAX_OUTCOMES);
        assert_eq!(edge.counts.requests.load(Relaxed), 500);
    }
}
