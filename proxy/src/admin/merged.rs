//! The pages for scrapers: the sidecar's metrics alone, or merged with the app's.
//!
//! The app decides the format, because its exposition cannot be rewritten: OpenMetrics if the app
//! answers with that, Prometheus' text format otherwise. A family that both have is taken from the
//! sidecar. If the app does not answer, only its own metrics are missing.
//!
//! Every peer can request a page, so one page serves all requests that arrive while it is made and
//! for a second after: its memory is shared, the app has one request at a time for each format, and
//! a peer's time-out does not affect others.

use std::collections::HashSet;
use std::panic::resume_unwind;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::HeaderMap;
use prometheus::proto::{Gauge, MetricFamily};
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use super::pages::Page;
use super::{Admin, stats};
use crate::metrics::open_metrics::{self, open_metrics};
use crate::probe::{self, Exposition, Joined, SCRAPE_TIME};
use crate::token_bucket::{Refill, TokenBucket};

/// Header in which the scraper sends its time-out.
const SCRAPE_TIMEOUT: &str = "x-prometheus-scrape-timeout-seconds";
/// How long the app is waited for if the scraper sends no time-out.
const DEFAULT: Duration = Duration::from_secs(8);
/// The part of the scraper's time-out for which the app is waited for: sending the response takes
/// time as well.
const SHARE: f64 = 0.8;
/// How long a page is kept after it was made.
const KEPT: Duration = Duration::from_secs(1);
/// Pages with parameters that are made in a second for all peers together.
const SELECTIONS: u32 = 10;

/// The pages of metrics on the ports that every peer reaches.
pub struct ScrapePages {
    own: Joined<Page>,
    /// Own, where the app has not answered within the scraper's time.
    without_app: Joined<Page>,
    /// With the app's, asked for as text.
    text: Joined<Page>,
    /// With the app's, asked for as OpenMetrics.
    open_metrics: Joined<Page>,
    selections: TokenBucket,
}

impl Default for ScrapePages {
    fn default() -> Self {
        let refill = Refill::new(SELECTIONS, SELECTIONS, Duration::from_secs(1));
        ScrapePages {
            own: Joined::new(KEPT),
            without_app: Joined::new(KEPT),
            text: Joined::new(KEPT),
            open_metrics: Joined::new(KEPT),
            selections: TokenBucket::new(refill, Instant::now()),
        }
    }
}

impl ScrapePages {
    /// Whether a page with parameters, which is made for one peer only, may be made now.
    pub(super) fn may_select(&self) -> bool {
        self.selections.take(Instant::now())
    }
}

/// The sidecar's metrics.
pub(super) async fn own(admin: &Arc<Admin>) -> Page {
    let begin = || made(admin.clone(), |admin| stats::page(&admin.registry.gather()));
    admin.scrapes.own.get(begin).await
}

/// The sidecar's metrics and the app's, as far as those come within the scraper's time.
pub(super) async fn merged(admin: &Arc<Admin>, headers: &HeaderMap) -> Page {
    let accept = headers.get(http::header::ACCEPT);
    let as_open_metrics = probe::accepts_open_metrics(accept);
    let page = match as_open_metrics {
        true => &admin.scrapes.open_metrics,
        false => &admin.scrapes.text,
    };
    let begin = || with_app(admin.clone(), as_open_metrics);
    if let Ok(page) = timeout(within(headers), page.get(begin)).await {
        return page;
    }
    let begin = || made(admin.clone(), |admin| write(admin, None));
    admin.scrapes.without_app.get(begin).await
}

async fn with_app(admin: Arc<Admin>, as_open_metrics: bool) -> Page {
    let app = match &admin.prober {
        Some(prober) => prober.scrape(as_open_metrics).await,
        None => None,
    };
    made(admin, move |admin| write(admin, app.as_ref())).await
}

/// A page may be of megabytes: the thread that the caller runs on has other work.
async fn made(admin: Arc<Admin>, write: impl FnOnce(&Admin) -> Page + Send + 'static) -> Page {
    let failed = match spawn_blocking(move || write(&admin)).await {
        Ok(page) => return page,
        Err(error) => error.try_into_panic(),
    };
    match failed {
        Ok(panic) => resume_unwind(panic),
        // The process ends.
        Err(_) => Page::text(Vec::new()),
    }
}

fn write(admin: &Admin, app: Option<&Exposition>) -> Page {
    let mut families = admin.registry.gather();
    set_up(&mut families, app.is_some());
    let Some(app) = app else {
        return stats::page(&families);
    };
    if !app.is_open_metrics {
        let mut text = stats::text_of(&families);
        append(&mut text, app, &families);
        return Page {
            content_type: stats::TEXT,
            body: text.into(),
        };
    }
    let mut text = open_metrics(&families);
    append(&mut text, app, &families);
    text.push_str("# EOF\n");
    Page {
        content_type: open_metrics::CONTENT_TYPE,
        body: text.into(),
    }
}

/// Sets the gauge for this page, not for a later request to the app.
fn set_up(families: &mut [MetricFamily], is_up: bool) {
    let mut families = families.iter_mut();
    let Some(up) = families.find(|family| family.name() == probe::APP_UP) else {
        return;
    };
    for metric in up.mut_metric() {
        let mut gauge = Gauge::default();
        gauge.set_value(f64::from(u8::from(is_up)));
        metric.set_gauge(gauge);
    }
}

fn within(headers: &HeaderMap) -> Duration {
    let stated = headers
        .get(SCRAPE_TIMEOUT)
        .and_then(|value| value.to_str().ok());
    let seconds = stated.and_then(|text| text.parse::<f64>().ok());
    let share = seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds * SHARE).ok());
    share.unwrap_or(DEFAULT).min(SCRAPE_TIME)
}

/// Appends the app's lines, except for families that are in the text already: a family that occurs
/// twice makes the whole exposition invalid.
fn append(text: &mut String, app: &Exposition, families: &[MetricFamily]) {
    let ours: HashSet<&str> = families
        .iter()
        .flat_map(|family| [family.name(), stem(family.name())])
        .collect();
    text.reserve(app.text.len());
    for line in app.text.lines() {
        let name = family(line);
        let is_end = app.is_open_metrics && line.trim_end() == "# EOF";
        if !is_end && !ours.contains(name) && !ours.contains(stem(name)) {
            text.push_str(line);
            text.push('\n');
        }
    }
}

/// The name of the metric in a line; empty where the line has none.
fn family(line: &str) -> &str {
    let about = ["# HELP ", "# TYPE ", "# UNIT "];
    let line = line.trim_start();
    let described = about
        .into_iter()
        .find_map(|prefix| line.strip_prefix(prefix));
    let named = match described {
        Some(rest) => rest,
        None if line.starts_with('#') => "",
        None => line,
    };
    let ends = |c: char| c == '{' || c.is_whitespace();
    named.split(ends).next().unwrap_or_default()
}

/// The name without the suffix of a sample.
fn stem(name: &str) -> &str {
    let suffixes = ["_total", "_bucket", "_sum", "_count", "_created"];
    let stems = suffixes
        .into_iter()
        .find_map(|suffix| name.strip_suffix(suffix));
    stems.unwrap_or(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_about_families() {
        for (line, expected) in [
            ("# HELP a_total What it is.", "a_total"),
            ("# TYPE a counter", "a"),
            ("# a comment", ""),
            ("a_bucket{le=\"1\"} 2", "a_bucket"),
            ("a 2 1700000000", "a"),
            ("  a\t2", "a"),
            ("{\"a.b\"} 1", ""),
            ("", ""),
        ] {
            assert_eq!(family(line), expected, "{line:?}");
        }
        assert_eq!(stem("a_bucket"), "a");
        assert_eq!(stem("a"), "a");
    }

    #[test]
    fn the_app_gets_a_part_of_the_scrapers_time_out() {
        let within_of = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(SCRAPE_TIMEOUT, value.parse().unwrap());
            within(&headers)
        };
        assert_eq!(within_of("10"), Duration::from_secs(8));
        assert_eq!(within_of("0.5"), Duration::from_millis(400));
        assert_eq!(within_of("1e300"), DEFAULT);
        assert_eq!(within_of("600"), SCRAPE_TIME);
        assert_eq!(within_of("-1"), DEFAULT);
        assert_eq!(within(&HeaderMap::new()), DEFAULT);
    }
}
