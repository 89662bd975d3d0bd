//! A client of the API server: its address and the credentials to use.

use std::path::PathBuf;
use std::time::Duration;

use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};

/// Kubernetes sets this in every container.
const IN_CLUSTER: &str = "KUBERNETES_SERVICE_HOST";
/// After this long without a connection another attempt is made.
const CONNECT: Duration = Duration::from_secs(10);
/// A connection without any bytes for so long is closed: a peer that vanished without a FIN or RST
/// would else be waited for without end. Watches end, and start again, more often than that.
const READ: Duration = Duration::from_secs(90);

/// How to reach a cluster. With neither field: as a pod of it, else as kubectl does.
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

/// Makes a client without a request, so the API server need not be running.
///
/// # Errors
/// When no API server is configured, or credentials cannot be read.
pub async fn client(access: &Access) -> Result<Client, ConnectError> {
    client_with(access, READ).await
}

async fn client_with(access: &Access, read: Duration) -> Result<Client, ConnectError> {
    let options = KubeConfigOptions {
        context: access.context.clone(),
        ..KubeConfigOptions::default()
    };
    let named = access.kubeconfig.is_some() || access.context.is_some();
    let mut config = if !named && std::env::var_os(IN_CLUSTER).is_some() {
        Config::incluster()?
    } else {
        let (what, found) = match &access.kubeconfig {
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
        let found = found.map_err(&wrong)?;
        let config = Config::from_custom_kubeconfig(found, &options).await;
        config.map_err(wrong)?
    };
    config.connect_timeout = Some(CONNECT);
    config.read_timeout = Some(read);
    // From the request on, not from when the connection was last used.
    config.reset_reader_on_write = true;
    Ok(Client::try_from(config)?)
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::ConfigMap;
    use kube::Api;
    use kube::api::ListParams;
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn a_connection_without_a_response_is_closed() {
        let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = silent.local_addr().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let kubeconfig = folder.path().join("config");
        let text = format!(
            "clusters: [{{ name: c, cluster: {{ server: 'http://{at}' }} }}]\n\
             contexts: [{{ name: c, context: {{ cluster: c, user: u }} }}]\n\
             users: [{{ name: u, user: {{}} }}]\ncurrent-context: c\n"
        );
        std::fs::write(&kubeconfig, text).unwrap();
        let access = Access {
            kubeconfig: Some(kubeconfig),
            context: None,
        };
        let client = client_with(&access, Duration::from_millis(200)).await;
        let maps: Api<ConfigMap> = Api::default_namespaced(client.unwrap());
        let (all, which) = (Duration::from_secs(20), ListParams::default());
        let listed = tokio::time::timeout(all, maps.list(&which)).await;
        assert!(listed.unwrap().is_err());
    }
}
