//! The control planes that can be reached, and the current one.

use std::io::{self, Read};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use anyam_control::context::{Context, Contexts, Token};

use super::CommandError;
use crate::table::Align::Left;
use crate::table::Table;

/// List and choose the control planes that can be reached
#[derive(Debug, clap::Args)]
#[command(
    after_help = "anyam-control and the demo write a context each while they run.

Examples:
  anyam context list
  anyam context use demo
  anyam --context demo edges"
)]
pub struct ContextArguments {
    #[command(subcommand)]
    command: ContextCommand,
}

#[derive(Debug, clap::Subcommand)]
enum ContextCommand {
    /// List contexts; the current one is marked
    List,
    /// Make a context the current one
    Use { name: String },
    /// Add a context, or replace it
    Add(AddArguments),
    /// Remove a context
    Remove { name: String },
}

#[derive(Debug, clap::Args)]
struct AddArguments {
    name: String,
    /// The control plane's API
    #[arg(long = "at", value_name = "ADDR")]
    at: SocketAddr,
    /// File with the API token, read at each use
    #[arg(long, value_name = "FILE", required_unless_present = "token_stdin")]
    token_path: Option<PathBuf>,
    /// Keep the token itself, read from standard input
    #[arg(long, conflicts_with = "token_path")]
    token_stdin: bool,
    /// Make it the current one
    #[arg(long)]
    select: bool,
}

pub fn context(arguments: ContextArguments) -> Result<ExitCode, CommandError> {
    let contexts = Contexts::of_user()?;
    match arguments.command {
        ContextCommand::List => list(&contexts)?,
        ContextCommand::Use { name } => {
            contexts.select(&name)?;
            println!("The current context is {name}.");
        }
        ContextCommand::Add(add) => {
            let token = match add.token_path {
                Some(path) => Token::File(std::path::absolute(path)?),
                None => {
                    let mut token = String::new();
                    io::stdin().take(4096).read_to_string(&mut token)?;
                    Token::Value(token.trim().to_owned())
                }
            };
            let context = Context { api: add.at, token };
            contexts.add(&add.name, &context, add.select)?;
        }
        ContextCommand::Remove { name } => contexts.remove(&name)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn list(contexts: &Contexts) -> Result<(), CommandError> {
    let current = contexts.current()?;
    let columns = [("CURRENT", Left), ("NAME", Left), ("API", Left)];
    let nothing = "No context is there: start anyam-control or `anyam demo`, or add one.";
    let mut table = Table::new(&columns, nothing);
    for name in contexts.names()? {
        let mark = if current.as_ref() == Some(&name) {
            "*"
        } else {
            ""
        };
        let api = match contexts.get(&name) {
            Ok(context) => context.api.to_string(),
            Err(error) => error.to_string(),
        };
        table.row([mark.to_owned(), name, api]);
    }
    table.print(&mut io::stdout().lock())?;
    Ok(())
}
