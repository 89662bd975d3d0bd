//! One function for each subcommand.
//!
//! - `view`: proxies, stat, edges, routes; `check`; `tap`; `explain`; `dump`

mod check;
mod dump;
mod explain;
mod tap;
mod view;

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use serde::Serialize;

pub use check::{CheckArguments, check};
pub use dump::{DumpArguments, dump};
pub use explain::{ExplainArguments, explain};
pub use tap::{TapArguments, tap};
pub use view::{
    EdgesArguments, ProxiesArguments, RoutesArguments, StatArguments, edges, proxies, routes, stat,
};

use crate::api::{ApiError, Client};

/// Where the control plane is and how to be let in.
#[derive(Clone, Debug, clap::Args)]
pub struct Connection {
    /// The control plane's API
    #[arg(
        long,
        global = true,
        env = "ANYAM_API",
        default_value = "127.0.0.1:15080"
    )]
    api: SocketAddr,
    /// File with the API token: `api-token` in the control plane's state folder
    #[arg(
        long,
        global = true,
        env = "ANYAM_TOKEN_FILE",
        default_value = "/var/lib/anyam/control/api-token"
    )]
    token_file: PathBuf,
}

impl Connection {
    fn client(&self) -> Result<Client, ApiError> {
        Client::from_token_file(self.api, &self.token_file)
    }
}

/// Tables for people or JSON for scripts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Output {
    #[default]
    Table,
    Json,
}

/// Why a command could not be carried out.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    #[error(transparent)]
    Api(#[from] ApiError),
    #[error("cannot print: {0}")]
    Output(#[from] io::Error),
}

fn print_json(value: &impl Serialize) -> Result<(), CommandError> {
    let mut out = io::stdout().lock();
    serde_json::to_writer_pretty(&mut out, value).map_err(io::Error::from)?;
    Ok(io::Write::write_all(&mut out, b"\n")?)
}

/// `namespace/name`, the namespace `default` when none is named.
fn workload(text: &str) -> Result<String, String> {
    let (namespace, name) = text.split_once('/').unwrap_or(("default", text));
    if namespace.is_empty() || name.is_empty() || name.contains('/') {
        return Err(format!("{text:?} is not a workload such as shop/web"));
    }
    Ok(format!("{namespace}/{name}"))
}

/// `93s`, `12m`, `5h`, `3d`.
fn age(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds}s"),
        120..7200 => format!("{}m", seconds / 60),
        7200..172_800 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86_400),
    }
}

fn percent(share: Option<f64>) -> String {
    share.map_or("-".into(), |share| format!("{:.2} %", share * 100.0))
}

fn millis(value: Option<f64>) -> String {
    value.map_or("-".into(), |value| format!("{value:.1} ms"))
}
