//! `anyam-proxy`: parses the command line and runs the command.

use std::process::ExitCode;
use std::time::Duration;

use anyam_proxy::app;
use anyam_proxy::args::{Args, Command, Process, RedirectArgs, RunMode, Sidecar};
use anyam_proxy::bootstrap::{self, Bootstrap, validate};
use anyam_proxy::{drain_command, ready, redirect, stderr};
use clap::Parser;
use mimalloc::MiMalloc;

/// How long the process waits at exit for its error to be written.
const LAST_LINE: Duration = Duration::from_secs(2);

#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    let Args { serve, command } = Args::parse();
    let flags = match &command {
        Some(Command::Sidecar(sidecar)) => &sidecar.process.envoy,
        _ => &serve.process.envoy,
    };
    if flags.hot_restart_version {
        println!("disabled");
        return ExitCode::SUCCESS;
    }
    let outcome = match command {
        Some(Command::Redirect(redirect)) => set_rules(&redirect),
        Some(Command::Wait(wait)) => {
            let within = Duration::from_secs(wait.timeout_s);
            ready::wait(wait.health_port, within).map_err(|error| error.to_string())
        }
        Some(Command::Drain(drain)) => {
            drain_command::begin(drain.admin_port).map_err(|error| error.to_string())
        }
        Some(Command::Sidecar(sidecar)) if sidecar.print_bootstrap => print(&sidecar),
        Some(Command::Sidecar(sidecar)) => bootstrap::of_sidecar(&sidecar)
            .map_err(|error| error.to_string())
            .and_then(|bootstrap| run(bootstrap, &sidecar.process)),
        None => bootstrap::load(&serve)
            .map_err(|error| error.to_string())
            .and_then(|bootstrap| run(bootstrap, &serve.process)),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            stderr::print(format!("anyam-proxy: {error}"), LAST_LINE);
            ExitCode::FAILURE
        }
    }
}

fn print(sidecar: &Sidecar) -> Result<(), String> {
    let text = bootstrap::sidecar::print(sidecar).map_err(|error| error.to_string())?;
    print!("{text}");
    Ok(())
}

fn set_rules(arguments: &RedirectArgs) -> Result<(), String> {
    let options = &arguments.options;
    let outcome = match (arguments.dry_run, arguments.check, arguments.remove) {
        (true, ..) => redirect::dry_run(options).map(|rules| print!("{rules}")),
        (_, true, _) => redirect::check(options),
        (.., true) => redirect::remove(),
        _ => redirect::install(options),
    };
    outcome.map_err(|error| error.to_string())
}

/// Validates or serves, depending on the mode.
fn run(bootstrap: Bootstrap, process: &Process) -> Result<(), String> {
    if process.mode != RunMode::Validate {
        let logs = app::init_logging(process)?;
        return app::run(bootstrap, process, logs).map_err(|error| error.to_string());
    }
    for (flag, why) in process.envoy.without_effect() {
        eprintln!("{flag} has no effect: {why}");
    }
    let mistakes = validate::mistakes(&bootstrap).map_err(|error| error.to_string())?;
    match mistakes.is_empty() {
        true => println!("configuration OK"),
        false => {
            return Err(format!(
                "the configuration cannot be used:\n  {}",
                mistakes.join("\n  ")
            ));
        }
    }
    Ok(())
}
