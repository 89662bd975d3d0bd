//! The Anyam control plane.

use std::io::{IsTerminal, stderr};
use std::process::ExitCode;

use anyam_control::app;
use anyam_control::args::{Cli, Command};
use clap::Parser;
use tracing_subscriber::EnvFilter;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let done = match cli.command {
        Some(Command::Token(args)) => app::token(&args).map(|token| println!("{token}")),
        Some(Command::Certificate(args)) => app::certificate(&args),
        None => {
            let filter = EnvFilter::try_new(&cli.serve.log).unwrap_or_else(|error| {
                eprintln!("--log {}: {error}; logging `info`", cli.serve.log);
                EnvFilter::new("info")
            });
            tracing_subscriber::fmt()
                .with_env_filter(filter)
                .with_ansi(stderr().is_terminal())
                .with_writer(stderr)
                .init();
            match tokio::runtime::Runtime::new() {
                Ok(runtime) => runtime.block_on(app::serve(cli.serve)),
                Err(error) => {
                    eprintln!("anyam-control: no runtime: {error}");
                    return ExitCode::FAILURE;
                }
            }
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("anyam-control: {error}");
            ExitCode::FAILURE
        }
    }
}
