//! Where the API server is, and as whom it is asked.

use std::path::PathBuf;
use std::time::Duration;

use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};

/// Set in every pod.
const IN_CLUSTER: &str = "KUBERNETES_SERVICE_HOST";
/// The API server accepts a connection within this time, or another attempt is made.
const CONNECT: Duration = Duration::from_secs(10);
/// A response that has brought nothing for this long is given up. Longer than a watch lasts.
const READ: Duration = Duration::from_secs(75);

/// How to reach a cluster. Neither: as a pod of it, or as kubectl would.
#[derive(Clone, Debug, Default)]
pub struct Access {
    pub kubeconfig: Option<PathBuf>,
    /// A context of it.
    pub context: Option<String>,
}

/// Why a cluster cannot be reached.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    #[error(
        "{what}: {source}; name a kubeconfig with --kubeconfig, and its context with --kube-context"
    )]
    Kubeconfig {
        what: String,
        source: kube::config::KubeconfigError,
    },
    #[error(
        "the service account's token and certificates can't be read: {0}; mount them (automountServiceAccountToken)"
    )]
    InCluster(#[from] kube::config::InClusterError),
    #[error("no client of the API server can be made: {0}")]
    Client(#[from] kube::Error),
}

/// A client; nothing is asked yet, so the API server may be down.
///
/// # Errors
/// When nothing says where the API server is, or credentials cannot be read.
pub async fn client(access: &Access) -> Result<Client, ConnectError> {
    let options = KubeConfigOptions {
        context: access.context.clone(),
        ..KubeConfigOptions::default()
    };
    let named = access.kubeconfig.is_some() || access.context.is_some();
    let mut config = if !named && std::env::var_os(IN_CLUSTER).is_some() {
        Config::incluster()?
    } else {
        let (what, read) = match &access.kubeconfig {
            Some(path) => (path.display().to_string(), Kubeconfig::read_from(path)),
            None => (
                "$KUBECONFIG or ~/.kube/config".to_owned(),
                Kubeconfig::read(),
            ),
        };
        let wrong = |source| ConnectError::Kubeconfig {
            what: what.clone(),
            source,
        };
        let read = read.map_err(&wrong)?;
        let config = Config::from_custom_kubeconfig(read, &options).await;
        config.map_err(wrong)?
    };
    config.connect_timeout = Some(CONNECT);
    config.read_timeout = Some(READ);
    config.reset_reader_on_write = true;
    Ok(Client::try_from(config)?)
}
