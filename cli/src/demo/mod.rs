//! `anyam demo`: a whole mesh on this machine, with nothing simulated.
//!
//! - `netns`: network namespaces and processes inside them; `relay`: the dashboard's way out
//! - `workloads`: the shop's manifests; `process`: its programs, their sidecars, the control plane
//! - `stage`: starting all of it; `checks`: what the demo shows, and checks as it goes, by `order`;
//!   `totals`: what the visitor has seen
//! - `capture`: what crosses the wire; `context`: how `anyam` in another terminal finds it
//!
//! Whatever way it ends, nothing stays behind: processes are children that die with the demo,
//! namespaces take their rules with them, files live in one scratch folder.

pub mod capture;
mod checks;
mod context;
pub mod netns;
mod order;
mod process;
mod relay;
mod stage;
mod totals;
mod workloads;

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};

use stage::Stage;

/// Run a demo mesh on this machine
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  sudo anyam demo               until Ctrl-C, with the dashboard's address on the screen
  sudo anyam demo --for 30s     checks everything once and says so by its exit code

Exit codes: 0 all checks passed, 1 a check failed, 2 the demo could not run.")]
pub struct Arguments {
    /// End after this time, such as 30s or 2m; without it the demo runs until Ctrl-C
    #[arg(long = "for", value_name = "TIME", value_parser = duration)]
    lasting: Option<Duration>,
    /// Where the dashboard can be reached on this machine; port 0 picks a free one
    #[arg(long, default_value = "127.0.0.1:15080")]
    dashboard: SocketAddr,
    /// Switch one feature off, to see its check fail
    #[arg(long = "break", value_enum)]
    broken: Option<Broken>,
}

/// What can be switched off.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Broken {
    /// No mTLS between sidecars
    Mtls,
    /// No route that sends one call in ten to the new version
    Split,
    /// No policy on the catalogue
    Authorization,
    /// No retries and no outlier detection for the catalogue
    Resilience,
    /// Certificates that live for a day
    Rotation,
    /// The route is not changed
    RouteChange,
}

fn duration(text: &str) -> Result<Duration, String> {
    let split = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let number: u64 = number
        .parse()
        .map_err(|_| format!("{text:?} is not a time such as 30s or 2m"))?;
    match unit {
        "s" => Ok(Duration::from_secs(number)),
        "m" => Ok(Duration::from_secs(number * 60)),
        _ => Err(format!(
            "{text:?}: give seconds or minutes, such as 30s or 2m"
        )),
    }
}

/// Why the demo cannot run. A check that fails is none of these.
#[derive(Debug, thiserror::Error)]
pub enum DemoError {
    #[error(
        "the demo makes network namespaces and netfilter rules, which only root may: run `sudo anyam demo` (or `sudo make demo`)"
    )]
    NotRoot,
    #[error("`{command}` cannot be run: {error}; install the package {package}")]
    Missing {
        command: &'static str,
        package: &'static str,
        error: io::Error,
    },
    #[error("`{command}` failed: {output}")]
    Network { command: String, output: String },
    #[error("{}: {error}", path.display())]
    File { path: PathBuf, error: io::Error },
    #[error("{name} cannot be started: {error}; build it with `make build`")]
    Start { name: String, error: io::Error },
    #[error("{name} ended by itself. Its last words:\n{last_errors}")]
    Ended { name: String, last_errors: String },
    #[error(
        "the dashboard cannot be served at {address}: {error}; choose another with --dashboard"
    )]
    Dashboard {
        address: SocketAddr,
        error: io::Error,
    },
    #[error("{what} was not ready within {waited:?}. Its last words:\n{last_errors}")]
    NotReady {
        what: String,
        waited: Duration,
        last_errors: String,
    },
    #[error("the packet socket on the demo's bridge: {0}")]
    Capture(io::Error),
    #[error("signals cannot be waited for: {0}")]
    Signal(io::Error),
}

/// Runs the demo to its end and cleans up.
pub async fn run(arguments: Arguments) -> ExitCode {
    match demo(arguments).await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            eprintln!("anyam demo: {error}");
            ExitCode::from(2)
        }
    }
}

/// Whether every check passed.
async fn demo(arguments: Arguments) -> Result<bool, DemoError> {
    if !netns::is_root() {
        return Err(DemoError::NotRoot);
    }
    let mut terminated = signal(SignalKind::terminate()).map_err(DemoError::Signal)?;
    let mut hung_up = signal(SignalKind::hangup()).map_err(DemoError::Signal)?;
    let interrupted = async {
        tokio::select! {
            outcome = tokio::signal::ctrl_c() => outcome.map_err(DemoError::Signal),
            _ = terminated.recv() => Ok(()),
            _ = hung_up.recv() => Ok(()),
        }
    };
    let run = async {
        let mut stage = Stage::build(&arguments).await?;
        checks::run(&mut stage, arguments.lasting).await
    };
    // Dropping what was started cleans up, whichever side ends first.
    tokio::select! {
        outcome = run => outcome,
        outcome = interrupted => {
            println!("\nStopping.");
            outcome.map(|()| arguments.lasting.is_none())
        }
    }
}
