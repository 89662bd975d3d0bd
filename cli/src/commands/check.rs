//! What is wrong with this mesh, and what to do.

use std::process::ExitCode;

use super::{CommandError, Connection, Output, print_json};
use crate::api::types::Severity;
use crate::table::printable;

/// Say what is wrong with this mesh and what to do
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Exit codes: 0 nothing is wrong, 1 there are errors, 2 the mesh could not be asked.

Examples:
  anyam check
  anyam check -o json"
)]
pub struct CheckArguments {
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
}

pub async fn check(
    connection: &Connection,
    arguments: CheckArguments,
) -> Result<ExitCode, CommandError> {
    let check = connection.client()?.check().await?;
    let errors = check
        .findings
        .iter()
        .filter(|f| f.severity == Severity::Error)
        .count();
    let code = ExitCode::from(u8::from(errors > 0));
    if arguments.output == Output::Json {
        print_json(&check)?;
        return Ok(code);
    }
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
    println!("Checked: {}.", check.checked.join(", "));
    match (errors, check.findings.len()) {
        (0, 0) => println!("Nothing is wrong."),
        (errors, all) => println!("{all} findings, {errors} of them errors."),
    }
    Ok(code)
}
