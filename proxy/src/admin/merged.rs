//! The sidecar's metrics and the app's in one answer.
//!
//! The app's response decides the format, because it cannot be converted: OpenMetrics if the app
//! sends that, else Prometheus' text format. Of families that both have, the sidecar's are kept. If
//! the app does not answer, only its own metrics are missing.

use std::collections::HashSet;
use std::time::Duration;

use http::HeaderMap;
use prometheus::proto::MetricFamily;

use super::Admin;
use super::pages::Page;
use crate::metrics::open_metrics::{self, open_metrics};
use crate::metrics::registry::exposition;
use crate::probe::{Exposition, Prober};

/// Header in which the scraper sends its time-out.
const SCRAPE_TIMEOUT: &str = "x-prometheus-scrape-timeout-seconds";
/// Bound on the wait for the app, and the wait without the header.
const LONGEST: Duration = Duration::from_secs(25);
const DEFAULT: Duration = Duration::from_secs(8);
/// The part of the scraper's time-out for which the app is waited for: the response itself takes
/// some time too.
const SHARE: f64 = 0.8;

pub(super) async fn merged(admin: &Admin, prober: &Prober, headers: &HeaderMap) -> Page {
    let accept = headers.get(http::header::ACCEPT);
    let app = prober.scrape(accept, within(headers)).await;
    let families = admin.registry.gather();
    match app {
        Some(app) if app.is_open_metrics => {
            let mut text = open_metrics(&families);
            append(&mut text, &app, &families);
            text.push_str("# EOF\n");
            Page {
                content_type: open_metrics::CONTENT_TYPE,
                body: text.into_bytes(),
            }
        }
        app => {
            let text = exposition(&families).unwrap_or_else(|error| {
                tracing::error!(%error, "metrics cannot be written");
                Vec::new()
            });
            let mut text = String::from_utf8(text).unwrap_or_default();
            if let Some(app) = app {
                append(&mut text, &app, &families);
            }
            Page {
                content_type: "text/plain; version=0.0.4; charset=utf-8",
                body: text.into_bytes(),
            }
        }
    }
}

fn within(headers: &HeaderMap) -> Duration {
    let stated = headers
        .get(SCRAPE_TIMEOUT)
        .and_then(|value| value.to_str().ok());
    let seconds = stated.and_then(|text| text.parse::<f64>().ok());
    let share = seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds * SHARE).ok());
    share.unwrap_or(DEFAULT).min(LONGEST)
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
        assert_eq!(within_of("600"), LONGEST);
        assert_eq!(within_of("-1"), DEFAULT);
        assert_eq!(within(&HeaderMap::new()), DEFAULT);
    }
}
