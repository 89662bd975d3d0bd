//! Medians, spreads and ratios.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde::Serialize;

use crate::BenchError;
use crate::cases::Case;
use crate::load::Load;

/// What one peer did in every counted round of a case.
#[derive(Clone, Debug, Serialize)]
pub struct Series {
    pub peer: &'static str,
    /// CPU of all its processes, microseconds per request.
    pub cpu_us: Vec<f64>,
    /// Requests per second.
    pub rate: Vec<f64>,
}

impl Series {
    pub fn new(peer: &'static str) -> Self {
        Self {
            peer,
            cpu_us: Vec::new(),
            rate: Vec::new(),
        }
    }

    pub fn add(&mut self, cpu: Duration, load: &Load) {
        self.cpu_us
            .push(cpu.as_secs_f64() * 1e6 / load.requests as f64);
        self.rate.push(load.rate);
    }
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => f64::NAN,
        n if n % 2 == 1 => sorted[n / 2],
        n => f64::midpoint(sorted[n / 2 - 1], sorted[n / 2]),
    }
}

fn first_line(program: &Path, argument: &str) -> String {
    let output = Command::new(program).arg(argument).output();
    let text = output
        .map(|o| String::from_utf8_lossy(&o.stdout).into_owned())
        .unwrap_or_default();
    text.lines()
        .find(|line| !line.trim().is_empty())
        .unwrap_or("unknown")
        .trim()
        .to_owned()
}

/// The machine and the versions, so that a table can be read later.
pub fn machine(envoy: &Path) {
    let cpu = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpu
        .lines()
        .find_map(|line| line.strip_prefix("model name"))
        .unwrap_or("unknown");
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    println!(
        "machine  {} x {}",
        cores,
        model.trim_start_matches([' ', '\t', ':'])
    );
    println!("kernel   {}", first_line(Path::new("uname"), "-r"));
    let version = first_line(envoy, "--version");
    println!(
        "envoy    {}",
        version.rsplit(' ').next().unwrap_or(&version)
    );
    println!("one worker each; absolute values are for orientation, ratios count\n");
}

/// One line a peer, then the ratio to each.
pub fn print(case: Case, series: &[Series]) {
    println!("{}", case.title());
    for peer in series {
        let (least, most) = peer
            .cpu_us
            .iter()
            .fold((f64::INFINITY, 0_f64), |(a, b), value| {
                (a.min(*value), b.max(*value))
            });
        println!(
            "  {:<8} {:6.1} \u{b5}s CPU/request (min {least:.1}, max {most:.1}), {:.0} requests/s",
            peer.peer,
            median(&peer.cpu_us),
            median(&peer.rate)
        );
    }
    if let Some((own, peers)) = series.split_first() {
        for peer in peers {
            let ratio = median(&own.cpu_us) / median(&peer.cpu_us);
            println!(
                "  {} / {}: {ratio:.2} CPU per request\n",
                own.peer, peer.peer
            );
        }
    }
}

/// # Errors
/// When the file cannot be written.
pub fn write_json(path: &Path, results: &[(Case, Vec<Series>)]) -> Result<(), BenchError> {
    let io = |error| BenchError::Io {
        what: path.display().to_string(),
        error,
    };
    let text = serde_json::to_vec_pretty(results).map_err(|error| io(error.into()))?;
    std::fs::write(path, text).map_err(io)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), 2.5);
    }
}
