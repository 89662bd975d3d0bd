//! Edges: source and destination of calls. The labels of Istio's metrics, resolved once per peer.
//!
//! An [`Edge`] is looked up when a connection opens (inbound) or an endpoint is first used
//! (outbound); from then on a request touches atomics only. `edges` bounds their number.

use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, PoisonError};

use prometheus::{Histogram, IntCounter};
use xds_proto::inspect::LATENCY_BOUNDS_MS;

use super::counts::EdgeCounts;
use super::flags::ResponseFlags;
use super::registry::Registry;

/// Distinct (code, gRPC status, flags) per edge; one more is counted under code 0.
pub(super) const MAX_OUTCOMES: usize = 64;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reporter {
    Source,
    Destination,
}

/// Half of an edge: a workload's labels. Unknown fields are empty and shown as `unknown`.
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
struct CallResult {
    code: u16,
    /// -1: not gRPC.
    grpc: i8,
    flags: ResponseFlags,
}

#[derive(Clone)]
pub(super) struct OutcomeHandles {
    outcome: CallResult,
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
    pub(super) outcomes: arc_swap::ArcSwap<Vec<OutcomeHandles>>,
    growing: Mutex<()>,
    tcp: std::sync::OnceLock<TcpHandles>,
    /// The flags with which TCP connections ended, except for none.
    tcp_flags: Mutex<Vec<ResponseFlags>>,
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
        let outcome = CallResult {
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
        let bucket = bucket.unwrap_or(LATENCY_BOUNDS_MS.len());
        if let Some(count) = counts.latency.get(bucket) {
            count.fetch_add(1, Relaxed);
        }
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
            let labels = self.labels_with(&["tcp", &self.noted(flags).label()]);
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

    /// Remembers flags, so that their series can be removed with the edge; beyond the bound they
    /// count as none.
    fn noted(&self, flags: ResponseFlags) -> ResponseFlags {
        let mut noted = self
            .tcp_flags
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        match noted.contains(&flags) {
            true => flags,
            false if noted.len() < MAX_OUTCOMES => {
                noted.push(flags);
                flags
            }
            false => ResponseFlags::NONE,
        }
    }

    fn with_outcome(&self, outcome: CallResult, record: impl Fn(&OutcomeHandles)) {
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
            CallResult {
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

    fn labels_of(&self, outcome: CallResult) -> Vec<String> {
        let grpc = if outcome.grpc < 0 {
            String::new()
        } else {
            outcome.grpc.to_string()
        };
        self.labels_with(&[
            self.key.protocol.label(),
            &outcome.code.to_string(),
            &grpc,
            &outcome.flags.label(),
        ])
    }

    fn resolve(&self, outcome: CallResult) -> OutcomeHandles {
        let labels = self.labels_of(outcome);
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

/// Removes the edge's series.
impl Drop for Edge {
    fn drop(&mut self) {
        let registry = &self.registry;
        // Removing fails only when the series is gone already.
        for handles in self.outcomes.load().iter() {
            let labels = self.labels_of(handles.outcome);
            let labels = as_strs(&labels);
            let _ = registry.requests.remove_label_values(&labels);
            for family in [
                &registry.request_duration,
                &registry.request_bytes,
                &registry.response_bytes,
            ] {
                let _ = family.remove_label_values(&labels);
            }
        }
        let noted = self.tcp_flags.get_mut();
        let noted = std::mem::take(noted.unwrap_or_else(PoisonError::into_inner));
        if self.tcp.get().is_some() {
            let labels = self.labels_with(&["tcp", "-"]);
            let labels = as_strs(&labels);
            for family in [
                &self.registry.tcp_opened,
                &self.registry.tcp_closed,
                &self.registry.tcp_sent,
                &self.registry.tcp_received,
            ] {
                let _ = family.remove_label_values(&labels);
            }
        }
        for flags in noted {
            let labels = self.labels_with(&["tcp", &flags.label()]);
            let closed = &self.registry.tcp_closed;
            let _ = closed.remove_label_values(&as_strs(&labels));
        }
    }
}

impl Edge {
    pub(super) fn new(key: EdgeKey, registry: Arc<Registry>) -> Self {
        Self {
            key,
            registry,
            outcomes: arc_swap::ArcSwap::from_pointee(Vec::new()),
            growing: Mutex::new(()),
            tcp: std::sync::OnceLock::new(),
            tcp_flags: Mutex::default(),
            counts: EdgeCounts::default(),
        }
    }
}
