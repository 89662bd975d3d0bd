//! Dialling an endpoint: TCP, then TLS where its transport says so.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::{TcpSocket, TcpStream};

use crate::config::cluster::Transport;
use crate::dispatcher::timer::Timers;
use crate::socket::{self, TcpOptions};
use crate::stream::Stream;
use crate::tls::{Dial, Handshaker, TlsError};
use crate::upstream::cluster::Cluster;
use crate::upstream::endpoint::Endpoint;

/// Begins the words for an attempt that the endpoint, or its machine, refused; Envoy's.
pub const DELAYED: &str = "delayed connect error: ";

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    #[error("no answer within {0:?}")]
    Timeout(Duration),
    #[error("{DELAYED}{}", without_number(.0))]
    Tcp(io::Error),
    #[error("{0}")]
    Tls(#[from] TlsError),
    /// Inside another connection.
    #[error("{0}")]
    Tunnel(Box<str>),
    /// Fails closed: no transport socket is configured for this endpoint.
    #[error("no transport_socket_match fits the endpoint's metadata")]
    NoTransport,
}

/// What dialling needs, on a worker or on the control thread: a runtime of one thread on which
/// [`Timers::drive`] runs.
#[derive(Clone)]
pub struct Dialler {
    pub timers: Timers,
    pub tls: Handshaker,
}

impl Dialler {
    /// Connects within the cluster's `connect_timeout`, TLS included.
    ///
    /// # Errors
    /// See [`ConnectError`].
    pub async fn connect(
        &self,
        cluster: &Cluster,
        endpoint: &Endpoint,
        dial: &Dial<'_>,
    ) -> Result<Stream, ConnectError> {
        let limit = cluster.connect_timeout;
        let connecting = self.connect_at(cluster, endpoint, endpoint.address, dial);
        let connected = self.timers.timeout(limit, connecting).await;
        connected.unwrap_or(Err(ConnectError::Timeout(limit)))
    }

    /// Connects at `address` as to the endpoint; the caller bounds how long that takes.
    ///
    /// # Errors
    /// See [`ConnectError`].
    pub async fn connect_at(
        &self,
        cluster: &Cluster,
        endpoint: &Endpoint,
        address: SocketAddr,
        dial: &Dial<'_>,
    ) -> Result<Stream, ConnectError> {
        let transport = cluster
            .transport_of(endpoint)
            .ok_or(ConnectError::NoTransport)?;
        let tcp = tcp(cluster, address).await?;
        match transport {
            Transport::RawBuffer => Ok(Stream::from(tcp)),
            Transport::Tls(context) => {
                let tls = self.tls.connect(tcp, context, dial).await?;
                Ok(Stream::from(tls))
            }
        }
    }
}

/// The words for an error of the operating system, without its number.
fn without_number(error: &io::Error) -> String {
    let words = error.to_string();
    match words.split_once(" (os error ") {
        Some((words, _)) => words.to_owned(),
        None => words,
    }
}

async fn tcp(cluster: &Cluster, address: SocketAddr) -> Result<TcpStream, ConnectError> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4(),
        SocketAddr::V6(_) => TcpSocket::new_v6(),
    };
    let socket = socket.map_err(ConnectError::Tcp)?;
    if let Some(source) = cluster.bind_source.towards(address.ip()) {
        let local = SocketAddr::new(source, 0);
        socket.bind(local).map_err(ConnectError::Tcp)?;
    }
    let tcp = socket.connect(address).await.map_err(ConnectError::Tcp)?;
    let options = TcpOptions {
        keepalive: cluster.keepalive.map(|keepalive| socket::KeepaliveOptions {
            time: keepalive.time,
            interval: keepalive.interval,
            probes: keepalive.probes,
        }),
        user_timeout: None,
    };
    socket::prepare(&tcp, &options).map_err(ConnectError::Tcp)?;
    Ok(tcp)
}
