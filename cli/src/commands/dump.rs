//! A proxy's own admin pages, over the Inspect stream.

use std::io::{self, Write};
use std::process::ExitCode;

use super::{CommandError, Connection};

/// Print what a proxy runs by, as its admin port shows it
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Of several pods of a Deployment one is chosen, and named on standard error.

Examples:
  anyam dump -n shop deploy/web
  anyam dump shop/web config_dump
  anyam dump shop/web clusters
  anyam dump shop/web certs
  anyam dump shop/web stats"
)]
pub struct DumpArguments {
    /// namespace/name; in a cluster also deploy/NAME, sts/NAME, ds/NAME, job/NAME, svc/NAME, pod/NAME
    workload: String,
    #[arg(value_parser = ["config_dump", "clusters", "certs", "stats"], default_value = "config_dump")]
    what: String,
}

pub async fn dump(
    connection: &Connection,
    arguments: DumpArguments,
) -> Result<ExitCode, CommandError> {
    let mesh = connection.mesh().await?;
    let workload = mesh.one_workload(&arguments.workload).await?;
    let page = mesh.client.dump(&workload, &arguments.what).await?;
    io::stdout().lock().write_all(&page)?;
    Ok(ExitCode::SUCCESS)
}
