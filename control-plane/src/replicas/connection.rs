//! One request to one replica, over a connection of its own.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::HOST;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use crate::api::replicas::MAX_ANSWER;
use crate::api::reply::Problem;
use crate::ca::{Identity, VerifiedPeer};
use crate::types::ApiError;

/// In the certificate of each replica.
const SERVER_NAME: &str = "anyam-control";

/// By which replicas are asked.
#[derive(Clone)]
pub struct ReplicaConnector {
    pub tls: Arc<ClientConfig>,
    /// What each has to show.
    pub identity: Identity,
    /// From connecting to the head of the response, in addition to what the request itself takes.
    pub within: Duration,
}

impl ReplicaConnector {
    /// `takes`: how long the replica may work on it.
    ///
    /// # Errors
    /// Why there is no response, in words.
    pub async fn send(
        &self,
        address: SocketAddr,
        request: Request<Full<Bytes>>,
        takes: Duration,
    ) -> Result<Response<Incoming>, String> {
        let limit = self.within.saturating_add(takes);
        let connected = timeout(self.within, self.connect(address)).await;
        let late = |limit: Duration| format!("no answer within {} s", limit.as_secs());
        let stream = connected.map_err(|_| late(self.within))??;
        let response = timeout(limit, exchange(stream, request)).await;
        response.map_err(|_| late(limit))?
    }

    async fn connect(
        &self,
        address: SocketAddr,
    ) -> Result<tokio_rustls::client::TlsStream<TcpStream>, String> {
        let tcp = TcpStream::connect(address).await;
        let tcp = tcp.map_err(|error| format!("{address}: {error}"))?;
        let name = ServerName::try_from(SERVER_NAME).map_err(|error| error.to_string())?;
        let tls = TlsConnector::from(Arc::clone(&self.tls));
        let stream = tls.connect(name, tcp).await;
        let stream = stream.map_err(|error| format!("{address}: {error}"))?;
        let shown = stream.get_ref().1.peer_certificates();
        match is_control_plane(shown.and_then(<[_]>::first), &self.identity) {
            Ok(()) => Ok(stream),
            Err(why) => Err(format!("{address}: {why}")),
        }
    }
}

/// Whether a certificate that TLS has verified is of a replica.
///
/// # Errors
/// Why it is not.
pub fn is_control_plane(
    certificate: Option<&rustls_pki_types::CertificateDer<'_>>,
    identity: &Identity,
) -> Result<(), String> {
    let certificate = certificate.ok_or("it shows no certificate")?;
    let peer = VerifiedPeer::from_certificate(certificate)?;
    match peer.identity == *identity {
        true => Ok(()),
        false => Err(format!(
            "it is {}, and not a replica of the control plane",
            peer.identity
        )),
    }
}

async fn exchange(
    stream: tokio_rustls::client::TlsStream<TcpStream>,
    mut request: Request<Full<Bytes>>,
) -> Result<Response<Incoming>, String> {
    let host = http::HeaderValue::from_static(SERVER_NAME);
    request.headers_mut().insert(HOST, host);
    let shaken = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
    let (mut sender, connection) = shaken.map_err(|error| error.to_string())?;
    // It ends with the response, or when that is dropped.
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "a connection to another replica");
        }
    });
    let response = sender.send_request(request).await;
    response.map_err(|error| error.to_string())
}

/// The whole body of a response.
///
/// # Errors
/// When it is too large, or breaks off.
pub async fn whole(response: Response<Incoming>) -> Result<Bytes, String> {
    let read = Limited::new(response.into_body(), MAX_ANSWER)
        .collect()
        .await;
    let read = read.map_err(|error| error.to_string())?;
    Ok(read.to_bytes())
}

/// The error that a replica has answered, as far as it is known `within` this time.
pub async fn problem(response: Response<Incoming>, within: Duration) -> Problem {
    let status = response.status();
    let body = timeout(within, whole(response)).await;
    let body = body.ok().and_then(Result::ok).unwrap_or_default();
    match serde_json::from_slice(&body) {
        Ok(ApiError {
            what,
            location,
            todo,
        }) => Problem::new(status, what, location, todo),
        Err(_) => Problem::new(
            StatusCode::BAD_GATEWAY,
            format!("another replica answered {status}"),
            "replicas of the control plane",
            "see its log; replicas of different versions differ while an upgrade rolls out",
        ),
    }
}
