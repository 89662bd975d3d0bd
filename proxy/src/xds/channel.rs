//! gRPC channels to the control plane: our own connector (TCP, TLS) under tonic.
//!
//! Where to connect and how comes from a cluster of the bootstrap. The TLS configuration is read
//! anew for each connection, so that a renewed certificate is used from the next one on.

use std::fmt;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tonic::transport::{Channel, Endpoint, Uri};

use crate::config::cluster::{Discovery, Transport};
use crate::tls::TlsError;
use crate::upstream::cluster::Cluster;

/// The longest TCP, TLS and HTTP/2 set-up may take.
const CONNECT: Duration = Duration::from_secs(10);
/// A silent peer is probed after this, and given up after [`KEEPALIVE_TIMEOUT`] more.
const KEEPALIVE: Duration = Duration::from_secs(30);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);

/// Why there is no channel.
#[derive(Debug, thiserror::Error)]
pub enum ChannelError {
    #[error("cluster {cluster:?} has no address")]
    NoAddress { cluster: String },
    #[error("cannot resolve {host}: {error}")]
    Resolve { host: String, error: std::io::Error },
    #[error("cannot connect to {address}: {error}")]
    Connect {
        address: SocketAddr,
        error: std::io::Error,
    },
    #[error("TLS to {address}: {why}")]
    Tls { address: SocketAddr, why: String },
    #[error("cluster {cluster:?}: {why}")]
    NotReady { cluster: String, why: String },
    #[error("HTTP/2 to {authority}: {error}")]
    Http2 {
        authority: String,
        error: tonic::transport::Error,
    },
    #[error("no connection within {} s", CONNECT.as_secs())]
    Timeout,
}

/// TLS settings for one connection.
pub struct TlsSettings {
    pub config: Arc<rustls::ClientConfig>,
    pub server_name: ServerName<'static>,
}

type TlsSource = Arc<dyn Fn() -> Result<TlsSettings, String> + Send + Sync>;

/// Where the control plane is and how to talk to it.
#[derive(Clone)]
pub struct ManagementServer {
    cluster: String,
    hosts: Vec<(String, u16)>,
    /// The name its certificate is checked for.
    server_name: String,
    /// `None`: in the clear.
    tls: Option<TlsSource>,
}

impl fmt::Debug for ManagementServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ManagementServer")
            .field("cluster", &self.cluster)
            .field("hosts", &self.hosts)
            .field("tls", &self.tls.is_some())
            .finish()
    }
}

impl ManagementServer {
    /// From a cluster of the bootstrap.
    pub fn from_cluster(cluster: &Cluster) -> Self {
        let hosts = match &cluster.discovery {
            Discovery::Dns { hosts, .. } => hosts
                .iter()
                .map(|host| (host.host.to_string(), host.port))
                .collect(),
            _ => endpoint_hosts(cluster),
        };
        let tls = cluster.transport.iter().find_map(|t| match &t.transport {
            Transport::Tls(context) => Some(context.clone()),
            Transport::RawBuffer => None,
        });
        let sni = tls
            .as_ref()
            .and_then(|context| context.options().sni.as_deref());
        let first_host = hosts.first().map(|(host, _)| host.as_str());
        let name = sni.or(first_host).unwrap_or_default().to_owned();
        let server_name = name.clone();
        let tls = tls.map(|context| -> TlsSource {
            Arc::new(move || {
                let server_name = ServerName::try_from(name.clone())
                    .map_err(|_| format!("{name:?} is not a server name"))?;
                let config = context.rustls_config().map_err(|e| e.to_string())?;
                let mut config = (*config).clone();
                // gRPC uses HTTP/2, whatever ALPN the context has for the data path.
                config.alpn_protocols = vec![b"h2".to_vec()];
                Ok(TlsSettings {
                    config: Arc::new(config),
                    server_name,
                })
            })
        });
        ManagementServer {
            cluster: cluster.name.to_string(),
            hosts,
            server_name,
            tls,
        }
    }

    /// One place, in the clear.
    #[cfg(test)]
    pub fn plain(cluster: &str, host: &str, port: u16) -> Self {
        ManagementServer {
            cluster: cluster.to_owned(),
            hosts: vec![(host.to_owned(), port)],
            server_name: host.to_owned(),
            tls: None,
        }
    }

    /// The same place with other TLS settings.
    #[must_use]
    pub fn with_tls(
        &self,
        tls: impl Fn() -> Result<TlsSettings, String> + Send + Sync + 'static,
    ) -> Self {
        ManagementServer {
            tls: Some(Arc::new(tls)),
            ..self.clone()
        }
    }

    /// The name the server's certificate is checked for: the cluster's SNI, else its host.
    pub fn server_name(&self) -> &str {
        &self.server_name
    }

    pub fn uses_tls(&self) -> bool {
        self.tls.is_some()
    }

    /// Opens a channel, which exists as long as its connection.
    ///
    /// # Errors
    /// See [`ChannelError`]; of several addresses the last one's.
    pub async fn connect(&self) -> Result<Channel, ChannelError> {
        tokio::time::timeout(CONNECT, self.connect_any())
            .await
            .unwrap_or(Err(ChannelError::Timeout))
    }

    async fn connect_any(&self) -> Result<Channel, ChannelError> {
        let mut last = ChannelError::NoAddress {
            cluster: self.cluster.clone(),
        };
        let start = fastrand::usize(..self.hosts.len().max(1));
        let hosts = self.hosts.iter().cycle().skip(start);
        for (host, port) in hosts.take(self.hosts.len()) {
            let addresses = match tokio::net::lookup_host((host.as_str(), *port)).await {
                Ok(addresses) => addresses,
                Err(error) => {
                    let host = host.clone();
                    last = ChannelError::Resolve { host, error };
                    continue;
                }
            };
            for address in addresses {
                match self.connect_to(host, address).await {
                    Ok(channel) => return Ok(channel),
                    Err(error) => last = error,
                }
            }
        }
        Err(last)
    }

    async fn connect_to(&self, host: &str, address: SocketAddr) -> Result<Channel, ChannelError> {
        let tcp = TcpStream::connect(address)
            .await
            .and_then(|tcp| tcp.set_nodelay(true).map(|()| tcp))
            .map_err(|error| ChannelError::Connect { address, error })?;
        let io: Box<dyn AsyncIo> = match &self.tls {
            None => Box::new(tcp),
            Some(source) => {
                let settings = source().map_err(|why| ChannelError::NotReady {
                    cluster: self.cluster.clone(),
                    why,
                })?;
                let connector = tokio_rustls::TlsConnector::from(settings.config);
                let tls = connector.connect(settings.server_name, tcp).await;
                Box::new(tls.map_err(|error| ChannelError::Tls {
                    address,
                    why: TlsError::of_connector(error).to_string(),
                })?)
            }
        };
        let authority = match host.contains(':') {
            true => format!("[{host}]:{}", address.port()),
            false => format!("{host}:{}", address.port()),
        };
        self.http2(io, &authority).await
    }

    async fn http2(&self, io: Box<dyn AsyncIo>, authority: &str) -> Result<Channel, ChannelError> {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        let failed = |error| ChannelError::Http2 {
            authority: authority.to_owned(),
            error,
        };
        let endpoint = Endpoint::from_shared(format!("{scheme}://{authority}"))
            .map_err(failed)?
            .http2_keep_alive_interval(KEEPALIVE)
            .keep_alive_timeout(KEEPALIVE_TIMEOUT)
            .keep_alive_while_idle(true);
        endpoint
            .connect_with_connector(Once(Some(io)))
            .await
            .map_err(failed)
    }
}

fn endpoint_hosts(cluster: &Cluster) -> Vec<(String, u16)> {
    let set = cluster.endpoints.load();
    set.priorities
        .iter()
        .flat_map(|priority| &priority.endpoints)
        .map(|endpoint| (endpoint.address.ip().to_string(), endpoint.address.port()))
        .collect()
}

trait AsyncIo: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> AsyncIo for T {}

/// A connector that returns the one open connection; when it closes, the channel fails, and its
/// user reconnects with its own back-off.
struct Once(Option<Box<dyn AsyncIo>>);

impl tower::Service<Uri> for Once {
    type Response = TokioIo<Box<dyn AsyncIo>>;
    type Error = std::io::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(
        &mut self,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Result<(), Self::Error>> {
        std::task::Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let io = self.0.take().map(TokioIo::new);
        Box::pin(async move { io.ok_or_else(|| std::io::ErrorKind::NotConnected.into()) })
    }
}
