//! Runs the webhook beside a control plane: its port, and a certificate from the CA, which is
//! renewed.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;

use super::settings::MeshSettings;
use super::webhook::{self, Webhook};
use crate::ca::serving::{self, Serving};
use crate::ca::{Authority, CaError};
use crate::metrics::Metrics;
use crate::supervise::{LongLivedTasks, TaskEnded};

/// Tasks that have not ended by then are aborted.
const STOP: Duration = Duration::from_secs(5);

#[derive(Clone, Debug)]
pub struct WebhookOptions {
    pub listen: SocketAddr,
    /// DNS names and addresses under which the API server reaches it.
    pub names: Vec<String>,
    pub settings: MeshSettings,
}

/// Why there is no webhook.
#[derive(Debug, thiserror::Error)]
pub enum WebhookError {
    #[error(transparent)]
    Ca(#[from] CaError),
    #[error(
        "the webhook can't listen on {address}: {source}; choose another with --webhook-listen"
    )]
    Listen {
        address: SocketAddr,
        source: std::io::Error,
    },
}

/// A webhook that is being served.
pub struct RunningWebhook {
    pub address: SocketAddr,
    closing: watch::Sender<bool>,
    tasks: LongLivedTasks,
}

/// # Errors
/// When the port can't be opened, or no certificate can be made.
pub async fn start(
    options: WebhookOptions,
    authority: Arc<Authority>,
    metrics: Arc<Metrics>,
) -> Result<RunningWebhook, WebhookError> {
    let WebhookOptions {
        listen,
        names,
        settings,
    } = options;
    let bound = webhook::bind(listen).await;
    let (listener, address) = bound.map_err(|source| WebhookError::Listen {
        address: listen,
        source,
    })?;
    let (serving, renew_in) = Serving::new(&authority, &names)?;
    let serving = Arc::new(serving);
    let tls = TlsAcceptor::from(Arc::new(serving::webhook_config(Arc::clone(&serving))?));
    let (closing, closed) = watch::channel(false);
    let mut tasks = LongLivedTasks::default();
    let webhook = Arc::new(Webhook::new(settings, metrics));
    tasks.spawn(
        "serving the webhook",
        webhook.serve(listener, tls, closed.clone()),
    );
    tasks.spawn(
        "renewing the webhook's certificate",
        serving::keep_renewed(serving, authority, renew_in, closed),
    );
    tracing::info!(%address, "serving the webhook");
    Ok(RunningWebhook {
        address,
        closing,
        tasks,
    })
}

impl RunningWebhook {
    /// Waits until something that it does ends by itself.
    pub async fn ended(&mut self) -> TaskEnded {
        self.tasks.ended().await
    }

    /// Closes the port and connections.
    pub async fn stop(mut self) {
        self.closing.send_replace(true);
        if tokio::time::timeout(STOP, self.tasks.join()).await.is_err() {
            tracing::warn!("the webhook did not end in time");
        }
    }
}
