//! One function for each subcommand.
//!
//! - `view`: proxies, stat, edges, routes; `check`; `tap`; `explain`; `dump`; `context`; `inject`; `install`

mod check;
mod context;
mod dump;
mod explain;
mod inject;
mod install;
mod tap;
mod view;

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use anyam_control::context::{Context, ContextError, Contexts, Token};
use serde::Serialize;

pub use check::{CheckArguments, check};
pub use context::{ContextArguments, context};
pub use dump::{DumpArguments, dump};
pub use explain::{ExplainArguments, explain};
pub use inject::{InjectArguments, inject};
pub use install::{InstallArguments, install};
pub use tap::{TapArguments, tap};
pub use view::{
    EdgesArguments, ProxiesArguments, RoutesArguments, StatArguments, edges, proxies, routes, stat,
};

use crate::api::{ApiError, Client};

/// Where the control plane is and how to be let in: by a context, or by address and token.
#[derive(Clone, Debug, clap::Args)]
pub struct Connection {
    /// Which context to use; without it the current one (see `anyam context`)
    #[arg(long, global = true, env = "ANYAM_CONTEXT")]
    context: Option<String>,
    /// The control plane's API, instead of a context's; 127.0.0.1:15080 where there is none
    #[arg(long, global = true, env = "ANYAM_API")]
    api: Option<SocketAddr>,
    /// File with the API token, instead of a context's: `api-token` in the control plane's state folder
    #[arg(long, global = true, env = "ANYAM_TOKEN_FILE")]
    token_file: Option<PathBuf>,
}

impl Connection {
    fn client(&self) -> Result<Client, CommandError> {
        let context = match (&self.context, &self.api, &self.token_file) {
            (Some(name), ..) => Some(Contexts::of_user()?.get(name)?),
            (None, Some(_), Some(_)) => None,
            _ => current()?,
        };
        let (api, token) = match context {
            Some(context) => (context.api, context.token),
            None => (
                SocketAddr::from(([127, 0, 0, 1], 15080)),
                Token::File("/var/lib/anyam/control/api-token".into()),
            ),
        };
        let api = self.api.unwrap_or(api);
        Ok(match (&self.token_file, token) {
            (Some(path), _) => Client::from_token_file(api, path)?,
            (None, Token::File(path)) => Client::from_token_file(api, &path)?,
            (None, Token::Value(token)) => Client::new(api, &token),
        })
    }
}

/// The current context; none where there is no place for contexts.
fn current() -> Result<Option<Context>, ContextError> {
    let Ok(contexts) = Contexts::of_user() else {
        return Ok(None);
    };
    let current = contexts.current()?;
    current.map(|name| contexts.get(&name)).transpose()
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
    #[error(transparent)]
    Context(#[from] ContextError),
    #[error(transparent)]
    Inject(#[from] inject::InjectFilesError),
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
