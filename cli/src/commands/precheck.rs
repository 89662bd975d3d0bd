//! `anyam check --pre`: whether the mesh can be installed into a cluster.

use std::process::ExitCode;

use serde::Serialize;

use super::{CommandError, Connection, Output, print_json};
use crate::cluster::installed::NAMESPACE;
use crate::cluster::preflight::{self, Level, PreCheck};
use crate::table::printable;

/// The JSON.
#[derive(Serialize)]
struct PreChecks {
    checks: Vec<PreCheck>,
}

pub async fn precheck(connection: &Connection, output: Output) -> Result<ExitCode, CommandError> {
    let cluster = connection.cluster().await?;
    let namespace = connection.namespace().unwrap_or(NAMESPACE);
    let checks = preflight::run(&cluster, namespace).await?;
    let count = |level| checks.iter().filter(|check| check.level == level).count();
    let (errors, warnings) = (count(Level::Error), count(Level::Warning));
    if output == Output::Json {
        print_json(&PreChecks { checks })?;
    } else {
        for check in &checks {
            let mark = match check.level {
                Level::Ok => "ok     ",
                Level::Warning => "WARNING",
                Level::Error => "ERROR  ",
            };
            println!("{mark}  {}", printable(&check.what));
            if !check.todo.is_empty() {
                println!("         to do: {}", printable(&check.todo));
            }
        }
        match (errors, warnings) {
            (0, 0) => println!("\nThe mesh can be installed into namespace {namespace}."),
            (0, _) => println!(
                "\nThe mesh can be installed into namespace {namespace}; {warnings} warnings."
            ),
            _ => {
                println!("\n{errors} errors, {warnings} warnings: correct these before installing.")
            }
        }
    }
    Ok(ExitCode::from(u8::from(errors > 0)))
}
