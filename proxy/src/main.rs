//! `anyam-proxy`: reads the command line and does what it says.

use std::process::ExitCode;

use anyam_proxy::app;
use anyam_proxy::args::{Args, Command, Mode, Process, Redirect, Sidecar};
use anyam_proxy::bootstrap::{self, Bootstrap, validate};
use anyam_proxy::redirect;
use clap::Parser;
use mimalloc::MiMalloc;

#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    let Args { serve, command } = Args::parse();
    let outcome = match command {
        Some(Command::Redirect(redirect)) => set_rules(&redirect),
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
            eprintln!("anyam-proxy: {error}");
            ExitCode::FAILURE
        }
    }
}

fn print(sidecar: &Sidecar) -> Result<(), String> {
    let text = bootstrap::sidecar::print(sidecar).map_err(|error| error.to_string())?;
    print!("{text}");
    Ok(())
}

fn set_rules(arguments: &Redirect) -> Result<(), String> {
    if arguments.print {
        print!("{}", redirect::program(&arguments.options));
        return Ok(());
    }
    let outcome = if arguments.remove {
        redirect::remove()
    } else {
        redirect::install(&arguments.options)
    };
    outcome.map_err(|error| error.to_string())
}

/// Checks or serves, as the mode says.
fn run(bootstrap: Bootstrap, process: &Process) -> Result<(), String> {
    if process.mode != Mode::Validate {
        let logging = app::init_logging(process.log_level.as_filter())?;
        return app::run(bootstrap, process, logging).map_err(|error| error.to_string());
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
