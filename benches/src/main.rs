//! `anyam-bench`: the same work through Anyam and its peers, in turn, and the ratio of their CPU.
//!
//! - `cases`: what is measured; `peers`: starting proxies and reading their CPU time
//! - `load`: wrk and what it reports; `app`: what stands behind the proxies; `certs`
//! - `report`: medians, ratios, JSON
//!
//! Absolute times on a shared machine prove nothing: rounds are interleaved (A B A B …) and only
//! the ratio of medians counts. A failed or non-2xx response voids the whole run.

mod app;
mod cases;
mod certs;
mod load;
mod peers;
mod report;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;

use cases::Case;
use peers::{Peer, Running};
use report::Series;

#[derive(Parser)]
#[command(about = "Measures Anyam beside its peers on the same work, interleaved")]
struct Arguments {
    /// Cases to run; without one, all
    #[arg(value_enum)]
    cases: Vec<Case>,
    /// The optimised anyam-proxy
    #[arg(long)]
    anyam: PathBuf,
    /// The Envoy to compare with
    #[arg(long)]
    envoy: PathBuf,
    /// Interleaved rounds; the first, which warms up, is not counted
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Seconds of load in a round
    #[arg(long, default_value_t = 3)]
    seconds: u64,
    /// Where to write the results as JSON
    #[arg(long)]
    json: Option<PathBuf>,
}

/// Why nothing was measured.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    #[error("{what}: {error}")]
    Io { what: String, error: std::io::Error },
    #[error("{0} did not listen within 10 s; its last words:\n{1}")]
    NotReady(String, String),
    #[error("the round is void: {0}")]
    Void(String),
    #[error("wrk answered in an unknown way:\n{0}")]
    Wrk(String),
    #[error("certificates: {0}")]
    Certificates(#[from] rcgen::Error),
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("anyam-bench: {error}");
            ExitCode::from(2)
        }
    }
}

fn run(arguments: &Arguments) -> Result<(), BenchError> {
    let scratch = tempfile::tempdir().map_err(|error| BenchError::Io {
        what: "scratch folder".into(),
        error,
    })?;
    certs::write(scratch.path())?;
    app::start()?;
    report::machine(&arguments.envoy);
    let peers = [
        Peer::new("anyam", &arguments.anyam, &[]),
        // Two Envoys of one pair would otherwise fight over a socket.
        Peer::new("envoy", &arguments.envoy, &["--disable-hot-restart"]),
    ];
    let cases = if arguments.cases.is_empty() {
        Case::all()
    } else {
        arguments.cases.clone()
    };
    let mut results = Vec::new();
    for case in cases {
        let series = measure(case, &peers, arguments, scratch.path())?;
        report::print(case, &series);
        results.push((case, series));
    }
    match &arguments.json {
        Some(path) => report::write_json(path, &results),
        None => Ok(()),
    }
}

/// One series a peer, rounds interleaved.
fn measure(
    case: Case,
    peers: &[Peer],
    arguments: &Arguments,
    scratch: &std::path::Path,
) -> Result<Vec<Series>, BenchError> {
    let mut series: Vec<_> = peers.iter().map(|peer| Series::new(peer.name)).collect();
    for round in 0..=arguments.rounds {
        for (peer, series) in peers.iter().zip(&mut series) {
            let running = Running::start(peer, case, scratch)?;
            // Connections and pools are warm before the clock starts.
            load::run(case, Duration::from_secs(1))?;
            let before = running.cpu()?;
            let load = load::run(case, Duration::from_secs(arguments.seconds))?;
            let cpu = running.cpu()?.saturating_sub(before);
            if round > 0 {
                series.add(cpu, &load);
            }
        }
    }
    Ok(series)
}
