//! `anyam`: see, check and explain a mesh from the command line; run the demo mesh.
//!
//! - `api`: the mesh's HTTP API; `cluster`: a Kubernetes cluster as its users reach it
//! - `commands`: one function for each subcommand; `table`: output for people
//! - `url`: paths and queries; `demo`: the demo mesh

pub mod api;
pub mod cluster;
mod commands;
pub mod demo;
mod table;
mod url;

use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};

use commands::Connection;

#[derive(Parser)]
#[command(
    name = "anyam",
    version,
    about = "See, check and explain a service mesh",
    after_help = "Exit codes: 0 done and well, 1 done and something is wrong (check, explain), 2 could not be done."
)]
struct Cli {
    #[command(flatten)]
    connection: Connection,
    #[command(subcommand)]
    command: Commands,
}

#[derive(Subcommand)]
enum Commands {
    Demo(demo::Arguments),
    Check(commands::CheckArguments),
    Proxies(commands::ProxiesArguments),
    Stat(commands::StatArguments),
    Edges(commands::EdgesArguments),
    Routes(commands::RoutesArguments),
    Tap(commands::TapArguments),
    Explain(commands::ExplainArguments),
    Dump(commands::DumpArguments),
    Dashboard(commands::DashboardArguments),
    Context(commands::ContextArguments),
    Inject(commands::InjectArguments),
    Install(commands::InstallArguments),
    /// Print a completion script for a shell
    #[command(after_help = "Example: anyam completion bash > /etc/bash_completion.d/anyam")]
    Completion {
        shell: clap_complete::Shell,
    },
}

/// Exits with a message when they are no good.
fn arguments() -> Cli {
    let matches = Cli::command().get_matches();
    if let Some(contradiction) = Connection::contradiction(&matches) {
        let error = Cli::command().error(ErrorKind::ArgumentConflict, contradiction);
        error.exit();
    }
    Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit())
}

/// Carries out the command line of this process.
pub async fn run() -> ExitCode {
    let arguments = arguments();
    let outcome = match arguments.command {
        Commands::Demo(demo) => return demo::run(demo).await,
        Commands::Completion { shell } => {
            clap_complete::generate(shell, &mut Cli::command(), "anyam", &mut std::io::stdout());
            return ExitCode::SUCCESS;
        }
        Commands::Context(command) => commands::context(&arguments.connection, command),
        Commands::Inject(command) => commands::inject(command),
        Commands::Install(command) => commands::install(command),
        Commands::Check(command) => commands::check(&arguments.connection, command).await,
        Commands::Proxies(command) => commands::proxies(&arguments.connection, command).await,
        Commands::Stat(command) => commands::stat(&arguments.connection, command).await,
        Commands::Edges(command) => commands::edges(&arguments.connection, command).await,
        Commands::Routes(command) => commands::routes(&arguments.connection, command).await,
        Commands::Tap(command) => commands::tap(&arguments.connection, command).await,
        Commands::Explain(command) => commands::explain(&arguments.connection, command).await,
        Commands::Dump(command) => commands::dump(&arguments.connection, command).await,
        Commands::Dashboard(command) => commands::dashboard(&arguments.connection, command).await,
    };
    match outcome {
        Ok(code) => code,
        Err(commands::CommandError::Output(error))
            if error.kind() == std::io::ErrorKind::BrokenPipe =>
        {
            // The reader has seen enough (`anyam edges | head`).
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("anyam: {error}");
            ExitCode::from(2)
        }
    }
}
