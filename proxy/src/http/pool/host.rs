//! Connections to one endpoint.

use std::cell::{Cell, RefCell};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Waker};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use tokio::sync::Notify;

use super::shared::{Shared, is_older};
use super::{CheckoutTarget, ConnectionSlot, Pools};
use crate::bug;
use crate::config::cluster::Transport;
use crate::config::http::Http2Options;
use crate::http::connection::io::Io;
use crate::http::forward::upstream::{H1Client, UpstreamIo};
use crate::http::h1::{ClientConn, HeadLimits, Spelling};
use crate::http::h2::{self, HeadBounds};
use crate::http::request::error::Failure;
use crate::http::request::stream_info::Upstream;
use crate::message::head::Version;
use crate::stream::Stream;
use crate::tls::Dial;
use crate::upstream::cluster::Cluster;
use crate::upstream::connect::ConnectError;
use crate::worker::Worker;

/// How often a request that waits for a connection retries: permits are shared by workers, which do
/// not wake each other.
pub(crate) const RETRY_INTERVAL: Duration = Duration::from_millis(20);

/// Connections to one endpoint.
#[derive(Default)]
pub(crate) struct HostPool {
    pub(super) idle: RefCell<Vec<Idle>>,
    pub(crate) shared: RefCell<Vec<Rc<Shared>>>,
    /// Its reference count, less one, is the number of connections.
    pub(super) places: Rc<()>,
    /// Its reference count, less one, is the number of waiting requests.
    pub(super) waiting: Rc<()>,
    /// An HTTP/2 connection is being made; others wait for it.
    pub(crate) dialling: Cell<bool>,
    pub(crate) changed: Rc<Notify>,
    /// The protocol that the endpoint last chose by ALPN.
    pub(super) alpn_version: Cell<Option<Version>>,
    pub(super) idle_timeout: Cell<Option<Duration>>,
    /// How long a connection may be given new requests.
    pub(super) lifetime: Cell<Option<Duration>>,
    /// No connection made before this is given new requests.
    pub(super) oldest: Cell<Option<Instant>>,
}

pub(super) struct Idle {
    pub client: Box<H1Client>,
    pub since: Instant,
}

impl HostPool {
    /// An HTTP/1 connection for one exchange alone.
    pub(super) async fn exclusive(
        self: &Rc<Self>,
        pools: &Pools,
        worker: &Worker,
        target: &CheckoutTarget<'_>,
    ) -> Result<UpstreamIo, Failure> {
        let mut pending = None;
        loop {
            if let Some(client) = self.pop() {
                return Ok(client);
            }
            if let Some(place) = self.place(pools, target) {
                let stream = dial(worker, target, Some(Version::Http11)).await?;
                return Ok(begin(exclusive_client(worker, target, stream, place)));
            }
            Box::pin(self.wait(worker, target, &mut pending)).await?;
        }
    }

    /// A new connection for raw bytes.
    pub(super) async fn raw(
        self: &Rc<Self>,
        pools: &Pools,
        worker: &Worker,
        target: &CheckoutTarget<'_>,
    ) -> Result<UpstreamIo, Failure> {
        let place = self.place(pools, target);
        let place = place.ok_or(Failure::Overflow("connections"))?;
        let stream = dial(worker, target, None).await?;
        let mut client = exclusive_client(worker, target, stream, place);
        client.io.open_tunnel();
        Ok(UpstreamIo::H1(client))
    }

    /// A stream of a shared HTTP/2 connection.
    pub(crate) async fn stream(
        self: &Rc<Self>,
        pools: &Pools,
        worker: &Worker,
        target: &CheckoutTarget<'_>,
    ) -> Result<UpstreamIo, Failure> {
        let mut pending = None;
        loop {
            if let Some(shared) = self.with_room(target.cluster) {
                shared.await_settings(worker, target).await;
                match shared.open(worker.timers.now()).await {
                    Ok(up) => return Ok(up),
                    // It closed in between; another one is made.
                    Err(_) => {
                        self.forget(&shared);
                        continue;
                    }
                }
            }
            if self.dialling.get() {
                Box::pin(self.wait(worker, target, &mut pending)).await?;
                continue;
            }
            let Some(place) = self.place(pools, target) else {
                Box::pin(self.wait(worker, target, &mut pending)).await?;
                continue;
            };
            let _dialling = Dialling::begin(self);
            let stream = dial(worker, target, Some(Version::Http2)).await?;
            let shared = self.share_for(worker, target, stream, place).await?;
            shared.await_settings(worker, target).await;
            return shared.open(worker.timers.now()).await;
        }
    }

    /// A connection whose protocol the endpoint chooses.
    pub(super) async fn first(
        self: &Rc<Self>,
        pools: &Pools,
        worker: &Worker,
        target: &CheckoutTarget<'_>,
    ) -> Result<UpstreamIo, Failure> {
        let mut pending = None;
        let place = loop {
            // Another request's connection may have negotiated it meanwhile.
            if let Some(version) = self.alpn_version.get() {
                drop(pending);
                return match version {
                    Version::Http2 => Box::pin(self.stream(pools, worker, target)).await,
                    _ => Box::pin(self.exclusive(pools, worker, target)).await,
                };
            }
            match self.place(pools, target) {
                Some(place) => break place,
                None => Box::pin(self.wait(worker, target, &mut pending)).await?,
            }
        };
        let stream = dial(worker, target, None).await?;
        let alpn = stream.tls_info().and_then(|tls| tls.alpn.as_deref());
        if alpn.is_some_and(is_h2) {
            self.alpn_version.set(Some(Version::Http2));
            let shared = self.share_for(worker, target, stream, place).await?;
            shared.await_settings(worker, target).await;
            return shared.open(worker.timers.now()).await;
        }
        self.alpn_version.set(Some(Version::Http11));
        Ok(begin(exclusive_client(worker, target, stream, place)))
    }

    async fn share_for(
        self: &Rc<Self>,
        worker: &Worker,
        target: &CheckoutTarget<'_>,
        stream: Stream,
        place: ConnectionSlot,
    ) -> Result<Rc<Shared>, Failure> {
        let options = &target.cluster.http2;
        let sharing = self.share(worker, target.cluster, stream, Some(place), options);
        Box::pin(sharing).await
    }

    pub(crate) async fn share(
        self: &Rc<Self>,
        worker: &Worker,
        cluster: &Cluster,
        stream: Stream,
        place: Option<ConnectionSlot>,
        options: &Http2Options,
    ) -> Result<Rc<Shared>, Failure> {
        let about = about(&stream, Version::Http2);
        let bounds = HeadBounds {
            bytes: cluster.max_response_headers_bytes,
            fields: cluster.max_response_headers_count,
        };
        let changed = self.changed.clone();
        let at_end = move || changed.notify_waiters();
        let (timers, floods) = (&worker.timers, &cluster.metrics.http2_floods);
        let connected =
            h2::handshake(stream, about, options, bounds, timers, floods, at_end).await?;
        let shared = Rc::new(Shared::new(connected, place));
        self.update_limits(cluster);
        self.shared.borrow_mut().push(shared.clone());
        Ok(shared)
    }

    pub(crate) fn with_room(&self, cluster: &Cluster) -> Option<Rc<Shared>> {
        let mut all = self.shared.borrow_mut();
        all.retain(|shared| {
            let spent = shared.is_spent(cluster) || self.is_old(shared.since);
            !shared.connected.is_closed() && !spent
        });
        let found = all.iter().find(|shared| shared.connected.has_room());
        found.cloned()
    }

    pub(crate) fn forget(&self, gone: &Rc<Shared>) {
        let mut all = self.shared.borrow_mut();
        all.retain(|shared| !Rc::ptr_eq(shared, gone));
    }

    /// The most recently used idle connection that is still open.
    fn pop(&self) -> Option<UpstreamIo> {
        loop {
            let mut idle = self.idle.borrow_mut().pop()?;
            if !self.is_old(idle.client.since) && is_alive(&mut idle.client.io) {
                return Some(begin(idle.client));
            }
        }
    }

    /// Updates how long connections are kept, from `cluster`'s settings.
    pub(super) fn update_limits(&self, cluster: &Cluster) {
        self.idle_timeout.set(cluster.idle_timeout);
        self.lifetime.set(cluster.max_connection_duration);
    }

    pub(super) fn is_old(&self, since: Instant) -> bool {
        let cut_off = self.oldest.get().is_some_and(|oldest| since < oldest);
        cut_off || is_older(since, self.lifetime.get())
    }

    /// Closes expired connections and removes closed ones; all idle ones unless `kept`. Returns
    /// whether any is left, in use or idle.
    pub(super) fn close_expired(&self, kept: bool) -> bool {
        let limit = self.idle_timeout.get();
        let old = |since: Instant| self.is_old(since);
        let expired = |since: Instant| limit.is_some_and(|limit| since.elapsed() >= limit);
        self.idle.borrow_mut().retain_mut(|idle| {
            let kept = kept && !idle.client.place.is_contended();
            let kept = kept && !expired(idle.since) && !old(idle.client.since);
            kept && is_alive(&mut idle.client.io)
        });
        self.shared.borrow_mut().retain(|shared| {
            let busy = shared.connected.is_busy();
            let kept = kept && !shared.is_contended();
            let kept = kept && !expired(shared.used.get()) && !old(shared.since);
            !shared.connected.is_closed() && (busy || kept)
        });
        let has_kept = !(self.idle.borrow().is_empty() && self.shared.borrow().is_empty());
        has_kept || !self.has_no_connection() || self.dialling.get()
    }
}

/// While this exists, other requests wait for the connection instead of making one of their own.
pub(crate) struct Dialling(Rc<HostPool>);

impl Dialling {
    pub(crate) fn begin(host: &Rc<HostPool>) -> Self {
        host.dialling.set(true);
        Self(host.clone())
    }
}

impl Drop for Dialling {
    fn drop(&mut self) {
        self.0.dialling.set(false);
        bug::point("dialled");
        self.0.changed.notify_waiters();
    }
}

fn begin(mut client: Box<H1Client>) -> UpstreamIo {
    client.begin();
    UpstreamIo::H1(client)
}

fn exclusive_client(
    worker: &Worker,
    target: &CheckoutTarget<'_>,
    stream: Stream,
    place: ConnectionSlot,
) -> Box<H1Client> {
    let about = about(&stream, Version::Http11);
    let limits = HeadLimits {
        head_bytes: target.cluster.max_response_headers_bytes,
        fields: target.cluster.max_response_headers_count,
    };
    let spelling = Spelling {
        preserve_case: target.cluster.http1.preserve_case,
        forward_reason: target.cluster.http1.forward_reason,
    };
    let io = Io::new(stream, BytesMut::new(), worker.buffers.clone());
    Box::new(H1Client::new(
        io,
        ClientConn::new(limits, spelling),
        about,
        place,
    ))
}

/// What is known of a new connection.
pub(crate) fn about(stream: &Stream, version: Version) -> Rc<Upstream> {
    Rc::new(Upstream {
        local: stream.local_addr(),
        protocol: Some(version),
        tls: stream.tls_info().cloned().map(Rc::new),
    })
}

/// An idle connection has neither bytes, nor an end of stream, nor an error.
fn is_alive(io: &mut Io) -> bool {
    let mut cx = Context::from_waker(Waker::noop());
    io.poll_fill(&mut cx).is_pending()
}

/// `version`: the HTTP version, where it is known already. On the heap, because most
/// requests find an open connection and never need this future.
fn dial<'a>(
    worker: &'a Worker,
    target: &'a CheckoutTarget<'_>,
    version: Option<Version>,
) -> Pin<Box<impl Future<Output = Result<Stream, Failure>>>> {
    Box::pin(async move {
        let metrics = &target.cluster.metrics;
        metrics.connections.inc();
        bug::point("dial");
        let alpn = offer(target, version);
        let dial = Dial {
            sni: None,
            alpn: alpn.as_deref(),
        };
        worker
            .dialler
            .connect(target.cluster, target.endpoint, &dial)
            .await
            .map_err(|error| match error {
                ConnectError::Timeout(_) => {
                    metrics.connect_timeouts.inc();
                    Failure::ConnectTimeout
                }
                other => {
                    metrics.connect_failures.inc();
                    Failure::Connect(other.to_string().into())
                }
            })
    })
}

/// Of the protocols that the context offers by ALPN, those of the version that will be used.
/// `None`: as they are.
fn offer(target: &CheckoutTarget<'_>, version: Option<Version>) -> Option<Vec<Vec<u8>>> {
    let Some(Transport::Tls(context)) = target.cluster.transport_of(target.endpoint) else {
        return None;
    };
    let wants_h2 = version? == Version::Http2;
    let all = &context.options().alpn;
    let fits = |name: &[u8]| is_h2(name) == wants_h2;
    if all.iter().all(|name| fits(name)) {
        return None;
    }
    let fitting = all.iter().filter(|name| fits(name));
    Some(fitting.cloned().collect())
}

pub(crate) fn is_h2(alpn: &[u8]) -> bool {
    matches!(alpn, b"h2" | b"anyam-h2" | b"anyam-h2-case")
}
