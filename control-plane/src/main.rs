//! The Anyam control plane.

use std::io::{IsTerminal, stderr};
use std::process::ExitCode;

use anyam_control::app::{self, AppError};
use anyam_control::args::{Cli, Command, ServeArgs};
use clap::Parser;
use tracing_subscriber::EnvFilter;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let done = match cli.command {
        Some(Command::Token(args)) => app::token(&args).map(|token| println!("{token}")),
        Some(Command::Certificate(args)) => app::certificate(&args),
        Some(Command::Serve(args)) => serve(*args),
        None => serve(cli.serve),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("anyam-control: {error}");
            ExitCode::FAILURE
        }
    }
}

fn serve(args: ServeArgs) -> Result<(), AppError> {
    let filter = EnvFilter::try_new(&args.log).unwrap_or_else(|error| {
        eprintln!("--log {}: {error}; logging `info`", args.log);
        EnvFilter::new("info")
    });
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(stderr().is_terminal())
        .with_writer(stderr)
        .init();
    let runtime = tokio::runtime::Runtime::new().map_err(AppError::Runtime)?;
    runtime.block_on(app::serve(args))
}
