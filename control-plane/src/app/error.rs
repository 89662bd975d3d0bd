//! Why a command fails.

use std::path::PathBuf;

use crate::aggregated::AggregatedApiError;
use crate::ca::CaError;
use crate::ca::authority::SignError;
use crate::declared::OpenError;
use crate::incumbents::IncumbentsError;
use crate::inject::settings::SettingsError;
use crate::inject::start::WebhookError;
use crate::kubernetes::root_secret::RootSecretError;
use crate::replicas::ReplicasError;
use crate::server::StartError;
use crate::source::SourceError;
use crate::source::kubernetes::connect::ConnectError;
use crate::supervise::TaskEnded;

/// Why a command fails.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    #[error(transparent)]
    Start(#[from] StartError),
    #[error(transparent)]
    Ca(#[from] CaError),
    #[error(transparent)]
    Sign(#[from] SignError),
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error(transparent)]
    Incumbents(#[from] IncumbentsError),
    #[error(transparent)]
    Settings(#[from] SettingsError),
    #[error(transparent)]
    Webhook(#[from] WebhookError),
    #[error(transparent)]
    Aggregated(#[from] AggregatedApiError),
    #[error(transparent)]
    Replicas(#[from] ReplicasError),
    #[error(
        "{path} can't be read as a folder: {source}; name the folder of manifests with --config-dir",
        path = path.display()
    )]
    Folder {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("`{0}` is no namespace/name; write --workload shop/web-0")]
    Workload(String),
    #[error(
        "{folder} declares no Workload {workload}; add its manifest, or give --service-account",
        folder = folder.display()
    )]
    Undeclared { folder: PathBuf, workload: String },
    #[error("`{0}` can't be an identity: names have a-z A-Z 0-9 . - _ only")]
    Identity(String),
    #[error("signals can't be listened to: {0}")]
    Signals(std::io::Error),
    #[error("no runtime: {0}")]
    Runtime(std::io::Error),
    #[error("the Kubernetes API can't be used: {0}")]
    Connect(#[from] ConnectError),
    #[error("the cluster can't be read: {0}")]
    Source(#[from] SourceError),
    #[error(transparent)]
    Root(#[from] RootSecretError),
    #[error(
        "the injection settings have {field} `{there}`, but {flag} is `{here}`: sidecars would be refused; give both the same value"
    )]
    Disagree {
        field: &'static str,
        there: String,
        flag: &'static str,
        here: String,
    },
    #[error(
        "no temporary folder for the API's token: {0}; mount an emptyDir at /tmp, or name a folder with --state-dir"
    )]
    Temporary(CaError),
    #[error("{0} is missing on the command line")]
    Missing(&'static str),
    #[error(transparent)]
    Ended(#[from] TaskEnded),
}
