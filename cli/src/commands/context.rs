//! The meshes that can be reached, and the current one.

use std::io::{self, Read};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use anyam_control::context::{Context, ContextError, Contexts, CurrentContext, Token};

use super::connection::{has_context, with_kubernetes};
use super::{CommandError, Connection};
use crate::cluster::Access;
use crate::table::Align::Left;
use crate::table::Table;

/// List and choose the meshes that can be reached
#[derive(Debug, clap::Args)]
#[command(
    after_help = "anyam-control and the demo write a context each while they run. The contexts of your kubeconfig are
meshes in clusters; without a current context of another kind, kubectl's current one is used. `use`
does not change that.

A mesh is found by the first of: --kubeconfig and --kube-context; --context; --api and --token-file;
the current context; the kubeconfig's current context, or a pod's own cluster; 127.0.0.1:15080.

Examples:
  anyam context list
  anyam context use demo
  anyam context use --kubernetes prod
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
    Use {
        name: String,
        /// The kubeconfig's, if another context has the same name
        #[arg(long)]
        kubernetes: bool,
    },
    /// Add a context of a control plane's address, or replace it
    Add(AddArguments),
    /// Remove such a context
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

pub fn context(
    connection: &Connection,
    arguments: ContextArguments,
) -> Result<ExitCode, CommandError> {
    let access = connection.kubeconfig();
    let contexts = Contexts::of_user()?;
    match arguments.command {
        ContextCommand::List => list(&contexts, &access)?,
        ContextCommand::Use { name, kubernetes } => {
            select(&contexts, &access, &name, kubernetes)?;
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

/// Ours before the kubeconfig's.
fn select(
    contexts: &Contexts,
    access: &Access,
    name: &str,
    kubernetes: bool,
) -> Result<(), CommandError> {
    let error = match kubernetes {
        false => match contexts.select(name) {
            Err(error @ (ContextError::Unknown { .. } | ContextError::Name(_))) => error,
            other => return Ok(other?),
        },
        true => ContextError::Unknown {
            name: name.to_owned(),
            known: "none".to_owned(),
        },
    };
    match (has_context(access, name), &access.kubeconfig) {
        (true, None) => Ok(contexts.select_kubernetes(name)?),
        (true, Some(file)) => Err(CommandError::Usage(format!(
            "the current context is looked for in KUBECONFIG or ~/.kube/config: add {} to KUBECONFIG first",
            file.display()
        ))),
        (false, _) => Err(with_kubernetes(error, access).into()),
    }
}

fn list(contexts: &Contexts, access: &Access) -> Result<(), CommandError> {
    let of_kubeconfig = match access.contexts() {
        Ok(found) => found,
        Err(error) => {
            eprintln!("anyam: {error}");
            Vec::new()
        }
    };
    let exists = |name: &str| of_kubeconfig.iter().any(|context| context.name == name);
    let kubectls = of_kubeconfig.iter().find(|context| context.current);
    let kubectls = kubectls.map(|context| CurrentContext::Kubernetes(context.name.clone()));
    let current = contexts.chosen(exists)?.or(kubectls);
    let columns = [
        ("CURRENT", Left),
        ("NAME", Left),
        ("KIND", Left),
        ("API", Left),
    ];
    let nothing =
        "No context is there: start anyam-control or `anyam demo`, add one, or configure kubectl.";
    let mut table = Table::new(&columns, nothing);
    let mark = |context: CurrentContext| match current.as_ref() == Some(&context) {
        true => "*".to_owned(),
        false => String::new(),
    };
    for name in contexts.names()? {
        let api = match contexts.get(&name) {
            Ok(context) => context.api.to_string(),
            Err(error) => error.to_string(),
        };
        let mark = mark(CurrentContext::Own(name.clone()));
        table.row([mark, name, "address".to_owned(), api]);
    }
    for context in of_kubeconfig {
        let mark = mark(CurrentContext::Kubernetes(context.name.clone()));
        table.row([mark, context.name, "kubernetes".to_owned(), context.server]);
    }
    table.print(&mut io::stdout().lock())?;
    Ok(())
}
