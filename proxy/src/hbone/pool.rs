//! HTTP/2 connections that carry tunnels.
//!
//! They take no permits of the listener's limit: each connection inside has its own, and there are
//! fewer of them.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use crate::bug;
use crate::config::cluster::Transport;
use crate::config::http::Http2Options;
use crate::hbone::Connect;
use crate::http::pool::Pools;
use crate::http::pool::host::{Dialling, HostPool, RETRY_INTERVAL, is_h2};
use crate::http::pool::shared::Shared;
use crate::http::request::error::Failure;
use crate::stream::tunnel::{FRAME, TunnelStream};
use crate::tls::Dial;
use crate::upstream::cluster::Cluster;
use crate::upstream::connect::ConnectError;
use crate::upstream::endpoint::Endpoint;
use crate::worker::Worker;

/// Receive window of one tunnel, bytes.
const STREAM_WINDOW: u32 = 512 << 10;
/// Tunnels whose windows fit into their connection's at once; more peers hardly allow.
const ROOM: u32 = 256;
/// Connections that may refuse a tunnel with GOAWAY before opening it fails.
const TRIES: usize = 3;

/// A connection inside one to the endpoint, at `address`.
///
/// # Errors
/// When connecting fails, or the peer does not take the tunnel.
pub async fn open(
    pools: &Pools,
    worker: &Worker,
    cluster: &Arc<Cluster>,
    endpoint: &Arc<Endpoint>,
    address: SocketAddr,
    connect: &Connect,
) -> Result<TunnelStream, ConnectError> {
    let host = pools.carrying_tunnels(cluster, endpoint, address);
    let limit = cluster.connect_timeout;
    let opening = host.tunnel(worker, cluster, endpoint, address, connect);
    let opened = worker.timers.timeout(limit, opening).await;
    opened.unwrap_or(Err(ConnectError::Timeout(limit)))
}

impl HostPool {
    /// A tunnel in a connection below its stream limit, or in a new one.
    async fn tunnel(
        self: &Rc<Self>,
        worker: &Worker,
        cluster: &Arc<Cluster>,
        endpoint: &Endpoint,
        address: SocketAddr,
        connect: &Connect,
    ) -> Result<TunnelStream, ConnectError> {
        let mut tries = 0usize;
        loop {
            let shared = self.carrier(worker, cluster, endpoint, address).await?;
            shared.count(worker.timers.now());
            tries = tries.saturating_add(1);
            match shared.connected.tunnel(connect, &worker.buffers).await {
                Ok(tunnel) => return Ok(tunnel),
                // The connection is going away. Nothing was sent yet, so another may be tried.
                Err(Failure::Refused | Failure::Terminated) if tries < TRIES => {
                    self.forget(&shared);
                }
                Err(failure) => return Err(ConnectError::Tunnel(words(failure))),
            }
        }
    }

    async fn carrier(
        self: &Rc<Self>,
        worker: &Worker,
        cluster: &Arc<Cluster>,
        endpoint: &Endpoint,
        address: SocketAddr,
    ) -> Result<Rc<Shared>, ConnectError> {
        loop {
            if let Some(shared) = self.with_room(cluster) {
                return Ok(shared);
            }
            if self.dialling.get() {
                let changed = self.changed.notified();
                let _ = worker.timers.timeout(RETRY_INTERVAL, changed).await;
                continue;
            }
            let _dialling = Dialling::begin(self);
            bug::point("tunnel_carrier");
            cluster.metrics.tunnels.inc();
            let alpn = offer(cluster, endpoint);
            let dial = Dial {
                alpn: alpn.as_deref(),
                ..Dial::default()
            };
            let stream = worker
                .dialler
                .connect_at(cluster, endpoint, address, &dial)
                .await?;
            let agreed = stream.tls_info().and_then(|tls| tls.alpn.as_deref());
            if agreed.is_some_and(|alpn| !is_h2(alpn)) {
                let why = "the peer's proxy speaks no HTTP/2 there";
                return Err(ConnectError::Tunnel(why.into()));
            }
            let options = options(&cluster.http2);
            let shared = self.share(worker, cluster, stream, None, &options).await;
            return shared.map_err(|failure| ConnectError::Tunnel(words(failure)));
        }
    }
}

/// Sets the connection window to the sum of the stream windows, so that a tunnel that is not read
/// cannot block the others.
fn options(given: &Http2Options) -> Http2Options {
    let stream = given.initial_stream_window.min(STREAM_WINDOW);
    Http2Options {
        initial_stream_window: stream,
        initial_connection_window: stream.saturating_mul(ROOM).min(i32::MAX as u32),
        max_frame_size: FRAME,
        ..*given
    }
}

/// Only HTTP/2, of what the transport would offer.
fn offer(cluster: &Cluster, endpoint: &Endpoint) -> Option<Vec<Vec<u8>>> {
    let Some(Transport::Tls(context)) = cluster.transport_of(endpoint) else {
        return None;
    };
    let all = context.options().alpn.iter();
    Some(all.filter(|name| is_h2(name)).cloned().collect())
}

fn words(failure: Failure) -> Box<str> {
    match failure {
        Failure::Connect(why) | Failure::Protocol(why) => why,
        Failure::Reset { .. } => "the peer's proxy reset the tunnel before it stood".into(),
        _ => "the connection that carries tunnels ended".into(),
    }
}
