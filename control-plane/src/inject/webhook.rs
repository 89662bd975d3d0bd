//! The webhook's HTTPS server: AdmissionReviews in, patches out.
//!
//! `/inject` is for pods of namespaces with the label `mesh.anyam.dev/inject: enabled`,
//! `/inject/opt-in` for pods of other namespaces, which are injected only if they have the label or
//! annotation themselves. The API server chooses by the selectors of the
//! MutatingWebhookConfiguration, so that no outdated copy of a namespace decides here.
//!
//! A pod's creation waits for the answer: nothing here makes a call, and connections are bounded in
//! number, size and time.

use std::collections::HashMap;
use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio_rustls::TlsAcceptor;

use super::review;
use super::settings::MeshSettings;
use crate::api::reply::{self, Reply};
use crate::metrics::Metrics;

pub const ENABLED_PATH: &str = "/inject";
pub const OPT_IN_PATH: &str = "/inject/opt-in";

/// etcd takes objects of 1.5 MiB; a review has one object and some fields around it.
const MAX_BODY: usize = 4 << 20;
const MAX_HEAD: usize = 64 << 10;
const MAX_CONNECTIONS: usize = 256;
/// API servers are few and keep their connections.
const MAX_CONNECTIONS_OF_ADDRESS: usize = 64;
const HANDSHAKE: Duration = Duration::from_secs(3);
/// For a head to arrive; a connection that sends no request is closed after it.
const HEADER_TIMEOUT: Duration = Duration::from_secs(30);
/// For a body to arrive: as long as the API server waits.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);
/// After an error such as "too many open files": trying at once would spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Answers AdmissionReviews.
pub struct Webhook {
    settings: MeshSettings,
    metrics: Arc<Metrics>,
}

impl Webhook {
    pub fn new(settings: MeshSettings, metrics: Arc<Metrics>) -> Self {
        Webhook { settings, metrics }
    }

    /// Serves until `closing` turns true.
    pub async fn serve(
        self: Arc<Self>,
        listener: TcpListener,
        tls: TlsAcceptor,
        mut closing: watch::Receiver<bool>,
    ) {
        let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        let places = Arc::new(PeerConnections::default());
        loop {
            let Ok(slot) = Arc::clone(&slots).acquire_owned().await else {
                return;
            };
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                _ = closing.wait_for(|closing| *closing) => return,
            };
            let (tcp, peer) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, "accepting on the webhook's port failed");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            let Some(place) = places.take(peer.ip()) else {
                self.metrics.refused("webhook");
                continue;
            };
            let (webhook, tls, mut closing) = (Arc::clone(&self), tls.clone(), closing.clone());
            tokio::spawn(async move {
                tokio::select! {
                    () = webhook.connection(tcp, tls) => {}
                    _ = closing.wait_for(|closing| *closing) => {}
                }
                drop((slot, place));
            });
        }
    }

    async fn connection(self: Arc<Self>, tcp: TcpStream, tls: TlsAcceptor) {
        // A peer that does not finish its handshake in time, or breaks the protocol, gets no
        // response.
        let Ok(Ok(stream)) = tokio::time::timeout(HANDSHAKE, tls.accept(tcp)).await else {
            return;
        };
        let service = service_fn(|request| {
            let webhook = Arc::clone(&self);
            async move { Ok::<_, Infallible>(webhook.answer(request).await) }
        });
        let served = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEADER_TIMEOUT)
            .max_buf_size(MAX_HEAD)
            .serve_connection(TokioIo::new(stream), service)
            .await;
        if let Err(error) = served {
            tracing::debug!(%error, "webhook connection");
        }
    }

    async fn answer(&self, request: Request<Incoming>) -> Reply {
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
        let read = Limited::new(request.into_body(), MAX_BODY).collect();
        let body = match tokio::time::timeout(BODY_TIMEOUT, read).await {
            Ok(Ok(body)) => body.to_bytes(),
            Ok(Err(error)) => {
                let why = format!("the body can't be read ({error}); {MAX_BODY} bytes at most\n");
                return reply::bytes(StatusCode::PAYLOAD_TOO_LARGE, TEXT, why);
            }
            Err(_) => {
                let why = format!("the body did not arrive within {BODY_TIMEOUT:?}\n");
                return reply::bytes(StatusCode::REQUEST_TIMEOUT, TEXT, why);
            }
        };
        match review::answer(&body, enabled, &self.settings) {
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
                reply::bytes(StatusCode::BAD_REQUEST, TEXT, format!("{error}\n"))
            }
        }
    }
}

const TEXT: &str = "text/plain; charset=utf-8";

/// Connections by address.
#[derive(Default)]
struct PeerConnections(Mutex<HashMap<IpAddr, usize>>);

/// A connection of an address; given back when dropped.
struct PeerConnection {
    of: Arc<PeerConnections>,
    address: IpAddr,
}

impl PeerConnections {
    /// `None`: the address has as many connections as it may have.
    fn take(self: &Arc<Self>, address: IpAddr) -> Option<PeerConnection> {
        let address = address.to_canonical();
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let open = all.entry(address).or_default();
        if *open >= MAX_CONNECTIONS_OF_ADDRESS {
            return None;
        }
        *open += 1;
        let of = Arc::clone(self);
        Some(PeerConnection { of, address })
    }
}

impl Drop for PeerConnection {
    fn drop(&mut self) {
        let mut all = self.of.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(open) = all.get_mut(&self.address) {
            *open -= 1;
            if *open == 0 {
                all.remove(&self.address);
            }
        }
    }
}

/// Binds the webhook's port.
///
/// # Errors
/// As `bind(2)`.
pub async fn bind(address: SocketAddr) -> io::Result<(TcpListener, SocketAddr)> {
    let listener = TcpListener::bind(address).await?;
    let bound = listener.local_addr()?;
    Ok((listener, bound))
}
