//! The webhook's HTTPS server: AdmissionReviews in, patches out.
//!
//! `/inject` is for pods of namespaces with the label `mesh.anyam.dev/inject: enabled`,
//! `/inject/opt-in` for pods of other namespaces, which are injected only if they have the label or
//! annotation themselves. The API server chooses by the selectors of the
//! MutatingWebhookConfiguration, so that no outdated copy of a namespace decides here.
//!
//! A pod's creation waits for the answer: nothing here makes a call, and connections are bounded in
//! number, size and time.

use std::convert::Infallible;
use std::error::Error;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Limited};
use hyper::body::{Body, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;

use super::review::{self, ReviewError};
use super::settings::MeshSettings;
use crate::api::connections::{BoundedConnection, BoundedConnections, Bounds};
use crate::api::reply::{self, Reply};
use crate::metrics::Metrics;

pub const ENABLED_PATH: &str = "/inject";
pub const OPT_IN_PATH: &str = "/inject/opt-in";

/// etcd takes objects of up to 1.5 MiB; a review contains the object once, and its own fields.
const MAX_BODY: usize = 3 << 20;
const MAX_HEAD: usize = 64 << 10;
const BOUNDS: Bounds = Bounds {
    connections: 256,
    // API servers are few and keep their connections.
    of_one_address: 64,
    bytes: 32 << 20,
};
/// Reviews that are processed at once: parsed JSON takes many times the memory of its text.
const AT_ONCE: usize = 2;
const HANDSHAKE: Duration = Duration::from_secs(3);
/// For the headers of a request to arrive; a connection that sends no request is closed after it.
const HEADER_TIMEOUT: Duration = Duration::from_secs(30);
/// For a body to arrive: the API server's own time-out.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);
/// The age at which a connection is closed, after its open request, which gets `LAST_REQUEST`.
const LIFE: Duration = Duration::from_secs(600);
const LAST_REQUEST: Duration = Duration::from_secs(30);
/// After an error such as "too many open files": trying at once would spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Answers AdmissionReviews.
pub struct Webhook {
    settings: MeshSettings,
    metrics: Arc<Metrics>,
    working: Semaphore,
}

impl Webhook {
    pub fn new(settings: MeshSettings, metrics: Arc<Metrics>) -> Self {
        Webhook {
            settings,
            metrics,
            working: Semaphore::new(AT_ONCE),
        }
    }

    /// Serves until `closing` turns true.
    pub async fn serve(
        self: Arc<Self>,
        listener: TcpListener,
        tls: TlsAcceptor,
        mut closing: watch::Receiver<bool>,
    ) {
        let connections = BoundedConnections::new(BOUNDS);
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                _ = closing.wait_for(|closing| *closing) => return,
            };
            let (tcp, peer) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, "accepting on the webhook's port failed");
                    sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            let (connection, closed) = connections.open(peer.ip());
            if closed {
                self.metrics.refused("webhook");
            }
            let id = connection.id();
            let (webhook, tls, mut closing) = (Arc::clone(&self), tls.clone(), closing.clone());
            let task = tokio::spawn(async move {
                tokio::select! {
                    () = webhook.connection(tcp, tls, connection) => {}
                    _ = closing.wait_for(|closing| *closing) => {}
                }
            });
            connections.started(id, task.abort_handle());
        }
    }

    async fn connection(
        self: Arc<Self>,
        tcp: TcpStream,
        tls: TlsAcceptor,
        connection: BoundedConnection,
    ) {
        // A peer that does not shake hands in time, or breaks the protocol, gets no response.
        let Ok(Ok(stream)) = timeout(HANDSHAKE, tls.accept(tcp)).await else {
            return;
        };
        let connection = Arc::new(connection);
        let service = service_fn(|request| {
            let (webhook, connection) = (Arc::clone(&self), Arc::clone(&connection));
            async move {
                connection.has_request(true);
                let reply = webhook.answer(request, &connection).await;
                // Held until the response is written or the next request arrives.
                let bytes = reply.body().size_hint().lower();
                webhook.hold(&connection, usize::try_from(bytes).unwrap_or(usize::MAX));
                connection.has_request(false);
                Ok::<_, Infallible>(reply)
            }
        });
        let serving = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEADER_TIMEOUT)
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
            tracing::debug!(%error, "webhook connection");
        }
    }

    async fn answer(&self, request: Request<Incoming>, connection: &BoundedConnection) -> Reply {
        let enabled = match request.uri().path() {
            ENABLED_PATH => true,
            OPT_IN_PATH => false,
            _ => {
                let hint = format!("POST an AdmissionReview to {ENABLED_PATH} or {OPT_IN_PATH}\n");
                return reply::bytes(StatusCode::NOT_FOUND, TEXT, hint);
            }
        };
        if request.method() != Method::POST {
            let hint = "POST an AdmissionReview\n";
            return reply::bytes(StatusCode::METHOD_NOT_ALLOWED, TEXT, hint);
        }
        let read = self.read(request.into_body(), connection);
        let body = match timeout(BODY_TIMEOUT, read).await {
            Ok(Ok(body)) => body,
            Ok(Err(error)) => {
                let why = format!("the body can't be read ({error}); {MAX_BODY} bytes at most\n");
                return reply::bytes(StatusCode::PAYLOAD_TOO_LARGE, TEXT, why);
            }
            Err(_) => {
                let why = format!("the body did not arrive within {BODY_TIMEOUT:?}\n");
                return reply::bytes(StatusCode::REQUEST_TIMEOUT, TEXT, why);
            }
        };
        // It is never closed.
        let _working = self.working.acquire().await;
        self.review(&body, enabled)
    }

    /// Records the bytes that a connection holds: of a body that arrives, or of a response that is
    /// sent.
    fn hold(&self, connection: &BoundedConnection, bytes: usize) {
        for _ in 0..connection.hold(bytes) {
            self.metrics.refused("webhook");
        }
    }

    async fn read(
        &self,
        body: Incoming,
        connection: &BoundedConnection,
    ) -> Result<Vec<u8>, Box<dyn Error + Send + Sync>> {
        let mut body = Limited::new(body, MAX_BODY);
        let mut all = Vec::new();
        while let Some(frame) = body.frame().await.transpose()? {
            if let Some(data) = frame.data_ref() {
                self.hold(connection, all.len().saturating_add(data.len()));
                all.extend_from_slice(data);
            }
        }
        Ok(all)
    }

    fn review(&self, body: &[u8], enabled: bool) -> Reply {
        match review::answer(body, enabled, &self.settings) {
            Ok((answer, outcome)) => {
                let counter = &self.metrics.injections;
                counter.with_label_values(&[outcome.label()]).inc();
                reply::json(&answer)
            }
            Err(error) => {
                self.metrics
                    .injections
                    .with_label_values(&["invalid"])
                    .inc();
                let status = match error {
                    ReviewError::TooManyValues => StatusCode::PAYLOAD_TOO_LARGE,
                    _ => StatusCode::BAD_REQUEST,
                };
                reply::bytes(status, TEXT, format!("{error}\n"))
            }
        }
    }
}

const TEXT: &str = "text/plain; charset=utf-8";

/// Binds the webhook's port.
///
/// # Errors
/// As `bind(2)`.
pub async fn bind(address: SocketAddr) -> io::Result<(TcpListener, SocketAddr)> {
    let listener = TcpListener::bind(address).await?;
    let bound = listener.local_addr()?;
    Ok((listener, bound))
}
