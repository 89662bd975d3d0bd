//! Sockets of the API: connections, and their limits.
//!
//! - the API's port has so many connections, and further ones wait
//! - the unauthenticated port of metrics and health accepts every connection: at its limit an older
//!   connection is closed ([`super::connections`]); a connection carries one response and has a
//!   deadline

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::time::{sleep, timeout};

use super::connections::{BoundedConnections, Bounds};
use super::{Api, ApiPort};

/// Of a request's head, and of a response that is written.
const MAX_BUFFER: usize = 64 << 10;
/// Of the API's port.
const MAX_CONNECTIONS: usize = 256;
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
const MONITORING_BOUNDS: Bounds = Bounds {
    connections: 256,
    of_one_address: 64,
    // Not counted: no body is read, and a connection has one response.
    bytes: usize::MAX,
};
/// From accepting a connection to the end of its one response.
const MONITORING_LIFE: Duration = Duration::from_secs(10);
/// After an error such as "too many open files": trying at once would spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

impl Api {
    /// Serves until `closing` turns true.
    pub async fn serve(
        self: Arc<Self>,
        listener: TcpListener,
        port: ApiPort,
        closing: watch::Receiver<bool>,
    ) {
        match port {
            ApiPort::People => self.serve_people(listener, closing).await,
            ApiPort::Monitoring => self.serve_monitoring(listener, closing).await,
        }
    }

    async fn serve_people(self: Arc<Self>, listener: TcpListener, closing: watch::Receiver<bool>) {
        let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        loop {
            let Ok(slot) = Arc::clone(&slots).acquire_owned().await else {
                return;
            };
            let Some((stream, _)) = accept(&listener, closing.clone()).await else {
                return;
            };
            let (api, mut closing) = (Arc::clone(&self), closing.clone());
            tokio::spawn(async move {
                tokio::select! {
                    () = api.connection(stream, ApiPort::People) => {}
                    _ = closing.wait_for(|closing| *closing) => {}
                }
                drop(slot);
            });
        }
    }

    /// Clients are not authenticated, and any of them may hold connections: so a new connection, which
    /// may be the kubelet's, is always accepted.
    async fn serve_monitoring(
        self: Arc<Self>,
        listener: TcpListener,
        closing: watch::Receiver<bool>,
    ) {
        let connections = BoundedConnections::new(MONITORING_BOUNDS);
        while let Some((stream, peer)) = accept(&listener, closing.clone()).await {
            let (connection, closed) = connections.open(peer.ip());
            if closed {
                self.metrics.refused("monitoring");
            }
            let id = connection.id();
            let (api, mut closing) = (Arc::clone(&self), closing.clone());
            let task = tokio::spawn(async move {
                tokio::select! {
                    // A peer that sends or reads too slowly gets nothing more.
                    _ = timeout(MONITORING_LIFE, api.connection(stream, ApiPort::Monitoring)) => {}
                    _ = closing.wait_for(|closing| *closing) => {}
                }
                drop(connection);
            });
            connections.started(id, task.abort_handle());
        }
    }

    async fn connection(self: Arc<Self>, stream: TcpStream, port: ApiPort) {
        let service = service_fn(|request| {
            let api = Arc::clone(&self);
            async move { Ok::<_, Infallible>(api.answer(request, port).await) }
        });
        let served = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEADER_TIMEOUT)
            .keep_alive(port == ApiPort::People)
            .max_buf_size(MAX_BUFFER)
            .serve_connection(TokioIo::new(stream), service)
            .await;
        // The peer broke the protocol or closed: there is no response to send.
        if let Err(error) = served {
            tracing::debug!(%error, ?port, "API connection");
        }
    }
}

/// The next connection; `None`: `closing` has turned true.
pub(super) async fn accept(
    listener: &TcpListener,
    mut closing: watch::Receiver<bool>,
) -> Option<(TcpStream, SocketAddr)> {
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = closing.wait_for(|closing| *closing) => return None,
        };
        match accepted {
            Ok(accepted) => return Some(accepted),
            Err(error) => {
                tracing::warn!(%error, "accepting on the API port failed");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}
