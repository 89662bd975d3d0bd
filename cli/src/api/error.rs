//! Why a call of the API failed.

use std::net::SocketAddr;
use std::path::PathBuf;

use crate::cluster::ClusterError;

use super::TIMEOUT;

#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    #[error(
        "the API token {}: {error}; is a control plane running (`anyam context list`)? Choose one with --context, give --token-file (ANYAM_TOKEN_FILE) the file `api-token` in its state folder, or name a cluster with --kubeconfig or --kube-context",
        path.display()
    )]
    Token {
        path: PathBuf,
        error: std::io::Error,
    },
    #[error(
        "the control plane's API at {address} does not answer: {error}; is anyam-control running, and is --api (or ANYAM_API) its address? `anyam context list` has the others; --kube-context asks a cluster"
    )]
    Unreachable {
        address: SocketAddr,
        error: Box<dyn std::error::Error + Send + Sync>,
    },
    #[error(
        "the API did not answer within {TIMEOUT:?} ({place}); try again, and see the control plane's log"
    )]
    Late { place: String },
    /// The answer, or the rest of it, did not arrive.
    #[error("the answer of the API broke off: {error} ({place}); try again")]
    Broken {
        place: String,
        error: Box<dyn std::error::Error + Send + Sync>,
    },
    #[error("{what} ({location}); {todo}")]
    Refused {
        status: u16,
        what: String,
        location: String,
        todo: String,
    },
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    #[error(
        "the API answered {path} with something else than expected: {error}; are anyam and anyam-control of one version?"
    )]
    Unexpected {
        path: String,
        error: serde_json::Error,
    },
}
