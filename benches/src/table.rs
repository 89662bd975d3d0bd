//! The bars of a run as a Markdown table, and every contestant's medians as another.

use std::fmt::Write;
use std::path::Path;

use crate::BenchError;
use crate::report::{Metric, Outcome, shown};

/// Writes both.
///
/// # Errors
/// When the file cannot be written.
pub fn write(
    path: &Path,
    machine: &[(&'static str, String)],
    outcomes: &[Outcome],
) -> Result<(), BenchError> {
    let mut text = String::new();
    for (what, value) in machine {
        let _ = writeln!(text, "- {what}: {value}");
    }
    text.push_str("\n| case | measured | reached | bar | |\n|---|---|---|---|---|\n");
    for outcome in outcomes {
        for bar in &outcome.bars {
            let what = match bar.against {
                Some(peer) => format!("{} / {peer}, {}", bar.own, bar.metric.name(outcome.bulk)),
                None => format!("{}, {}", bar.own, bar.metric.name(outcome.bulk)),
            };
            let verdict = if bar.holds { "holds" } else { "missed" };
            let _ = writeln!(
                text,
                "| {} | {what} | {} | \u{2264} {:.2} | {verdict} |",
                outcome.case.name(),
                shown(bar.reached),
                bar.most
            );
        }
    }
    text.push_str("\n| case | contestant | median | ours / it |\n|---|---|---|---|\n");
    for outcome in outcomes {
        medians(outcome, &mut text);
    }
    std::fs::write(path, text).map_err(|error| BenchError::Io {
        what: path.display().to_string(),
        error,
    })
}

/// A row for each contestant and metric that is compared.
fn medians(outcome: &Outcome, text: &mut String) {
    let Some(own) = outcome.series.first() else {
        return;
    };
    for series in &outcome.series {
        for metric in series.samples.keys() {
            if matches!(metric, Metric::Rate | Metric::P50 | Metric::Held) {
                continue;
            }
            let Some(value) = series.median(*metric) else {
                continue;
            };
            let ratio = own
                .median(*metric)
                .filter(|_| own.name != series.name && value > 0.0);
            let ratio = ratio.map(|ours| format!("{:.2}", ours / value));
            let _ = writeln!(
                text,
                "| {} | {} | {value:.2} {} | {} |",
                outcome.case.name(),
                series.name,
                metric.name(outcome.bulk),
                ratio.unwrap_or_default()
            );
        }
    }
}
