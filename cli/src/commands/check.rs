//! What is wrong with this mesh, and what to do.

use std::process::ExitCode;

use super::{CommandError, Connection, Output, precheck, print_json};
use crate::api::types::{Check, Severity};
use crate::cluster::installed;
use crate::table::printable;

/// Say what is wrong with this mesh and what to do
#[derive(Debug, clap::Args)]
#[command(
    after_help = "In a cluster, also whether the control plane is ready, its API available and its webhook registered.

--pre looks at a cluster without a mesh: would an installation into --namespace (anyam-system) work?

Exit codes: 0 nothing is wrong, 1 there are errors, 2 the mesh could not be asked.

Examples:
  anyam check
  anyam check -n shop
  anyam check --pre
  anyam check -o json"
)]
pub struct CheckArguments {
    /// Say what an installation of the mesh into this cluster would meet
    #[arg(long)]
    pre: bool,
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
}

pub async fn check(
    connection: &Connection,
    arguments: CheckArguments,
) -> Result<ExitCode, CommandError> {
    if arguments.pre {
        return precheck::precheck(connection, arguments.output).await;
    }
    let mesh = connection.mesh().await?;
    let mut check = Check::default();
    if let Some(cluster) = &mesh.cluster {
        let installation = installed::check(cluster).await;
        check.findings = installation.findings;
        check.checked = installation.checked;
    }
    let failed = match mesh.client.check(&mesh.scope).await {
        Ok(of_mesh) => {
            check.findings.extend(of_mesh.findings);
            check.checked.extend(of_mesh.checked);
            check.unreachable_replicas = of_mesh.unreachable_replicas;
            None
        }
        Err(error) => Some(error),
    };
    check.findings.sort_by_key(|finding| finding.severity);
    // What is wrong with the installation is likely why the mesh could not be asked.
    if failed.is_none() || !check.findings.is_empty() {
        match arguments.output {
            Output::Json => print_json(&check)?,
            Output::Table => print(&check, &mesh.scope.to_string()),
        }
    }
    if let Some(error) = failed {
        return Err(error.into());
    }
    Ok(ExitCode::from(u8::from(errors(&check) > 0)))
}

fn errors(check: &Check) -> usize {
    let all = check.findings.iter();
    all.filter(|finding| finding.severity == Severity::Error)
        .count()
}

fn print(check: &Check, scope: &str) {
    for finding in &check.findings {
        let severity = match finding.severity {
            Severity::Error => "ERROR",
            Severity::Warning => "WARNING",
            Severity::Info => "INFO",
        };
        println!("{severity}: {}", printable(&finding.what));
        println!("  where: {}", printable(&finding.location));
        println!("  to do: {}\n", printable(&finding.todo));
    }
    println!("Checked{scope}: {}.", check.checked.join(", "));
    match (errors(check), check.findings.len()) {
        (0, 0) => println!("Nothing is wrong."),
        (errors, all) => println!("{all} findings, {errors} of them errors."),
    }
}
