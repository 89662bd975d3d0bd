//! Runs the aggregated API beside a control plane: its port, a certificate from the CA, which is renewed,
//! and what follows how the API server authenticates.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use kube::Client;
use tokio::net::TcpListener;
use tokio::sync::watch;

use super::server::{AggregatedApi, DashboardPlace};
use crate::api::Api;
use crate::api::connections::Bounds;
use crate::api::secure::SecurePort;
use crate::ca::CaError;
use crate::ca::serving::{self, Serving};
use crate::kubernetes::access_review::AccessReviews;
use crate::kubernetes::front_proxy;
use crate::supervise::{LongLivedTasks, TaskEnded};

/// API servers are few; a tap has a connection of its own.
const BOUNDS: Bounds = Bounds {
    connections: 512,
    of_one_address: 256,
    // Not counted: a body has 64 KiB at most.
    bytes: usize::MAX,
};
/// Tasks that have not ended by then are aborted.
const STOP: Duration = Duration::from_secs(5);

#[derive(Clone, Debug)]
pub struct AggregatedOptions {
    pub listen: SocketAddr,
    /// DNS names and addresses under which the API server reaches it.
    pub names: Vec<String>,
    /// This pod's; empty: it is none.
    pub pod: String,
    /// The namespace of the control plane.
    pub namespace: String,
}

/// Why there is no aggregated API.
#[derive(Debug, thiserror::Error)]
pub enum AggregatedApiError {
    #[error(transparent)]
    Ca(#[from] CaError),
    #[error(
        "the aggregated API can't listen on {address}: {source}; choose another with --aggregated-listen"
    )]
    Listen {
        address: SocketAddr,
        source: std::io::Error,
    },
}

/// An aggregated API that is being served.
pub struct RunningAggregatedApi {
    pub address: SocketAddr,
    closing: watch::Sender<bool>,
    tasks: LongLivedTasks,
}

/// `dashboard`: the port of the API that a login is good at.
///
/// # Errors
/// When the port can't be opened, or no certificate can be made.
pub async fn start(
    options: AggregatedOptions,
    client: Client,
    api: Arc<Api>,
    dashboard: SocketAddr,
) -> Result<RunningAggregatedApi, AggregatedApiError> {
    let AggregatedOptions {
        listen,
        names,
        pod,
        namespace,
    } = options;
    let failed = |source| AggregatedApiError::Listen {
        address: listen,
        source,
    };
    let listener = TcpListener::bind(listen).await.map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    let authority = Arc::clone(&api.authority);
    let metrics = Arc::clone(&api.metrics);
    let (serving, renew_in) = Serving::new(&authority, &names)?;
    let serving = Arc::new(serving);
    let (trusted, trusts) = watch::channel(None);
    let (closing, closed) = watch::channel(false);
    let port = SecurePort {
        name: "aggregated",
        bounds: BOUNDS,
        metrics: Arc::clone(&metrics),
        service: AggregatedApi {
            api,
            reviews: Arc::new(AccessReviews::new(client.clone(), metrics)),
            trusted: trusts,
            serving: Arc::clone(&serving),
            dashboard: DashboardPlace {
                namespace,
                pod,
                port: dashboard.port(),
            },
        },
    };
    let mut tasks = LongLivedTasks::default();
    tasks.spawn(
        "serving the aggregated API",
        port.serve(listener, closed.clone()),
    );
    tasks.spawn(
        "following how the API server authenticates",
        front_proxy::follow(client, trusted),
    );
    tasks.spawn(
        "renewing the aggregated API's certificate",
        serving::keep_renewed(serving, authority, renew_in, closed),
    );
    tracing::info!(%address, "serving the aggregated API");
    Ok(RunningAggregatedApi {
        address,
        closing,
        tasks,
    })
}

impl RunningAggregatedApi {
    /// Waits until something that it does ends by itself.
    pub async fn ended(&mut self) -> TaskEnded {
        self.tasks.ended().await
    }

    /// Closes the port and connections.
    pub async fn stop(mut self) {
        self.closing.send_replace(true);
        // What follows the API server does not end by itself.
        let _ = tokio::time::timeout(STOP, self.tasks.shutdown()).await;
    }
}
