//! Live requests of a workload.

use std::io::{self, Write};
use std::process::ExitCode;

use super::{CommandError, Connection, Output, workload};
use crate::api::types::{Tap, TapQuery};
use crate::table::printable;

/// Watch live requests of a workload
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  anyam tap shop/web
  anyam tap shop/catalogue-1 --direction inbound --status 503
  anyam tap shop/web --path /checkout --max 20 -o json")]
pub struct TapArguments {
    /// namespace/name
    #[arg(value_parser = workload)]
    workload: String,
    /// Only this method
    #[arg(long, default_value = "")]
    method: String,
    /// Only paths that begin with this
    #[arg(long, default_value = "")]
    path: String,
    /// Only this authority (host)
    #[arg(long, default_value = "")]
    authority: String,
    /// Only this status
    #[arg(long, default_value_t = 0)]
    status: u32,
    /// Only calls by this SPIFFE id
    #[arg(long, default_value = "")]
    peer: String,
    #[arg(long, value_parser = ["inbound", "outbound"])]
    direction: Option<String>,
    /// Stop after this many requests
    #[arg(long)]
    max: Option<u64>,
    /// Stop after this many seconds
    #[arg(long, default_value_t = 0)]
    seconds: u32,
    /// Also request and response headers
    #[arg(long)]
    headers: bool,
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
}

pub async fn tap(
    connection: &Connection,
    arguments: TapArguments,
) -> Result<ExitCode, CommandError> {
    let query = TapQuery {
        workload: arguments.workload,
        method: arguments.method,
        path: arguments.path,
        authority: arguments.authority,
        status: arguments.status,
        peer_identity: arguments.peer,
        direction: arguments.direction.unwrap_or_default(),
        max_per_second: 0,
        seconds: arguments.seconds,
        headers: arguments.headers,
    };
    let mut left = arguments.max.unwrap_or(u64::MAX);
    let mut printed = Ok(());
    let client = connection.client()?;
    let tapping = client.tap(&query, |tap, line| {
        printed = print(tap, line, arguments.output);
        left = left.saturating_sub(1);
        printed.is_ok() && left > 0
    });
    tokio::select! {
        outcome = tapping => outcome?,
        interrupted = tokio::signal::ctrl_c() => interrupted?,
    }
    printed?;
    Ok(ExitCode::SUCCESS)
}

fn print(tap: &Tap, line: &[u8], output: Output) -> io::Result<()> {
    let mut out = io::stdout().lock();
    if output == Output::Json {
        out.write_all(line)?;
        return out.write_all(b"\n");
    }
    let arrow = if tap.direction == "inbound" {
        "\u{2190}"
    } else {
        "\u{2192}"
    };
    let peer = if tap.peer_identity.is_empty() {
        &tap.peer_address
    } else {
        &tap.peer_identity
    };
    let mut text = format!(
        "{arrow} {} {} {}{} {} {:.1} ms {}",
        tap.protocol, tap.method, tap.authority, tap.path, tap.status, tap.duration_ms, peer
    );
    for (name, value) in [
        ("grpc-status", &tap.grpc_status),
        ("flags", &tap.response_flags),
        ("details", &tap.details),
        ("route", &tap.route),
        ("to", &tap.upstream),
    ] {
        if !value.is_empty() && value != "-" {
            text += &format!(" {name}={value}");
        }
    }
    if tap.attempts > 1 {
        text += &format!(" attempts={}", tap.attempts);
    }
    writeln!(out, "{}", printable(&text))?;
    for (direction, headers) in [(">", &tap.request_headers), ("<", &tap.response_headers)] {
        for (name, value) in headers {
            writeln!(
                out,
                "    {direction} {}",
                printable(&format!("{name}: {value}"))
            )?;
        }
    }
    if tap.dropped > 0 {
        writeln!(out, "  ({} more were too fast to show)", tap.dropped)?;
    }
    out.flush()
}
