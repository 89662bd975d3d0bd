//! Connections of health checks: dialled as the cluster's own are, through its transport, and kept
//! for the next check.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::BytesMut;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::config::cluster::Transport;
use crate::config::health::HealthCheck;
use crate::config::http::Http2Options;
use crate::dispatcher::buffer::Pool;
use crate::hbone::Connect;
use crate::http::connection::io::Io;
use crate::http::forward::upstream::H1Client;
use crate::http::h1::{ClientConn, HeadLimits, Spelling};
use crate::http::h2::{self, Connected, HeadBounds};
use crate::http::pool::ConnectionSlot;
use crate::http::pool::host::{about, is_h2};
use crate::http::request::error::Failure;
use crate::message::head::Version;
use crate::stream::Stream;
use crate::tcp::dial::TCP_ALPN;
use crate::tls::Dial;
use crate::upstream::cluster::Cluster;
use crate::upstream::connect::{ConnectError, Dialler};
use crate::upstream::endpoint::Endpoint;

/// Receive windows of an HTTP/2 connection for checks: its answers are short.
const WINDOW: u32 = 65_535;

/// What a check speaks on its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CheckCodec {
    Http1,
    Http2,
    Raw,
}

/// A connection to a host that is checked.
pub enum CheckConnection {
    Http1(Box<H1Client>),
    Http2(Connected),
    Raw(Stream),
}

/// One that waits for the next check.
pub struct KeptConnection {
    pub connection: CheckConnection,
    _place: OwnedSemaphorePermit,
}

/// Why there is no connection, in words for the debug log.
pub type DialError = Box<str>;

/// What dialling needs besides the host.
#[derive(Clone)]
pub struct CheckDialler {
    pub dialler: Dialler,
    pub buffers: Pool,
    /// Places of connections that are kept.
    pub places: Arc<Semaphore>,
}

impl CheckConnection {
    /// Keeps the connection, if there is a place for it.
    pub fn keep(self, places: &Arc<Semaphore>) -> Option<KeptConnection> {
        let place = places.clone().try_acquire_owned().ok()?;
        Some(KeptConnection {
            connection: self,
            _place: place,
        })
    }
}

impl KeptConnection {
    /// Waits until the connection is of no more use: it ended, or its peer sent what was not asked
    /// for. True: the host ended it.
    pub async fn ended(&mut self) -> bool {
        poll_fn(|cx| self.poll_ended(cx)).await
    }

    fn poll_ended(&mut self, cx: &mut Context<'_>) -> Poll<bool> {
        match &mut self.connection {
            CheckConnection::Http1(client) => client
                .io
                .poll_fill(cx)
                .map(|filled| !matches!(filled, Ok(1..))),
            // Its own task reads it; whether it has ended is looked at before the next check.
            CheckConnection::Http2(_) => Poll::Pending,
            CheckConnection::Raw(stream) => {
                let mut byte = [0];
                let mut read = tokio::io::ReadBuf::new(&mut byte);
                let polled =
                    tokio::io::AsyncRead::poll_read(std::pin::Pin::new(stream), cx, &mut read);
                polled.map(|done| done.is_err() || read.filled().is_empty())
            }
        }
    }
}

impl CheckDialler {
    /// A connection that speaks `codec`. The caller bounds how long that takes.
    ///
    /// # Errors
    /// Why there is none.
    pub async fn connect(
        &self,
        cluster: &Cluster,
        endpoint: &Endpoint,
        config: &HealthCheck,
        codec: CheckCodec,
    ) -> Result<CheckConnection, DialError> {
        let target = target(cluster, endpoint, config);
        let stream = self.stream(cluster, &target, config, codec).await;
        let stream = stream.map_err(|error| error.to_string())?;
        match codec {
            CheckCodec::Http1 => {
                let client = self.http1(cluster, stream);
                Ok(CheckConnection::Http1(Box::new(client)))
            }
            CheckCodec::Http2 => {
                let connected = self.http2(cluster, stream).await;
                Ok(CheckConnection::Http2(connected.map_err(words)?))
            }
            CheckCodec::Raw => Ok(CheckConnection::Raw(stream)),
        }
    }

    async fn stream(
        &self,
        cluster: &Cluster,
        target: &Endpoint,
        config: &HealthCheck,
        codec: CheckCodec,
    ) -> Result<Stream, ConnectError> {
        if let Some(port) = cluster.tunnel_to(target) {
            return self.tunnel(cluster, target, port, codec).await;
        }
        let alpn = match &config.alpn {
            Some(configured) => Some(configured.clone()),
            None => offer(cluster, target, codec),
        };
        let dial = Dial {
            sni: None,
            alpn: alpn.as_deref(),
        };
        let dialling = self
            .dialler
            .connect_at(cluster, target, target.address, &dial);
        dialling.await
    }

    /// A connection inside one of its own to the endpoint's tunnel port.
    async fn tunnel(
        &self,
        cluster: &Cluster,
        target: &Endpoint,
        port: u16,
        codec: CheckCodec,
    ) -> Result<Stream, ConnectError> {
        let address = SocketAddr::new(target.address.ip(), port);
        let alpn = offer(cluster, target, CheckCodec::Http2);
        let dial = Dial {
            sni: None,
            alpn: alpn.as_deref(),
        };
        let carrier = self.dialler.connect_at(cluster, target, address, &dial);
        let carrier = self.http2(cluster, carrier.await?).await;
        let carrier = carrier.map_err(|failure| ConnectError::Tunnel(words(failure)))?;
        let connect = Connect {
            authority: target.address.to_string().into_bytes(),
            alpn: (codec == CheckCodec::Raw).then_some(TCP_ALPN),
            headers: Vec::new(),
        };
        let tunnel = carrier.tunnel(&connect, &self.buffers).await;
        let tunnel = tunnel.map_err(|failure| ConnectError::Tunnel(words(failure)))?;
        Ok(Stream::from(tunnel))
    }

    fn http1(&self, cluster: &Cluster, stream: Stream) -> H1Client {
        let about = about(&stream, Version::Http11);
        let limits = HeadLimits {
            head_bytes: cluster.max_response_headers_bytes,
            fields: cluster.max_response_headers_count,
        };
        let spelling = Spelling {
            preserve_case: cluster.http1.preserve_case,
            // It is not read.
            forward_reason: false,
        };
        let io = Io::new(stream, BytesMut::new(), self.buffers.clone());
        let codec = ClientConn::new(limits, spelling);
        H1Client::new(io, codec, about, ConnectionSlot::uncounted())
    }

    async fn http2(&self, cluster: &Cluster, stream: Stream) -> Result<Connected, Failure> {
        let about = about(&stream, Version::Http2);
        let options = Http2Options {
            initial_stream_window: WINDOW,
            initial_connection_window: WINDOW,
            ..cluster.http2
        };
        let bounds = HeadBounds {
            bytes: cluster.max_response_headers_bytes,
            fields: cluster.max_response_headers_count,
        };
        let (timers, floods) = (&self.dialler.timers, &cluster.metrics.http2_floods);
        h2::handshake(stream, about, &options, bounds, timers, floods, || {}).await
    }
}

/// The host as it is checked: another address, port or transport may be configured for that.
fn target(cluster: &Cluster, endpoint: &Endpoint, config: &HealthCheck) -> Endpoint {
    Endpoint {
        transport: match &config.transport_metadata {
            Some(metadata) => cluster.transport_for(metadata),
            None => endpoint.transport,
        },
        tunnel_port: endpoint.tunnel_port,
        ..Endpoint::at(endpoint.check_address())
    }
}

/// Of the protocols that the transport offers by ALPN, those that fit the codec, as for requests;
/// `None`: as they are.
fn offer(cluster: &Cluster, target: &Endpoint, codec: CheckCodec) -> Option<Vec<Vec<u8>>> {
    let Some(Transport::Tls(context)) = cluster.transport_of(target) else {
        return None;
    };
    let all = &context.options().alpn;
    let wants_h2 = match codec {
        CheckCodec::Http1 => false,
        CheckCodec::Http2 => true,
        // As of the TCP proxy.
        CheckCodec::Raw => {
            let of_mesh = all.iter().any(|name| name.starts_with(b"anyam-"));
            return of_mesh.then(|| vec![TCP_ALPN.into()]);
        }
    };
    let fits = |name: &&Vec<u8>| is_h2(name) == wants_h2;
    match all.iter().all(|name| fits(&name)) {
        true => None,
        false => Some(all.iter().filter(fits).cloned().collect()),
    }
}

fn words(failure: Failure) -> Box<str> {
    match failure {
        Failure::Connect(why) | Failure::Protocol(why) => why,
        _ => "the connection ended before it could be used".into(),
    }
}
