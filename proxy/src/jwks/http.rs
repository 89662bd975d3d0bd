//! One request for a key set.

use std::net::SocketAddr;

use bytes::Bytes;
use http::{Request, StatusCode, Version};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpSocket, TcpStream};

use crate::config::cluster::{Transport, UpstreamProtocol};
use crate::jwt::jwks::LARGEST;
use crate::jwt::remote::RemoteSettings;
use crate::snapshot::Store;
use crate::tls::{ClientContext, TlsError};
use crate::upstream::cluster::{Cluster, PickFor};
use crate::upstream::endpoint::Endpoint;

/// Bytes of a response's head.
const MAX_HEAD: usize = 64 << 10;

type JwksBody = Result<Bytes, String>;

/// The body of the answer.
///
/// # Errors
/// Why there is none, in words.
pub async fn get(settings: &RemoteSettings, store: &Store) -> JwksBody {
    let cluster = store.borrow().clusters.get(&*settings.cluster).cloned();
    let cluster = cluster.ok_or_else(|| format!("there is no cluster {:?}", settings.cluster))?;
    let picked = cluster.pick(PickFor::default(), &mut fastrand::Rng::new());
    let endpoint = picked.map_err(|error| error.to_string())?.endpoint;
    let tcp = tcp(&cluster, endpoint.address);
    let tcp = tokio::time::timeout(cluster.connect_timeout, tcp).await;
    let tcp = tcp.map_err(|_| format!("{}: no connection in time", endpoint.address))?;
    let tcp = tcp.map_err(|error| format!("{}: {error}", endpoint.address))?;
    match transport(&cluster, &endpoint)? {
        Transport::RawBuffer => {
            let is_h2 = cluster.protocol == UpstreamProtocol::Http2;
            ask(tcp, is_h2, settings).await
        }
        Transport::Tls(context) => {
            let tls = tls(tcp, context, cluster.protocol, endpoint.address).await?;
            let is_h2 = tls.get_ref().1.alpn_protocol() == Some(b"h2");
            ask(
                tls,
                is_h2 || cluster.protocol == UpstreamProtocol::Http2,
                settings,
            )
            .await
        }
    }
}

/// # Errors
/// When there is none for the endpoint, or it takes tunnels only.
fn transport<'c>(cluster: &'c Cluster, endpoint: &Endpoint) -> Result<&'c Transport, String> {
    if cluster.tunnel_to(endpoint).is_some() {
        return Err(format!("{} is reached by a tunnel", endpoint.address));
    }
    let none = || format!("no transport_socket_match fits {}", endpoint.address);
    cluster.transport_of(endpoint).ok_or_else(none)
}

async fn tcp(cluster: &Cluster, address: SocketAddr) -> std::io::Result<TcpStream> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4(),
        SocketAddr::V6(_) => TcpSocket::new_v6(),
    }?;
    if let Some(source) = cluster.bind_source.towards(address.ip()) {
        socket.bind(SocketAddr::new(source, 0))?;
    }
    let tcp = socket.connect(address).await?;
    tcp.set_nodelay(true)?;
    Ok(tcp)
}

async fn tls(
    tcp: TcpStream,
    context: &ClientContext,
    protocol: UpstreamProtocol,
    address: SocketAddr,
) -> Result<tokio_rustls::client::TlsStream<TcpStream>, String> {
    let name = match &context.options().sni {
        Some(sni) => ServerName::try_from(sni.to_string())
            .map_err(|_| format!("{sni:?} is not a server name"))?,
        None => ServerName::IpAddress(address.ip().into()),
    };
    let config = context.rustls_config().map_err(|error| error.to_string())?;
    let mut config = (*config).clone();
    let wanted = |alpn: &Vec<u8>| match protocol {
        UpstreamProtocol::Http1 => *alpn == b"http/1.1",
        UpstreamProtocol::Http2 => *alpn == b"h2",
        UpstreamProtocol::Auto | UpstreamProtocol::Downstream => {
            *alpn == b"h2" || *alpn == b"http/1.1"
        }
    };
    config.alpn_protocols.retain(wanted);
    let connector = tokio_rustls::TlsConnector::from(std::sync::Arc::new(config));
    let tls = connector.connect(name, tcp).await;
    tls.map_err(|error| format!("TLS to {address}: {}", TlsError::of_connector(error)))
}

async fn ask<S>(io: S, is_h2: bool, settings: &RemoteSettings) -> JwksBody
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let failed = |error: hyper::Error| error.to_string();
    let io = TokioIo::new(io);
    let request = request(settings, is_h2)?;
    if is_h2 {
        let made = http2::handshake(TokioExecutor::new(), io).await;
        let (mut sender, connection) = made.map_err(failed)?;
        return beside(connection, async {
            read(sender.send_request(request).await.map_err(failed)?).await
        })
        .await;
    }
    let made = http1::Builder::new()
        .max_buf_size(MAX_HEAD)
        .handshake(io)
        .await;
    let (mut sender, connection) = made.map_err(failed)?;
    beside(connection, async {
        read(sender.send_request(request).await.map_err(failed)?).await
    })
    .await
}

/// Drives a connection while `talk` uses it, and no longer.
async fn beside<C, E>(connection: C, talk: impl Future<Output = JwksBody>) -> JwksBody
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

fn request(settings: &RemoteSettings, is_h2: bool) -> Result<Request<Empty<Bytes>>, String> {
    let RemoteSettings {
        scheme,
        authority,
        path,
        ..
    } = settings;
    let made = match is_h2 {
        true => Request::get(format!("{scheme}://{authority}{path}")).version(Version::HTTP_2),
        false => Request::get(&**path).header(http::header::HOST, &**authority),
    };
    made.body(Empty::new()).map_err(|error| error.to_string())
}

async fn read(response: http::Response<Incoming>) -> JwksBody {
    let status = response.status();
    if status != StatusCode::OK {
        return Err(format!("the answer is {status}"));
    }
    let body = Limited::new(response.into_body(), LARGEST).collect().await;
    let body = body.map_err(|error| format!("its body: {error}"))?;
    Ok(body.to_bytes())
}
