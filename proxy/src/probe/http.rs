//! HTTP GET as the kubelet sends it: any certificate is accepted, redirects within the host are
//! followed, and only the beginning of a body is read.

use std::sync::Arc;

use bytes::Bytes;
use http::header::{ACCEPT, CONNECTION, HOST, LOCATION, USER_AGENT};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;

use super::dial::Dialer;
use super::redirect::{RedirectTarget, next};
use super::settings::AppResource;
use crate::tls;

/// Redirects that are followed; Go's client has the same limit.
const MAX_REDIRECTS: usize = 10;
/// Apps recognise the kubelet's probes by the beginning of this.
pub(super) const AGENT: &str = "kube-probe/anyam";
const MAX_HEAD: usize = 64 << 10;

/// A response.
pub(super) struct AppResponse {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    /// The body, up to the requested length.
    pub(super) body: Vec<u8>,
    pub(super) is_whole: bool,
}

/// Requests a resource of the app and reads at most `most` bytes of its body.
///
/// # Errors
/// Why there is no response, as text.
pub(super) async fn get(
    dialer: Dialer,
    target: &AppResource,
    most: usize,
) -> Result<AppResponse, String> {
    let mut target = target.clone();
    for _ in 0..=MAX_REDIRECTS {
        let answer = once(dialer, &target, most).await?;
        let location = answer
            .headers
            .get(LOCATION)
            .filter(|_| is_redirect(answer.status));
        let Some(location) = location else {
            return Ok(answer);
        };
        let location = String::from_utf8_lossy(location.as_bytes());
        match next(&target, dialer.app, &location)? {
            RedirectTarget::Elsewhere => return Ok(answer),
            RedirectTarget::Follow(next) => target = next,
        }
    }
    Err(format!("stopped after {MAX_REDIRECTS} redirects"))
}

fn is_redirect(status: StatusCode) -> bool {
    [301, 302, 303, 307, 308].contains(&status.as_u16())
}

async fn once(dialer: Dialer, target: &AppResource, most: usize) -> Result<AppResponse, String> {
    let tcp = dialer.connect(target.port).await?;
    if !target.https {
        return over_http1(tcp, dialer, target, most).await;
    }
    let name = ServerName::IpAddress(dialer.app.into());
    let connector = TlsConnector::from(any_certificate().map_err(|error| error.to_string())?);
    let tls = connector.connect(name, tcp).await;
    let tls = tls.map_err(|error| format!("TLS to port {}: {error}", target.port))?;
    match tls.get_ref().1.alpn_protocol() {
        Some(b"h2") => over_http2(tls, dialer, target, most).await,
        _ => over_http1(tls, dialer, target, most).await,
    }
}

async fn over_http1<S>(
    io: S,
    dialer: Dialer,
    target: &AppResource,
    most: usize,
) -> Result<AppResponse, String>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let made = http1::Builder::new()
        .max_buf_size(MAX_HEAD)
        .handshake(TokioIo::new(io))
        .await;
    let (mut sender, connection) = made.map_err(|error| error.to_string())?;
    let mut request = request(dialer, target, target.path.as_str())?;
    let close = HeaderValue::from_static("close");
    request.headers_mut().insert(CONNECTION, close);
    let talk = async {
        let response = sender.send_request(request).await;
        read(response.map_err(|error| error.to_string())?, most).await
    };
    beside(connection, talk).await
}

async fn over_http2<S>(
    io: S,
    dialer: Dialer,
    target: &AppResource,
    most: usize,
) -> Result<AppResponse, String>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let made = http2::handshake(TokioExecutor::new(), TokioIo::new(io)).await;
    let (mut sender, connection) = made.map_err(|error| error.to_string())?;
    let authority = target.headers.get(HOST).and_then(|host| host.to_str().ok());
    let authority = authority.map_or_else(|| address(dialer, target), str::to_owned);
    let mut request = request(
        dialer,
        target,
        &format!("https://{authority}{}", target.path),
    )?;
    request.headers_mut().remove(HOST);
    let talk = async {
        let response = sender.send_request(request).await;
        read(response.map_err(|error| error.to_string())?, most).await
    };
    beside(connection, talk).await
}

/// Drives a connection while `talk` uses it, and no longer.
async fn beside<C, E>(
    connection: C,
    talk: impl Future<Output = Result<AppResponse, String>>,
) -> Result<AppResponse, String>
where
    C: Future<Output = Result<(), E>>,
{
    let mut talk = std::pin::pin!(talk);
    tokio::select! {
        biased;
        answer = &mut talk => answer,
        // The connection has ended; the rest of its response may still be buffered.
        _ = connection => talk.await,
    }
}

fn address(dialer: Dialer, target: &AppResource) -> String {
    std::net::SocketAddr::new(dialer.app, target.port).to_string()
}

fn request(
    dialer: Dialer,
    target: &AppResource,
    uri: &str,
) -> Result<Request<Empty<Bytes>>, String> {
    let uri: Uri = uri.parse().map_err(|error| format!("{uri:?}: {error}"))?;
    let mut request = Request::new(Empty::new());
    *request.uri_mut() = uri;
    let headers = request.headers_mut();
    *headers = target.headers.clone();
    for (name, default) in [(USER_AGENT, AGENT), (ACCEPT, "*/*")] {
        match headers.get(&name).map(HeaderValue::is_empty) {
            None => drop(headers.insert(name, HeaderValue::from_static(default))),
            // An empty value is how a pod removes the header.
            Some(true) => drop(headers.remove(name)),
            Some(false) => {}
        }
    }
    if !headers.contains_key(HOST) {
        let host = HeaderValue::from_str(&address(dialer, target));
        headers.insert(HOST, host.map_err(|error| error.to_string())?);
    }
    Ok(request)
}

async fn read(response: Response<Incoming>, most: usize) -> Result<AppResponse, String> {
    let (head, mut incoming) = response.into_parts();
    let mut body = Vec::new();
    let mut is_whole = true;
    while let Some(frame) = incoming.frame().await {
        let frame = frame.map_err(|error| format!("its answer broke off: {error}"))?;
        let data = frame.into_data().unwrap_or_default();
        let room = most.saturating_sub(body.len());
        match data.get(..room) {
            // The rest exceeds the limit.
            Some(first) if data.len() > room => {
                body.extend_from_slice(first);
                is_whole = false;
                break;
            }
            _ => body.extend_from_slice(&data),
        }
    }
    Ok(AppResponse {
        status: head.status,
        headers: head.headers,
        body,
        is_whole,
    })
}

fn any_certificate() -> Result<Arc<ClientConfig>, rustls::Error> {
    let mut config = ClientConfig::builder_with_provider(tls::provider().clone())
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyCertificate))
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// The kubelet verifies nothing either, because the app is in the same pod. Nor does a signature
/// prove anything, as any key is accepted.
#[derive(Debug)]
struct AnyCertificate;

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        tls::provider()
            .signature_verification_algorithms
            .supported_schemes()
    }
}
