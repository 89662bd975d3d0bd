//! `anyam-bench`: the same work through Anyam and its peers, in turn, and the ratios.
//!
//! - `cases`: what is measured, `bars`: what has to come of it
//! - `hop`: what a proxy has to do; `bootstrap` (Anyam, Envoy) and `config` (HAProxy, nginx) say it
//!   in each program's words; `peers` starts them and reads their CPU and memory
//! - `load`: the work; `app`: what stands behind the proxies; `certs`
//! - `rounds`: who comes when; `report`, `table`, `chart`: medians, ratios, JSON,
//!   Markdown, a picture
//!
//! Absolute times on a shared machine prove nothing: rounds are interleaved (A B A B …) and only
//! the ratio of medians counts. A failed or non-200 response voids the whole run.

mod app;
mod bars;
mod bootstrap;
mod cases;
mod certs;
mod chart;
mod config;
mod hop;
mod load;
mod peers;
mod report;
mod rounds;
mod table;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;

use cases::Case;

#[derive(Parser)]
#[command(about = "Measures Anyam beside its peers on the same work, interleaved")]
struct Arguments {
    /// Cases to run; without one, all
    #[arg(value_enum)]
    cases: Vec<Case>,
    /// The optimised anyam-proxy
    #[arg(long, default_value = "target/release/anyam-proxy")]
    anyam: PathBuf,
    /// The Envoy to compare with
    #[arg(long, default_value = "envoy")]
    envoy: PathBuf,
    /// The C relay that is the floor of L4
    #[arg(long, default_value = "target/relay")]
    relay: PathBuf,
    /// Be the app behind the proxies
    #[arg(long, hide = true)]
    serve: bool,
    /// Interleaved rounds; the first, which warms up, is not counted
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Seconds of load in a round
    #[arg(long, default_value_t = 2)]
    seconds: u64,
    /// Where to write the results as JSON
    #[arg(long)]
    json: Option<PathBuf>,
    /// Where to draw the ratios (SVG)
    #[arg(long)]
    chart: Option<PathBuf>,
    /// Where to write the tables (Markdown)
    #[arg(long)]
    table: Option<PathBuf>,
}

/// Whom to start, and where their files go.
pub struct Programs {
    pub anyam: PathBuf,
    pub envoy: PathBuf,
    pub relay: PathBuf,
    pub scratch: PathBuf,
    /// Connections that a proxy can hold here.
    pub connections: usize,
}

/// Why nothing was measured.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    #[error("{what}: {error}")]
    Io { what: String, error: std::io::Error },
    #[error("{0} did not listen; its last words:\n{1}")]
    NotReady(String, String),
    #[error("the round is void: {0}")]
    Void(String),
    #[error("{0} answered in an unknown way:\n{1}")]
    Unknown(&'static str, String),
    #[error("{case}, {contestant}: {error}")]
    At {
        case: String,
        contestant: &'static str,
        error: Box<BenchError>,
    },
    #[error("certificates: {0}")]
    Certificates(#[from] rcgen::Error),
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("anyam-bench: {error}");
            ExitCode::from(2)
        }
    }
}

fn run(arguments: Arguments) -> Result<(), BenchError> {
    if arguments.serve {
        return app::serve();
    }
    let scratch = tempfile::tempdir().map_err(|error| BenchError::Io {
        what: "scratch folder".into(),
        error,
    })?;
    certs::write(scratch.path())?;
    let _app = app::start()?;
    let programs = Programs {
        anyam: arguments.anyam,
        envoy: arguments.envoy,
        relay: arguments.relay,
        scratch: scratch.path().to_owned(),
        connections: rounds::allowed(),
    };
    let machine = report::machine(&programs);
    for (what, value) in &machine {
        println!("{what:<8} {value}");
    }
    println!("one worker each; absolute values are for orientation, ratios count");
    let cases = match arguments.cases.is_empty() {
        true => Case::all(),
        false => arguments.cases,
    };
    let timing = rounds::Timing {
        rounds: arguments.rounds,
        seconds: arguments.seconds,
    };
    let mut outcomes = Vec::new();
    for case in cases {
        let outcome = rounds::measure(case, timing, &programs)?;
        report::print(&outcome);
        outcomes.push(outcome);
        // After each case: a run that is cut short has shown something.
        if let Some(path) = &arguments.json {
            report::write_json(path, &machine, &outcomes)?;
        }
        if let Some(path) = &arguments.table {
            table::write(path, &machine, &outcomes)?;
        }
        if let Some(path) = &arguments.chart {
            chart::write(path, &outcomes)?;
        }
    }
    Ok(())
}
