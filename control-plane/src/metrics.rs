//! The control plane's own Prometheus metrics.

use prometheus::{Encoder, IntCounter, IntCounterVec, IntGauge, Opts, Registry, TextEncoder};

/// Handles, resolved once.
pub struct Metrics {
    registry: Registry,
    pub pushes: IntCounterVec,
    pub rejections: IntCounterVec,
    pub certificates_issued: IntCounter,
    pub certificates_refused: IntCounter,
    pub api_requests: IntCounterVec,
    pub edges_dropped: IntCounter,
    pub injections: IntCounterVec,
    /// Tokens of pods, by outcome.
    pub token_reviews: IntCounterVec,
    /// Rights of users, by outcome.
    pub access_reviews: IntCounterVec,
    /// 1 on the replica that writes to the cluster.
    pub leader: IntGauge,
    connections_refused: IntCounterVec,
    peers_refused: IntCounterVec,
    proxies: IntGauge,
    generation: IntGauge,
    root_expiry: IntGauge,
}

/// Makes and registers metrics.
struct MetricFactory<'a>(&'a Registry);

impl MetricFactory<'_> {
    fn counter(&self, name: &str, help: &str) -> Result<IntCounter, prometheus::Error> {
        let made = IntCounter::new(name, help)?;
        self.0.register(Box::new(made.clone()))?;
        Ok(made)
    }

    fn by(&self, name: &str, help: &str, label: &str) -> Result<IntCounterVec, prometheus::Error> {
        let made = IntCounterVec::new(Opts::new(name, help), &[label])?;
        self.0.register(Box::new(made.clone()))?;
        Ok(made)
    }

    fn outcomes(&self, name: &str, help: &str) -> Result<IntCounterVec, prometheus::Error> {
        self.by(name, help, "outcome")
    }

    fn gauge(&self, name: &str, help: &str) -> Result<IntGauge, prometheus::Error> {
        let made = IntGauge::new(name, help)?;
        self.0.register(Box::new(made.clone()))?;
        Ok(made)
    }
}

impl Metrics {
    /// # Errors
    /// When two metrics share a name, which a test would find.
    pub fn new() -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        let made = MetricFactory(&registry);
        Ok(Metrics {
            pushes: made.by(
                "anyam_control_xds_pushes_total",
                "Responses sent over ADS",
                "type",
            )?,
            rejections: made.by(
                "anyam_control_xds_rejections_total",
                "Updates that proxies rejected (NACK)",
                "type",
            )?,
            certificates_issued: made.counter(
                "anyam_control_certificates_issued_total",
                "Workload certificates signed",
            )?,
            certificates_refused: made.counter(
                "anyam_control_certificates_refused_total",
                "Certificate requests refused",
            )?,
            api_requests: made.by(
                "anyam_control_api_requests_total",
                "Requests to the HTTP API",
                "status",
            )?,
            edges_dropped: made.counter(
                "anyam_control_edges_dropped_total",
                "Reported edges not kept because the table was full",
            )?,
            injections: made.outcomes(
                "anyam_control_injections_total",
                "AdmissionReviews answered by the webhook",
            )?,
            token_reviews: made.outcomes(
                "anyam_control_token_reviews_total",
                "Service-account tokens that sidecars showed",
            )?,
            access_reviews: made.outcomes(
                "anyam_control_access_reviews_total",
                "SubjectAccessReviews of users of the aggregated API",
            )?,
            leader: made.gauge(
                "anyam_control_leader",
                "1 while this replica writes to the cluster",
            )?,
            connections_refused: made.by(
                "anyam_control_connections_refused_total",
                "Connections closed because of a bound on connections, by port or by bound",
                "reason",
            )?,
            peers_refused: made.by(
                "anyam_control_peers_refused_total",
                "Connections refused because of the certificate that the peer showed, or showed not",
                "port",
            )?,
            proxies: made.gauge("anyam_control_proxies", "Proxies with an open ADS stream")?,
            generation: made.gauge(
                "anyam_control_model_generation",
                "Generation of the model that is served",
            )?,
            root_expiry: made.gauge(
                "anyam_control_root_expiry_timestamp_seconds",
                "When the root certificate ends",
            )?,
            registry,
        })
    }

    /// Counts a connection that was closed because of a bound.
    pub fn refused(&self, reason: &str) {
        self.connections_refused.with_label_values(&[reason]).inc();
    }

    /// Counts a connection whose peer is not one that the port is for.
    pub fn peer_refused(&self, port: &str) {
        self.peers_refused.with_label_values(&[port]).inc();
    }

    /// The text exposition; gauges are set to what is true now.
    ///
    /// # Errors
    /// When a metric can't be encoded.
    pub fn render(
        &self,
        proxies: usize,
        generation: u64,
        root_expiry: i64,
    ) -> Result<Vec<u8>, prometheus::Error> {
        self.proxies.set(i64::try_from(proxies).unwrap_or(i64::MAX));
        self.generation
            .set(i64::try_from(generation).unwrap_or(i64::MAX));
        self.root_expiry.set(root_expiry);
        let mut text = Vec::new();
        TextEncoder::new().encode(&self.registry.gather(), &mut text)?;
        Ok(text)
    }
}
