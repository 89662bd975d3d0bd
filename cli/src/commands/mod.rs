//! One function for each subcommand.
//!
//! - `view`: proxies, stat, edges, routes; `check`, `precheck`; `tap`; `explain`; `dump`; `dashboard`
//! - `context`; `inject`; `install`
//! - `connection`: which mesh is asked; `mesh`: that mesh, and the workloads that people name

mod check;
mod connection;
mod context;
mod dashboard;
mod dump;
mod explain;
mod inject;
mod install;
mod mesh;
mod precheck;
mod tap;
mod view;

use std::io;

use anyam_control::context::ContextError;
use serde::Serialize;

pub use check::{CheckArguments, check};
pub use connection::Connection;
pub use context::{ContextArguments, context};
pub use dashboard::{DashboardArguments, dashboard};
pub use dump::{DumpArguments, dump};
pub use explain::{ExplainArguments, explain};
pub use inject::{InjectArguments, inject};
pub use install::{InstallArguments, install};
pub use tap::{TapArguments, tap};
pub use view::{
    EdgesArguments, ProxiesArguments, RoutesArguments, StatArguments, edges, proxies, routes, stat,
};

use crate::api::ApiError;
use crate::cluster::ClusterError;

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
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    #[error(transparent)]
    Context(#[from] ContextError),
    #[error(transparent)]
    Inject(#[from] inject::InjectFilesError),
    /// What was asked for makes no sense, in words.
    #[error("{0}")]
    Usage(String),
    #[error("cannot print: {0}")]
    Output(#[from] io::Error),
}

fn print_json(value: &impl Serialize) -> Result<(), CommandError> {
    let mut out = io::stdout().lock();
    serde_json::to_writer_pretty(&mut out, value).map_err(io::Error::from)?;
    Ok(io::Write::write_all(&mut out, b"\n")?)
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
