//! Runs what replicas ask each other beside a control plane.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::watch;

use super::addresses::ReplicaAddress;
use super::client::ReplicaClient;
use super::connection::ReplicaConnector;
use super::server::ReplicaServer;
use crate::api::Api;
use crate::api::connections::Bounds;
use crate::api::secure::SecurePort;
use crate::ca::CaError;
use crate::ca::serving::{self, Serving};
use crate::supervise::{LongLivedTasks, TaskEnded};

/// Replicas are few, and each asks for one thing over a connection; taps last.
const BOUNDS: Bounds = Bounds {
    connections: 512,
    of_one_address: 256,
    // Not counted: a body has 64 KiB at most.
    bytes: usize::MAX,
};
/// For a replica to answer.
const WITHIN: Duration = Duration::from_secs(2);
/// Tasks that have not ended by then are aborted.
const STOP: Duration = Duration::from_secs(5);

#[derive(Clone, Debug)]
pub struct ReplicasOptions {
    pub listen: SocketAddr,
}

/// Why replicas cannot ask this one.
#[derive(Debug, thiserror::Error)]
pub enum ReplicasError {
    #[error(transparent)]
    Ca(#[from] CaError),
    #[error(
        "the port for other replicas can't be {address}: {source}; choose another with --replicas-listen"
    )]
    Listen {
        address: SocketAddr,
        source: std::io::Error,
    },
}

/// The port for other replicas.
pub struct RunningReplicas {
    pub address: SocketAddr,
    closing: watch::Sender<bool>,
    tasks: LongLivedTasks,
}

/// From then on `api` answers for all replicas in `addresses`.
///
/// # Errors
/// When the port can't be opened, or no certificate can be made.
pub async fn start(
    options: ReplicasOptions,
    api: Arc<Api>,
    addresses: watch::Receiver<Vec<ReplicaAddress>>,
) -> Result<RunningReplicas, ReplicasError> {
    let ReplicasOptions { listen } = options;
    let failed = |source| ReplicasError::Listen {
        address: listen,
        source,
    };
    let listener = TcpListener::bind(listen).await.map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    let authority = Arc::clone(&api.authority);
    let (serving, renew_in) = Serving::new(&authority, &[])?;
    let serving = Arc::new(serving);
    let server = serving::replica_server_config(&authority, Arc::clone(&serving))?;
    let client = serving::replica_client_config(&authority, Arc::clone(&serving))?;
    let connector = ReplicaConnector {
        tls: Arc::new(client),
        identity: authority.own_identity(),
        within: WITHIN,
    };
    api.join(Arc::new(ReplicaClient::new(addresses, connector)));
    let port = SecurePort {
        name: "replicas",
        bounds: BOUNDS,
        metrics: Arc::clone(&api.metrics),
        service: ReplicaServer {
            api,
            tls: Arc::new(server),
            identity: authority.own_identity(),
        },
    };
    let (closing, closed) = watch::channel(false);
    let mut tasks = LongLivedTasks::default();
    let serve = port.serve(listener, closed.clone());
    tasks.spawn("serving other replicas", serve);
    tasks.spawn(
        "renewing the certificate for other replicas",
        serving::keep_renewed(serving, authority, renew_in, closed),
    );
    tracing::info!(%address, "serving other replicas");
    Ok(RunningReplicas {
        address,
        closing,
        tasks,
    })
}

impl RunningReplicas {
    /// Waits until something that it does ends by itself.
    pub async fn ended(&mut self) -> TaskEnded {
        self.tasks.ended().await
    }

    /// Closes the port and connections.
    pub async fn stop(mut self) {
        self.closing.send_replace(true);
        if tokio::time::timeout(STOP, self.tasks.join()).await.is_err() {
            tracing::warn!("connections of other replicas did not end in time");
        }
    }
}
