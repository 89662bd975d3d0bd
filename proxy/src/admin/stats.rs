//! `/stats` and `/stats/prometheus`: every series, or those that are asked for.
//!
//! The names are Prometheus' in each format, labels included: they are what `filter` looks at.

use prometheus::proto::{Metric, MetricFamily, MetricType};
use regex::Regex;
use serde_json::{Value, json};

use super::Admin;
use super::pages::Page;
use super::quantiles;
use super::query::{AdminQuery, PageError};
use crate::metrics::registry::exposition;

/// The content type of Prometheus' text format.
pub(super) const TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Which series are shown.
struct SeriesSelection {
    filter: Option<Regex>,
    /// Those that are not 0. A gauge does not tell whether it was ever set: one that is 0 again is
    /// left out, though Envoy shows it.
    used_only: bool,
    kind: Option<MetricType>,
}

/// # Errors
/// A parameter cannot be understood.
pub(super) fn stats(admin: &Admin, query: &AdminQuery) -> Result<Page, PageError> {
    let selection = SeriesSelection::of(query)?;
    match query.get("format") {
        Some("prometheus") => return Ok(page(&selection.families(admin))),
        None | Some("text" | "json") => {}
        Some(other) => {
            let why = format!("no such format: {other:?}; ?format=json, prometheus or text");
            return Err(PageError::bad(why));
        }
    }
    let families = selection.families(admin);
    if query.get("format") == Some("json") {
        return Ok(Page::json(&json!({ "stats": as_json(families) })));
    }
    let lines: String = lines(&text_of(&families))
        .map(|(name, value)| format!("{name}: {value}\n"))
        .collect();
    Ok(Page::text(lines.into_bytes()))
}

/// One object for each counter and gauge; last, if there are histograms, one for all of them.
fn as_json(families: Vec<MetricFamily>) -> Vec<Value> {
    let is_histogram = |family: &MetricFamily| family.get_field_type() == MetricType::HISTOGRAM;
    let (histograms, plain): (Vec<_>, Vec<_>) = families.into_iter().partition(is_histogram);
    let mut stats: Vec<Value> = lines(&text_of(&plain))
        .map(|(name, value)| json!({ "name": name, "value": number(value) }))
        .collect();
    if !histograms.is_empty() {
        stats.push(json!({ "histograms": quantiles::histograms(&histograms) }));
    }
    stats
}

/// Series and value, of Prometheus' text format.
fn lines(text: &str) -> impl Iterator<Item = (&str, &str)> {
    text.lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| line.rsplit_once(' '))
}

/// # Errors
/// A parameter cannot be understood.
pub(super) fn for_prometheus(admin: &Admin, query: &AdminQuery) -> Result<Page, PageError> {
    Ok(page(&SeriesSelection::of(query)?.families(admin)))
}

/// Families in Prometheus' text format.
pub(super) fn page(families: &[MetricFamily]) -> Page {
    Page {
        content_type: TEXT,
        body: text_of(families).into(),
    }
}

pub(super) fn text_of(families: &[MetricFamily]) -> String {
    let text = exposition(families).unwrap_or_else(|error| {
        tracing::error!(%error, "metrics cannot be written");
        Vec::new()
    });
    String::from_utf8(text).unwrap_or_default()
}

impl SeriesSelection {
    fn of(query: &AdminQuery) -> Result<Self, PageError> {
        let kind = match query.get("type") {
            None | Some("All") => None,
            Some("Counters") => Some(MetricType::COUNTER),
            Some("Gauges") => Some(MetricType::GAUGE),
            Some("Histograms") => Some(MetricType::HISTOGRAM),
            Some(other) => return Err(PageError::bad(format!("invalid /stats?type={other}"))),
        };
        Ok(Self {
            filter: query.regex("filter")?,
            used_only: query.has("usedonly"),
            kind,
        })
    }

    fn families(&self, admin: &Admin) -> Vec<MetricFamily> {
        let mut families = admin.registry.gather();
        if let Some(kind) = self.kind {
            families.retain(|family| family.get_field_type() == kind);
        }
        for family in &mut families {
            let (name, kind) = (family.name().to_owned(), family.get_field_type());
            let wanted = |metric: &Metric| {
                (!self.used_only || is_used(kind, metric))
                    && self
                        .filter
                        .as_ref()
                        .is_none_or(|re| re.is_match(&series(&name, metric)))
            };
            family.mut_metric().retain(wanted);
        }
        families.retain(|family| !family.get_metric().is_empty());
        families
    }
}

fn is_used(kind: MetricType, metric: &Metric) -> bool {
    match kind {
        MetricType::COUNTER => metric.get_counter().get_value() != 0.0,
        MetricType::GAUGE => metric.get_gauge().get_value() != 0.0,
        MetricType::HISTOGRAM => metric.get_histogram().get_sample_count() != 0,
        MetricType::SUMMARY | MetricType::UNTYPED => true,
    }
}

/// As the text format writes it.
pub(super) fn series(name: &str, metric: &Metric) -> String {
    let labels = metric.get_label().iter();
    let labels: Vec<String> = labels
        .map(|label| format!("{}={:?}", label.name(), label.value()))
        .collect();
    match labels.is_empty() {
        true => name.to_owned(),
        false => format!("{name}{{{}}}", labels.join(",")),
    }
}

fn number(text: &str) -> Value {
    match (text.parse::<i64>(), text.parse::<f64>()) {
        (Ok(whole), _) => whole.into(),
        (_, Ok(number)) => number.into(),
        _ => text.into(),
    }
}
