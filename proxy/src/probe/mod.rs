//! Performs the kubelet's probes of the app, and reads the app's metrics.
//!
//! The kubelet has no certificate, so mTLS would refuse it. It calls the sidecar's status port
//! instead, and the sidecar calls the app at the pod's own address, from the source address that
//! the netfilter rules do not redirect.
//!
//! - `settings`: what to call; `dial`: connections to the app
//! - `http`, `redirect`: GET as the kubelet does it; `grpc`: health checks
//! - `joined`: one run for all concurrent callers
//! - [`Prober`]: performs probes, each at most twice a second, so that no peer adds load; hooks
//!   only for requests with their token
#![cfg_attr(
    not(test),
    deny(
        clippy::arithmetic_side_effects,
        clippy::expect_used,
        clippy::indexing_slicing,
        clippy::panic,
        clippy::string_slice,
        clippy::unreachable,
        clippy::unwrap_used
    )
)]

mod dial;
mod grpc;
mod http;
mod joined;
mod redirect;
pub mod settings;

use std::sync::Arc;
use std::time::Duration;

use ::http::{HeaderMap, HeaderValue, StatusCode, header};
use prometheus::{IntCounterVec, IntGauge};
use tokio::time::timeout;

use self::dial::Dialer;
pub(crate) use self::joined::Joined;
use self::settings::{AppProbe, ProbeHandler, StatusPortSettings};
use crate::metrics::Registry;
use crate::metrics::registry::RegistryError;

/// Bytes of a probe's response that are read; a longer response is no failure, as for the kubelet.
const PROBE_BODY: usize = 10 << 10;
/// How long the result of a probe is kept. The kubelet probes once a second at most.
const PROBE_KEPT: Duration = Duration::from_millis(500);
/// The largest exposition of the app's that is merged, bytes.
const MAX_EXPOSITION: usize = 10 << 20;
/// Gauge: whether the app answered when its metrics were last read.
pub const APP_UP: &str = "anyam_app_metrics_up";
/// Time-out for the app's metrics.
pub const SCRAPE_TIME: Duration = Duration::from_secs(25);

/// A probe's result, as it is returned to the kubelet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProbeResult {
    pub status: StatusCode,
    pub message: String,
}

impl ProbeResult {
    fn success(message: impl Into<String>) -> Self {
        let (status, message) = (StatusCode::OK, message.into());
        ProbeResult { status, message }
    }

    fn failure(message: impl Into<String>) -> Self {
        let (status, message) = (StatusCode::SERVICE_UNAVAILABLE, message.into());
        ProbeResult { status, message }
    }
}

struct ProbeSlot {
    probe: Arc<AppProbe>,
    runs: Joined<ProbeResult>,
}

/// The app's metrics.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exposition {
    pub text: String,
    /// Whether the text is OpenMetrics 1.0, and not Prometheus' text format.
    pub is_open_metrics: bool,
}

/// Performs the app's probes and reads its metrics.
pub struct Prober {
    dialer: Dialer,
    probes: Vec<ProbeSlot>,
    metrics: Option<settings::AppMetrics>,
    results: IntCounterVec,
    up: Option<IntGauge>,
}

impl Prober {
    /// # Errors
    /// When a metric is registered twice.
    pub fn new(settings: &StatusPortSettings, registry: &Registry) -> Result<Self, RegistryError> {
        let performed = |probe: &Arc<AppProbe>| ProbeSlot {
            probe: Arc::clone(probe),
            runs: Joined::new(PROBE_KEPT),
        };
        let up = || {
            let help = "Whether the app answered when its metrics were last read.";
            registry.gauge(APP_UP, help)
        };
        Ok(Prober {
            dialer: Dialer::new(settings.app),
            probes: settings.probes.iter().map(performed).collect(),
            metrics: settings.metrics.clone(),
            results: registry.counters(
                "anyam_app_probes_total",
                "Probes of the app performed for the kubelet.",
                &["probe", "result"],
            )?,
            up: settings.metrics.as_ref().map(|_| up()).transpose()?,
        })
    }

    /// Performs the probe or hook at a path below `/app-health/`; `None`: the app has none at this
    /// path.
    pub async fn perform(&self, path: &str) -> Option<ProbeResult> {
        let slot = self.probes.iter().find(|slot| slot.probe.is_at(path))?;
        let begin = || run(Arc::clone(&slot.probe), self.dialer);
        let outcome = match slot.probe.token {
            None => slot.runs.get(begin).await,
            // Not limited: the kubelet runs a hook once for each start and end of a container.
            Some(_) => begin().await,
        };
        let result = if outcome.status == StatusCode::OK {
            "success"
        } else {
            "failure"
        };
        let name = slot.probe.name.as_str();
        self.results.with_label_values(&[name, result]).inc();
        Some(outcome)
    }

    /// The app's metrics, as OpenMetrics if the app supports it and `open_metrics` is set; `None`:
    /// the app has none, or gave no valid answer within [`SCRAPE_TIME`].
    pub async fn scrape(&self, open_metrics: bool) -> Option<Exposition> {
        let metrics = self.metrics.as_ref()?;
        let read = timeout(SCRAPE_TIME, self.read(metrics, open_metrics)).await;
        let read = read.unwrap_or_else(|_| Err(format!("no answer within {SCRAPE_TIME:?}")));
        if let Some(up) = &self.up {
            up.set(i64::from(read.is_ok()));
        }
        if let Err(why) = &read {
            tracing::debug!(port = metrics.target.port, why, "the app's metrics");
        }
        read.ok()
    }

    async fn read(
        &self,
        metrics: &settings::AppMetrics,
        open_metrics: bool,
    ) -> Result<Exposition, String> {
        let mut target = metrics.target.clone();
        let format = HeaderValue::from_static(if open_metrics { OPEN_METRICS } else { TEXT });
        target.headers.insert(header::ACCEPT, format);
        let answer = http::get(self.dialer, &target, MAX_EXPOSITION).await?;
        if !answer.status.is_success() {
            return Err(format!("it answered {}", answer.status));
        }
        if !answer.is_whole {
            return Err(format!("its answer is longer than {MAX_EXPOSITION} bytes"));
        }
        let is_open_metrics = format_of(&answer.headers)?;
        let text = String::from_utf8(answer.body).map_err(|_| "it is not UTF-8".to_owned())?;
        Ok(Exposition {
            text,
            is_open_metrics,
        })
    }
}

/// The Accept header where the scraper does not accept OpenMetrics.
const TEXT: &str = "text/plain;version=0.0.4;q=1,*/*;q=0.1";
/// What is asked for where it does, as Prometheus does.
const OPEN_METRICS: &str = "application/openmetrics-text;version=1.0.0;q=0.6,application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=0.0.4;q=0.4,*/*;q=0.1";

/// A scraper that also takes protobuf is not to get it from the app: it cannot be merged.
pub fn accepts_open_metrics(accept: Option<&HeaderValue>) -> bool {
    let text = accept.and_then(|accept| accept.to_str().ok());
    text.is_some_and(|text| {
        text.contains("application/openmetrics-text") && !text.contains("protobuf")
    })
}

/// Whether a response is OpenMetrics.
fn format_of(headers: &HeaderMap) -> Result<bool, String> {
    let kind = headers.get(header::CONTENT_TYPE);
    let kind = kind
        .and_then(|kind| kind.to_str().ok())
        .unwrap_or("text/plain");
    let essence = kind
        .split(';')
        .next()
        .unwrap_or_default()
        .trim()
        .to_ascii_lowercase();
    match essence.as_str() {
        "application/openmetrics-text" => Ok(true),
        "text/plain" => Ok(false),
        _ => Err(format!(
            "its content type is {kind:?}, which is no format of metrics"
        )),
    }
}

async fn run(probe: Arc<AppProbe>, dialer: Dialer) -> ProbeResult {
    let outcome = timeout(probe.timeout, attempt(&probe.handler, dialer)).await;
    outcome.unwrap_or_else(|_| ProbeResult {
        status: StatusCode::GATEWAY_TIMEOUT,
        message: format!("no answer within {:?}", probe.timeout),
    })
}

async fn attempt(handler: &ProbeHandler, dialer: Dialer) -> ProbeResult {
    match handler {
        ProbeHandler::Http(target) => match http::get(dialer, target, PROBE_BODY).await {
            Ok(answer) if answer.status.is_success() || answer.status.is_redirection() => {
                ProbeResult::success(format!("the app answered {}", answer.status))
            }
            Ok(answer) => ProbeResult {
                status: answer.status,
                message: format!("the app answered {}", answer.status),
            },
            Err(why) => ProbeResult::failure(why),
        },
        ProbeHandler::Tcp { port } => match dialer.connect(*port).await {
            Ok(_) => ProbeResult::success("connected"),
            Err(why) => ProbeResult::failure(why),
        },
        ProbeHandler::Grpc { port, service } => match grpc::check(dialer, *port, service).await {
            Ok(()) => ProbeResult::success("serving"),
            Err(why) => ProbeResult::failure(why),
        },
    }
}
