//! A proxy's own admin pages, over the Inspect stream.

use std::io::{self, Write};
use std::process::ExitCode;

use super::{CommandError, Connection, workload};

/// Print what a proxy runs by, as its admin port shows it
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  anyam dump shop/web config_dump
  anyam dump shop/web clusters
  anyam dump shop/web certs
  anyam dump shop/web stats")]
pub struct DumpArguments {
    /// namespace/name
    #[arg(value_parser = workload)]
    workload: String,
    #[arg(value_parser = ["config_dump", "clusters", "certs", "stats"], default_value = "config_dump")]
    what: String,
}

pub async fn dump(
    connection: &Connection,
    arguments: DumpArguments,
) -> Result<ExitCode, CommandError> {
    let (namespace, name) = arguments.workload.split_once('/').unwrap_or_default();
    let page = connection
        .client()?
        .dump(namespace, name, &arguments.what)
        .await?;
    io::stdout().lock().write_all(&page)?;
    Ok(ExitCode::SUCCESS)
}
