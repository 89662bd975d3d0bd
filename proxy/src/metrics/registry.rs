//! The metric registry and Istio's standard families.
//! Names and labels: Istio's "Standard metrics" reference.

use std::collections::HashMap;

use prometheus::{
    Encoder, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts,
    TextEncoder, proto::MetricFamily,
};

/// Labels of every HTTP family; TCP families lack the request's own.
pub(super) const EDGE_LABELS: [&str; 21] = [
    "reporter",
    "source_workload",
    "source_workload_namespace",
    "source_principal",
    "source_app",
    "source_version",
    "source_canonical_service",
    "source_canonical_revision",
    "source_cluster",
    "destination_workload",
    "destination_workload_namespace",
    "destination_principal",
    "destination_app",
    "destination_version",
    "destination_canonical_service",
    "destination_canonical_revision",
    "destination_cluster",
    "destination_service",
    "destination_service_name",
    "destination_service_namespace",
    "connection_security_policy",
];
const REQUEST_LABELS: [&str; 4] = [
    "request_protocol",
    "response_code",
    "grpc_response_status",
    "response_flags",
];
const TCP_LABELS: [&str; 2] = ["request_protocol", "response_flags"];

/// Istio's latency buckets, milliseconds.
const DURATION_BUCKETS: [f64; 20] = [
    0.5,
    1.0,
    5.0,
    10.0,
    25.0,
    50.0,
    100.0,
    250.0,
    500.0,
    1000.0,
    2500.0,
    5000.0,
    10_000.0,
    30_000.0,
    60_000.0,
    300_000.0,
    600_000.0,
    1_800_000.0,
    3_600_000.0,
    7_200_000.0,
];
const SIZE_BUCKETS: [f64; 8] = [10.0, 100.0, 1000.0, 10_000.0, 100_000.0, 1e6, 1e7, 1e8];

/// All metrics of this process. Handles are resolved from it when a snapshot compiles or a
/// connection opens, never per request.
pub struct Registry {
    inner: prometheus::Registry,
    pub(super) requests: IntCounterVec,
    pub(crate) request_duration: HistogramVec,
    pub(super) request_bytes: HistogramVec,
    pub(super) response_bytes: HistogramVec,
    pub(crate) tcp_opened: IntCounterVec,
    pub(crate) tcp_closed: IntCounterVec,
    pub(super) tcp_sent: IntCounterVec,
    pub(super) tcp_received: IntCounterVec,
    pub(super) edges_overflowed: IntCounter,
}

/// A metric could not be registered: a programming error, reported at start.
#[derive(Debug, thiserror::Error)]
#[error("metric cannot be registered: {0}")]
pub struct RegistryError(#[from] prometheus::Error);

impl Registry {
    pub fn new() -> Result<Self, RegistryError> {
        Self::with_labels(&[])
    }

    /// `labels`: of every metric, whatever its own are.
    ///
    /// # Errors
    /// When a label is given twice with different values, or is one of a metric's own.
    pub fn with_labels(labels: &[(String, String)]) -> Result<Self, RegistryError> {
        let mut common = HashMap::new();
        for (name, value) in labels {
            let other = common.insert(name.clone(), value.clone());
            if other.is_some_and(|other| other != *value) {
                let why = format!("the label {name} of every metric has two values");
                return Err(prometheus::Error::Msg(why).into());
            }
        }
        let http: Vec<&str> = EDGE_LABELS.iter().chain(&REQUEST_LABELS).copied().collect();
        let tcp: Vec<&str> = EDGE_LABELS.iter().chain(&TCP_LABELS).copied().collect();
        let counters = |name: &str, help: &str, labels: &[&str]| {
            IntCounterVec::new(Opts::new(name, help), labels)
        };
        let histograms = |name: &str, help: &str, buckets: &[f64]| {
            HistogramVec::new(
                HistogramOpts::new(name, help).buckets(buckets.to_vec()),
                &http,
            )
        };
        let registry = Self {
            inner: prometheus::Registry::new_custom(None, Some(common))?,
            requests: counters("istio_requests_total", "Requests handled.", &http)?,
            request_duration: histograms(
                "istio_request_duration_milliseconds",
                "Time from a request's first byte to its response's last, milliseconds.",
                &DURATION_BUCKETS,
            )?,
            request_bytes: histograms(
                "istio_request_bytes",
                "Bytes of request bodies.",
                &SIZE_BUCKETS,
            )?,
            response_bytes: histograms(
                "istio_response_bytes",
                "Bytes of response bodies.",
                &SIZE_BUCKETS,
            )?,
            tcp_opened: counters(
                "istio_tcp_connections_opened_total",
                "TCP connections opened.",
                &tcp,
            )?,
            tcp_closed: counters(
                "istio_tcp_connections_closed_total",
                "TCP connections closed.",
                &tcp,
            )?,
            tcp_sent: counters(
                "istio_tcp_sent_bytes_total",
                "Bytes of TCP connections sent in response.",
                &tcp,
            )?,
            tcp_received: counters(
                "istio_tcp_received_bytes_total",
                "Bytes of TCP connections received in request.",
                &tcp,
            )?,
            edges_overflowed: IntCounter::new(
                "anyam_telemetry_edges_overflowed_total",
                "Peers counted under the overflow label because the bound on label sets was met.",
            )?,
        };
        registry.register_all()?;
        Ok(registry)
    }

    fn register_all(&self) -> Result<(), RegistryError> {
        for counter in [
            &self.requests,
            &self.tcp_opened,
            &self.tcp_closed,
            &self.tcp_sent,
            &self.tcp_received,
        ] {
            self.inner.register(Box::new(counter.clone()))?;
        }
        for histogram in [
            &self.request_duration,
            &self.request_bytes,
            &self.response_bytes,
        ] {
            self.inner.register(Box::new(histogram.clone()))?;
        }
        self.inner
            .register(Box::new(self.edges_overflowed.clone()))?;
        Ok(())
    }

    /// A counter of our own, registered once.
    pub fn counter(&self, name: &str, help: &str) -> Result<IntCounter, RegistryError> {
        let counter = IntCounter::new(name, help)?;
        self.inner.register(Box::new(counter.clone()))?;
        Ok(counter)
    }

    /// Registers a counter that was made before.
    pub fn adopt(&self, counter: &IntCounter) -> Result<(), RegistryError> {
        Ok(self.inner.register(Box::new(counter.clone()))?)
    }

    /// A gauge of our own, registered once.
    pub fn gauge(&self, name: &str, help: &str) -> Result<IntGauge, RegistryError> {
        let gauge = IntGauge::new(name, help)?;
        self.inner.register(Box::new(gauge.clone()))?;
        Ok(gauge)
    }

    /// A labelled counter family; take handles with `with_label_values` off the hot path.
    pub fn counters(
        &self,
        name: &str,
        help: &str,
        labels: &[&str],
    ) -> Result<IntCounterVec, RegistryError> {
        let family = IntCounterVec::new(Opts::new(name, help), labels)?;
        self.inner.register(Box::new(family.clone()))?;
        Ok(family)
    }

    /// A labelled gauge family.
    pub fn gauges(
        &self,
        name: &str,
        help: &str,
        labels: &[&str],
    ) -> Result<IntGaugeVec, RegistryError> {
        let family = IntGaugeVec::new(Opts::new(name, help), labels)?;
        self.inner.register(Box::new(family.clone()))?;
        Ok(family)
    }

    /// Every family with its series, as they are now.
    pub fn gather(&self) -> Vec<MetricFamily> {
        self.inner.gather()
    }

    /// Prometheus' text exposition format, version 0.0.4.
    pub fn expose(&self) -> Result<Vec<u8>, RegistryError> {
        exposition(&self.gather())
    }
}

/// Prometheus' text exposition format, version 0.0.4, of `families`.
pub fn exposition(families: &[MetricFamily]) -> Result<Vec<u8>, RegistryError> {
    let mut text = Vec::with_capacity(16 << 10);
    TextEncoder::new().encode(families, &mut text)?;
    Ok(text)
}
