//! Live requests of a workload.

use std::io::{self, Write};
use std::process::ExitCode;

use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::{CommandError, Connection, Output};
use crate::api::ApiError;
use crate::api::types::{Tap, TapQuery};
use crate::table::printable;

/// Watch live requests of a workload, or of all pods of a Deployment
#[derive(Debug, clap::Args)]
#[command(after_help = "Pods that start later are not added.

Examples:
  anyam tap -n shop deploy/web
  anyam tap shop/web
  anyam tap shop/catalogue-1 --direction inbound --status 503
  anyam tap shop/web --path /checkout --max 20 -o json")]
pub struct TapArguments {
    /// namespace/name; in a cluster also deploy/NAME, sts/NAME, ds/NAME, job/NAME, svc/NAME, pod/NAME
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

/// What the taps of several pods have seen and was not printed yet.
const WAITING: usize = 256;
/// Pods that are tapped at a time.
const MAX_PODS: usize = 32;

pub async fn tap(
    connection: &Connection,
    arguments: TapArguments,
) -> Result<ExitCode, CommandError> {
    let mesh = connection.mesh().await?;
    let mut workloads = mesh.workloads(&arguments.workload).await?;
    let query = TapQuery {
        workload: String::new(),
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
    if workloads.len() > 1 {
        let left_out = workloads.len().saturating_sub(MAX_PODS);
        workloads.truncate(MAX_PODS);
        let names: Vec<_> = workloads.iter().map(|it| it.name.as_str()).collect();
        eprintln!("anyam: {} pods: {}", names.len(), names.join(", "));
        if left_out > 0 {
            eprintln!("anyam: {left_out} more are left out; name one: pod/NAME");
        }
    }
    let several = workloads.len() > 1;
    let (sender, receiver) = mpsc::channel(WAITING);
    // They end with the set.
    let mut taps = JoinSet::new();
    for workload in workloads {
        let (client, query, sender) = (mesh.client.clone(), query.clone(), sender.clone());
        taps.spawn(async move {
            // While the terminal is slow, the control plane drops and counts.
            let outcome = client.tap(&workload, &query, &sender).await;
            if let (Err(error), true) = (&outcome, several) {
                eprintln!("anyam: {}: {error}", workload.name);
            }
            outcome
        });
    }
    drop(sender);
    let left = arguments.max.unwrap_or(u64::MAX);
    let printing = print_all(receiver, left, |tap, line| {
        print(tap, line, arguments.output, several)
    });
    let enough = tokio::select! {
        outcome = printing => outcome?,
        interrupted = tokio::signal::ctrl_c() => {
            interrupted?;
            true
        }
    };
    match enough {
        true => Ok(ExitCode::SUCCESS),
        false => ended(taps).await,
    }
}

/// Prints until `left` are printed (true), or all taps have ended.
async fn print_all(
    mut receiver: mpsc::Receiver<(Tap, Vec<u8>)>,
    mut left: u64,
    each: impl Fn(&Tap, &[u8]) -> io::Result<()>,
) -> io::Result<bool> {
    while left > 0 {
        let Some((tap, line)) = receiver.recv().await else {
            return Ok(false);
        };
        each(&tap, &line)?;
        left = left.saturating_sub(1);
    }
    Ok(true)
}

/// An error, if all taps have failed: of several pods one may not be connected yet.
async fn ended(mut taps: JoinSet<Result<(), ApiError>>) -> Result<ExitCode, CommandError> {
    let (mut good, mut failed) = (false, None);
    while let Some(tap) = taps.join_next().await {
        match tap.map_err(io::Error::other)? {
            Ok(()) => good = true,
            Err(error) => failed = Some(error),
        }
    }
    match failed {
        Some(error) if !good => Err(error.into()),
        _ => Ok(ExitCode::SUCCESS),
    }
}

/// `several`: name the pod.
fn print(tap: &Tap, line: &[u8], output: Output, several: bool) -> io::Result<()> {
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
    if several {
        text = format!("{} {text}", tap.workload);
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
