//! Medians, spreads, ratios, bars; JSON.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use serde::Serialize;

use crate::bars::{self, Bar};
use crate::cases::Case;
use crate::{BenchError, Programs};

/// What a round measures.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Metric {
    /// CPU per request, or per GiB where the work is bulk.
    Cpu,
    Rate,
    P50,
    P99,
    /// The 99th percentile less that of the same load without proxies.
    AddedP99,
    Resident,
    /// Connections held at most.
    Held,
    /// Of as many.
    PerConnection,
    /// Of 1,000 connections.
    PerConnectionOfFew,
    /// Resident memory after they closed, as a share of what it was before.
    AfterClose,
    Start,
    /// CPU of a change in the control plane.
    Change,
}

impl Metric {
    /// Its unit and what it is.
    pub fn name(self, bulk: bool) -> &'static str {
        match self {
            Metric::Cpu if bulk => "s CPU/GiB",
            Metric::Cpu => "\u{b5}s CPU/request",
            Metric::Rate => "/s",
            Metric::P50 => "\u{b5}s p50",
            Metric::P99 => "\u{b5}s p99",
            Metric::AddedP99 => "\u{b5}s p99 added",
            Metric::Resident => "MiB idle",
            Metric::Held => "connections held",
            Metric::PerConnection => "KiB/connection",
            Metric::PerConnectionOfFew => "KiB/connection of 1,000",
            Metric::AfterClose => "x idle after closing",
            Metric::Start => "ms to the first answer",
            Metric::Change => "\u{b5}s CPU/change",
        }
    }
}

/// What one contestant did in every counted round.
#[derive(Clone, Debug, Serialize)]
pub struct Series {
    pub name: &'static str,
    pub samples: BTreeMap<Metric, Vec<f64>>,
}

impl Series {
    pub fn new(name: &'static str) -> Self {
        Self {
            name,
            samples: BTreeMap::new(),
        }
    }

    pub fn add(&mut self, metric: Metric, value: f64) {
        self.samples.entry(metric).or_default().push(value);
    }

    pub fn median(&self, metric: Metric) -> Option<f64> {
        median(self.samples.get(&metric)?)
    }
}

/// Results of a case.
#[derive(Clone, Debug, Serialize)]
pub struct Outcome {
    pub case: Case,
    pub title: &'static str,
    pub bulk: bool,
    /// How the contestants' work differs.
    pub differences: &'static [&'static str],
    pub series: Vec<Series>,
    pub bars: Vec<BarResult>,
}

/// A bar, and the measured value.
#[derive(Clone, Debug, Serialize)]
pub struct BarResult {
    pub metric: Metric,
    pub own: &'static str,
    pub against: Option<&'static str>,
    /// `None`: no figure came of it, or none that a ratio can be taken to. Then it does not hold.
    pub reached: Option<f64>,
    pub most: f64,
    pub holds: bool,
}

impl Outcome {
    pub fn new(case: Case, title: &'static str, bulk: bool, mut series: Vec<Series>) -> Self {
        add_p99(&mut series);
        let bars = bars::of(case);
        let bars = bars.iter().map(|bar| compare(bar, &series)).collect();
        Outcome {
            case,
            title,
            bulk,
            differences: case.differences(),
            series,
            bars,
        }
    }
}

/// What the proxies add to the same load's latency without them.
fn add_p99(series: &mut [Series]) {
    let direct = series.iter().find(|series| series.name == "direct");
    let Some(direct) = direct.and_then(|series| series.median(Metric::P99)) else {
        return;
    };
    for one in series.iter_mut().filter(|one| one.name != "direct") {
        let added = one.samples.get(&Metric::P99).cloned().unwrap_or_default();
        for value in added {
            one.add(Metric::AddedP99, value - direct);
        }
    }
}

fn compare(bar: &Bar, series: &[Series]) -> BarResult {
    let value_of = |name: &str| {
        let found = series.iter().find(|series| series.name == name);
        found?.median(bar.metric)
    };
    let own = bar
        .own
        .iter()
        .filter_map(|name| Some((*name, value_of(name)?)));
    let best = own.min_by(|a, b| a.1.total_cmp(&b.1));
    let base = match bar.against {
        Some(name) => value_of(name).filter(|base| *base > 0.0),
        None => Some(1.0),
    };
    let reached = best.zip(base).map(|((_, value), base)| value / base);
    BarResult {
        metric: bar.metric,
        own: best.map_or_else(
            || bar.own.first().copied().unwrap_or_default(),
            |best| best.0,
        ),
        against: bar.against,
        reached,
        most: bar.most,
        holds: reached.is_some_and(|reached| reached <= bar.most),
    }
}

/// A ratio in words.
pub fn shown(reached: Option<f64>) -> String {
    reached.map_or_else(
        || "not measurable".into(),
        |reached| format!("{reached:.2}"),
    )
}

fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => None,
        n if n % 2 == 1 => Some(sorted[n / 2]),
        n => Some(f64::midpoint(sorted[n / 2 - 1], sorted[n / 2])),
    }
}

/// The machine and the versions, so that a table can be read later.
pub fn machine(programs: &Programs) -> Vec<(&'static str, String)> {
    let cpu = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpu.lines().find_map(|line| line.strip_prefix("model name"));
    let model = model
        .unwrap_or("unknown")
        .trim_start_matches([' ', '\t', ':']);
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let version = |program: &Path, argument: &str| {
        let output = Command::new(program).arg(argument).output();
        let text = output.map(|o| {
            let (out, err) = (o.stdout, o.stderr);
            String::from_utf8_lossy(if out.is_empty() { &err } else { &out }).into_owned()
        });
        let text = text.unwrap_or_default();
        let mut lines = text.lines().filter(|line| !line.trim().is_empty());
        lines.next().unwrap_or("unknown").trim().to_owned()
    };
    let named = |name: &str, argument: &str| version(Path::new(name), argument);
    vec![
        ("machine", format!("{cores} x {model}")),
        ("kernel", named("uname", "-r")),
        ("anyam", version(&programs.anyam, "--version")),
        ("envoy", version(&programs.envoy, "--version")),
        ("haproxy", named("haproxy", "-v")),
        ("nginx", named("nginx", "-v")),
        (
            "TLS",
            "1.3, TLS_AES_128_GCM_SHA256, X25519, P-256 certificates both ways".to_owned(),
        ),
    ]
}

/// A line for each contestant, with the ratio of ours to it, then the bars.
pub fn print(outcome: &Outcome) {
    println!("\n{}: {}", outcome.case.name(), outcome.title);
    for difference in outcome.differences {
        println!("  not the same: {difference}");
    }
    let own = outcome.series.first();
    for series in &outcome.series {
        for (metric, values) in &series.samples {
            if matches!(metric, Metric::Rate | Metric::P50) {
                continue;
            }
            let Some(middle) = median(values) else {
                continue;
            };
            let least = values.iter().copied().fold(f64::INFINITY, f64::min);
            let most = values.iter().copied().fold(0.0, f64::max);
            let ratio = own
                .filter(|own| own.name != series.name)
                .and_then(|own| own.median(*metric))
                .map(|own| format!("  ours / {}: {:.2}", series.name, own / middle));
            println!(
                "  {:<14} {middle:9.2} {} (min {least:.2}, max {most:.2}){}",
                series.name,
                metric.name(outcome.bulk),
                ratio.unwrap_or_default()
            );
        }
    }
    for bar in &outcome.bars {
        let of = bar
            .against
            .map(|name| format!(" x {name}"))
            .unwrap_or_default();
        println!(
            "  {} {:?}: {}{of}, at most {:.2}",
            if bar.holds { "holds  " } else { "MISSED " },
            bar.metric,
            shown(bar.reached),
            bar.most
        );
    }
}

/// # Errors
/// When the file cannot be written.
pub fn write_json(
    path: &Path,
    machine: &[(&'static str, String)],
    outcomes: &[Outcome],
) -> Result<(), BenchError> {
    let io = |error| BenchError::Io {
        what: path.display().to_string(),
        error,
    };
    let machine: BTreeMap<_, _> = machine.iter().cloned().collect();
    let all = serde_json::json!({"machine": machine, "cases": outcomes});
    let text = serde_json::to_vec_pretty(&all).map_err(|error| io(error.into()))?;
    std::fs::write(path, text).map_err(io)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), Some(2.5));
        assert_eq!(median(&[]), None);
    }

    #[test]
    fn bars_take_the_better_of_ours_and_the_right_peer() {
        let series = |name, value| {
            let mut series = Series::new(name);
            series.add(Metric::Cpu, value);
            series
        };
        let all = [
            series("anyam", 4.0),
            series("anyam-h1", 3.0),
            series("envoy", 6.0),
        ];
        let bar = Bar {
            metric: Metric::Cpu,
            own: &["anyam", "anyam-h1"],
            against: Some("envoy"),
            most: 0.4,
        };
        let result = compare(&bar, &all);
        assert_eq!(
            (result.own, result.reached, result.holds),
            ("anyam-h1", Some(0.5), false)
        );
    }

    #[test]
    fn a_bar_without_a_figure_does_not_hold() {
        let mut ours = Series::new("anyam");
        ours.add(Metric::AddedP99, 5.0);
        let mut peer = Series::new("envoy");
        peer.add(Metric::AddedP99, -1.0);
        let bar = Bar {
            metric: Metric::AddedP99,
            own: &["anyam"],
            against: Some("envoy"),
            most: 1e9,
        };
        for series in [&[ours.clone()][..], &[ours, peer], &[]] {
            let result = compare(&bar, series);
            assert_eq!((result.reached, result.holds), (None, false));
        }
    }
}
