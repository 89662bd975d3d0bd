//! A port of HTTPS (HTTP/1.1) whose peers show certificates: its connections are bounded in number and
//! time, and a new one is always accepted ([`super::connections`]).

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use http::Request;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls::{ServerConfig, ServerConnection};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;

use super::connections::{BoundedConnection, BoundedConnections, Bounds};
use super::listen::accept;
use super::reply::Reply;
use crate::metrics::Metrics;

/// Of a request's head: the groups of a user are a header each.
const MAX_HEAD: usize = 64 << 10;
const MAX_HEADERS: usize = 1024;
const HANDSHAKE: Duration = Duration::from_secs(5);
/// For the headers of a request to arrive; a connection that sends no request is closed after it. Longer
/// than API servers keep idle connections, so that none is closed while it is being used again.
const HEADER_TIMEOUT: Duration = Duration::from_secs(120);
/// The age at which a connection is closed, after its open request, which gets `LAST_REQUEST`: as long
/// as a tap may last.
const LIFE: Duration = Duration::from_secs(600);
const LAST_REQUEST: Duration = Duration::from_secs(3700);

/// What is served at such a port.
pub(crate) trait SecureService: Send + Sync + 'static {
    /// By which a peer's certificate is verified.
    type Trust: Send + 'static;
    /// What is known of a connection's peer.
    type Client: Send + Sync + 'static;

    /// For the next handshake.
    ///
    /// # Errors
    /// Why there can be none.
    fn tls(&self) -> Result<(Arc<ServerConfig>, Self::Trust), String>;

    /// # Errors
    /// Why the connection is closed, in words for the log.
    fn client(&self, trust: Self::Trust, tls: &ServerConnection) -> Result<Self::Client, String>;

    fn answer(
        &self,
        request: Request<Incoming>,
        client: &Self::Client,
    ) -> impl Future<Output = Reply> + Send;
}

/// See the module.
pub(crate) struct SecurePort<S> {
    /// In the metrics of refused connections and peers.
    pub(crate) name: &'static str,
    pub(crate) bounds: Bounds,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) service: S,
}

impl<S: SecureService> SecurePort<S> {
    /// Serves until `closing` turns true.
    pub(crate) async fn serve(self, listener: TcpListener, closing: watch::Receiver<bool>) {
        let connections = BoundedConnections::new(self.bounds);
        let port = Arc::new(self);
        while let Some((tcp, peer)) = accept(&listener, closing.clone()).await {
            let (connection, closed) = connections.open(peer.ip());
            if closed {
                port.metrics.refused(port.name);
            }
            let id = connection.id();
            let (port, mut closing) = (Arc::clone(&port), closing.clone());
            let task = tokio::spawn(async move {
                tokio::select! {
                    () = port.connection((tcp, peer), connection) => {}
                    _ = closing.wait_for(|closing| *closing) => {}
                }
            });
            connections.started(id, task.abort_handle());
        }
    }

    async fn connection(
        &self,
        (tcp, peer): (TcpStream, SocketAddr),
        connection: BoundedConnection,
    ) {
        let (config, trust) = match self.service.tls() {
            Ok(tls) => tls,
            Err(why) => {
                tracing::error!(port = self.name, why, "no handshake is possible");
                return;
            }
        };
        // A peer that does not shake hands in time, or breaks the protocol, gets no response.
        let stream = match timeout(HANDSHAKE, TlsAcceptor::from(config).accept(tcp)).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => {
                tracing::debug!(%error, %peer, port = self.name, "a handshake failed");
                return;
            }
            Err(_) => return,
        };
        let client = match self.service.client(trust, stream.get_ref().1) {
            Ok(client) => client,
            Err(why) => {
                // Any workload reaches the port, and may come as often as it likes.
                tracing::debug!(%peer, port = self.name, why, "a connection was refused");
                self.metrics.peer_refused(self.name);
                return;
            }
        };
        let connection = Arc::new(connection);
        let service = service_fn(|request| {
            let open = OpenRequest::new(&connection);
            let answer = self.service.answer(request, &client);
            async move {
                // The request is open until its response is written, or dropped.
                let reply = answer.await.map(|body| {
                    let body = body.map_frame(move |frame| {
                        let _ = &open;
                        frame
                    });
                    body.boxed_unsync()
                });
                Ok::<_, Infallible>(reply)
            }
        });
        let serving = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEADER_TIMEOUT)
            .max_headers(MAX_HEADERS)
            .max_buf_size(MAX_HEAD)
            .serve_connection(TokioIo::new(stream), service);
        let mut serving = pin!(serving);
        let served = tokio::select! {
            served = &mut serving => served,
            () = sleep(LIFE) => {
                serving.as_mut().graceful_shutdown();
                timeout(LAST_REQUEST, serving).await.unwrap_or(Ok(()))
            }
        };
        if let Err(error) = served {
            tracing::debug!(%error, %peer, port = self.name, "a connection failed");
        }
    }
}

/// A connection has a request while this is there.
struct OpenRequest(Arc<BoundedConnection>);

impl OpenRequest {
    fn new(connection: &Arc<BoundedConnection>) -> Self {
        connection.has_request(true);
        OpenRequest(Arc::clone(connection))
    }
}

impl Drop for OpenRequest {
    fn drop(&mut self) {
        self.0.has_request(false);
    }
}
