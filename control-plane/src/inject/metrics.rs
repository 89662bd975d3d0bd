//! The app's metrics. A pod whose `prometheus.io` annotations ask for scraping is scraped at the
//! sidecar, which serves the app's metrics together with its own.

use serde_json::{Map, Value};
use xds_proto::anyam::bootstrap::v1::AppMetrics;

use super::pod::{JsonObject, PodManifest};
use super::probes::json_form;
use super::sidecar::STATUS_PORT;
use super::values;

const SCRAPE: &str = "prometheus.io/scrape";
const PORT: &str = "prometheus.io/port";
const PATH: &str = "prometheus.io/path";
const SCHEME: &str = "prometheus.io/scheme";

/// What was merged.
#[derive(Debug, Default)]
pub(super) struct Merged {
    app: Option<AppMetrics>,
    /// The annotations before injection; null: there was none.
    pub(super) originals: Map<String, Value>,
}

impl Merged {
    /// JSON for the sidecar; empty where the app has no metrics.
    pub(super) fn to_environment(&self) -> String {
        let app = self.app.as_ref();
        app.map_or(String::new(), |app| json_form(app).to_string())
    }
}

/// What the annotations are set to.
pub(super) fn written(name: &str) -> Option<String> {
    match name {
        PORT => Some(STATUS_PORT.to_string()),
        PATH => Some("/stats/prometheus".to_owned()),
        SCHEME => Some("http".to_owned()),
        _ => None,
    }
}

pub(super) fn merge(pod: &mut PodManifest, warnings: &mut Vec<String>) -> Merged {
    if pod.annotation(SCRAPE) != Some("true") {
        return Merged::default();
    }
    let app = match read(pod) {
        Ok(app) => app,
        Err(why) => {
            warnings.push(format!(
                "the app's metrics are not merged with the sidecar's, and strict mTLS refuses scrapers: {why}"
            ));
            return Merged::default();
        }
    };
    let mut originals = Map::new();
    for name in [PORT, PATH, SCHEME] {
        let original = pod.annotations.get(name).cloned().unwrap_or_default();
        originals.insert(name.to_owned(), original);
        if let Some(value) = written(name) {
            pod.annotations.insert(name.to_owned(), value.into());
        }
    }
    Merged {
        app: Some(app),
        originals,
    }
}

fn read(pod: &PodManifest) -> Result<AppMetrics, String> {
    let port = match pod.annotation(PORT) {
        Some(text) => values::port(text)
            .ok_or_else(|| format!("annotation {PORT}: {text:?} is no port from 1 to 65535"))?,
        None => only_port(pod)?,
    };
    let scheme = pod.annotation(SCHEME).unwrap_or_default();
    if !["", "http", "https"].contains(&scheme) {
        return Err(format!(
            "annotation {SCHEME}: {scheme:?} is neither http nor https"
        ));
    }
    let path = pod.annotation(PATH).unwrap_or_default();
    if !path.is_empty() && !path.starts_with('/') {
        return Err(format!("annotation {PATH}: {path:?} does not begin with /"));
    }
    Ok(AppMetrics {
        scheme: scheme.to_owned(),
        port: port.into(),
        path: path.to_owned(),
    })
}

/// Without the annotation Prometheus scrapes every declared port; merging needs exactly one.
fn only_port(pod: &PodManifest) -> Result<u16, String> {
    let of = |container: &JsonObject| container.get("ports").and_then(Value::as_array).cloned();
    let declared = pod.containers.iter().filter_map(of).flatten();
    let is_tcp = |port: &Value| {
        port.get("protocol")
            .is_none_or(|protocol| protocol == "TCP")
    };
    let mut numbers = declared
        .filter(is_tcp)
        .filter_map(|port| u16::try_from(port.get("containerPort")?.as_u64()?).ok());
    match (numbers.next(), numbers.next()) {
        (Some(port), None) => Ok(port),
        _ => Err(format!(
            "which port has them is not clear; add the annotation {PORT}"
        )),
    }
}
