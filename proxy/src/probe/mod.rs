//! Performs the kubelet's probes of the app, and reads the app's metrics.
//!
//! The kubelet has no certificate, so mTLS would refuse it. It calls the sidecar's status port
//! instead, and the sidecar calls the app at the pod's own address, from the source address that
//! the netfilter rules do not redirect.
//!
//! - `settings`: what to call; `dial`: connections to the app
//! - `http`, `redirect`: GET as the kubelet does it; `grpc`: health checks
//! - [`Prober`]: performs probes; a request for a probe that is already running shares its result,
//!   so no peer can add load

mod dial;
mod grpc;
mod http;
mod redirect;
pub mod settings;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ::http::{HeaderMap, HeaderValue, StatusCode, header};
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, WeakShared};
use prometheus::{IntCounterVec, IntGauge};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use self::dial::Dialer;
use self::settings::{AppProbe, ProbeHandler, StatusPortSettings};
use crate::metrics::Registry;
use crate::metrics::registry::RegistryError;

/// Bytes of a probe's response that are read; a longer response is no failure, as for the kubelet.
const PROBE_BODY: usize = 10 << 10;
/// The longest exposition of the app that is merged, bytes.
const MAX_EXPOSITION: usize = 10 << 20;

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

type RunningProbe = BoxFuture<'static, ProbeResult>;

struct ProbeSlot {
    probe: Arc<AppProbe>,
    /// The running probe: it is cancelled with the last request that waits for it.
    running: Mutex<Option<WeakShared<RunningProbe>>>,
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
    scrapes: Semaphore,
    results: IntCounterVec,
    up: Option<IntGauge>,
}

impl Prober {
    /// # Errors
    /// When a metric is registered twice.
    pub fn new(settings: &StatusPortSettings, registry: &Registry) -> Result<Self, RegistryError> {
        let performed = |probe: &Arc<AppProbe>| ProbeSlot {
            probe: Arc::clone(probe),
            running: Mutex::new(None),
        };
        let up = || {
            let help = "Whether the app's metrics could be read at the last scrape.";
            registry.gauge("anyam_app_metrics_up", help)
        };
        Ok(Prober {
            dialer: Dialer::new(settings.app),
            probes: settings.probes.iter().map(performed).collect(),
            metrics: settings.metrics.clone(),
            scrapes: Semaphore::new(1),
            results: registry.counters(
                "anyam_app_probes_total",
                "Probes of the app performed for the kubelet.",
                &["probe", "result"],
            )?,
            up: settings.metrics.as_ref().map(|_| up()).transpose()?,
        })
    }

    /// Performs a probe; `None`: the app has no probe of that name.
    pub async fn perform(&self, name: &str) -> Option<ProbeResult> {
        let performed = self.probes.iter().find(|p| p.probe.name == name)?;
        let running = {
            let mut slot = performed
                .running
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            let joined = slot.as_ref().and_then(WeakShared::upgrade);
            match joined.filter(|running| running.peek().is_none()) {
                Some(running) => running,
                None => {
                    let run = run(Arc::clone(&performed.probe), self.dialer);
                    let running = run.boxed().shared();
                    *slot = running.downgrade();
                    running
                }
            }
        };
        let outcome = running.await;
        let result = if outcome.status == StatusCode::OK {
            "success"
        } else {
            "failure"
        };
        self.results.with_label_values(&[name, result]).inc();
        Some(outcome)
    }

    /// The app's metrics; `None`: it has none, or its response is not usable. Only one request at a
    /// time is sent to it.
    pub async fn scrape(
        &self,
        accept: Option<&HeaderValue>,
        within: Duration,
    ) -> Option<Exposition> {
        let metrics = self.metrics.as_ref()?;
        let read = async {
            let Ok(_turn) = self.scrapes.acquire().await else {
                return Err("the process ends".to_owned());
            };
            self.read(metrics, accept).await
        };
        let read = timeout(within, read).await;
        let read = read.unwrap_or_else(|_| Err(format!("no answer within {within:?}")));
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
        accept: Option<&HeaderValue>,
    ) -> Result<Exposition, String> {
        let mut target = metrics.target.clone();
        let format = accept.filter(|accept| accepts_open_metrics(accept));
        let format = format.cloned().unwrap_or(HeaderValue::from_static(TEXT));
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

/// Protobuf cannot be merged, so a scraper that accepts it too is served text.
fn accepts_open_metrics(accept: &HeaderValue) -> bool {
    let text = accept.to_str().unwrap_or_default();
    text.contains("application/openmetrics-text") && !text.contains("protobuf")
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
