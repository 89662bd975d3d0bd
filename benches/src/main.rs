//! `anyam-bench`: runs the cases named on the command line, or all of them.

use std::path::PathBuf;
use std::process::ExitCode;

use anyam_benches::cases::Case;
use anyam_benches::{BenchError, Programs, app, certs, chart, report, rounds, table};
use clap::Parser;

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
    /// Only these contestants, by the names in the output; bars against others are not measurable
    #[arg(long, value_name = "NAME")]
    only: Vec<String>,
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
    let own = std::env::current_exe().map_err(|error| BenchError::Io {
        what: "this program".into(),
        error,
    })?;
    let _app = app::start(&own)?;
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
        only: arguments.only,
        rounds: arguments.rounds,
        seconds: arguments.seconds,
    };
    let mut outcomes = Vec::new();
    for case in cases {
        let outcome = rounds::measure(case, &timing, &programs)?;
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
