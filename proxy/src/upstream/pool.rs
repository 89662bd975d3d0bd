//! Connections to upstreams, per worker: kept while idle, shared where the protocol shares.
//!
//! HTTP/1: last in, first out, so that the connection most likely alive is used and the others can
//! age. A connection is looked at before it is used again; one that its owner closed is dropped.
//! HTTP/2: one connection per endpoint until its streams run out, then another.

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Waker};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use tokio::sync::Notify;

use super::connect::{ConnectError, connect};
use super::limits::Permit;
use crate::config::cluster::{Cluster, Protocol, Transport};
use crate::config::endpoint::Endpoint;
use crate::http::error::Failure;
use crate::http::h1::{ClientConn, Limits as HeadLimits, Spelling};
use crate::http::h2::{self, Bounds, Connected};
use crate::http::head::Version;
use crate::http::io::Io;
use crate::http::observe::Upstream;
use crate::http::up::{Client1, Up};
use crate::stream::Stream;
use crate::tls::Dial;
use crate::worker::Worker;

/// How often idle connections are looked at.
const SWEEP: Duration = Duration::from_secs(1);
/// How long a request that waits for a connection waits before it looks again: permits are shared
/// by workers, which do not wake each other.
const LOOK_AGAIN: Duration = Duration::from_millis(20);
/// How long an upgrade waits for the settings of a fresh HTTP/2 connection.
const SETTINGS_PATIENCE: Duration = Duration::from_secs(1);
/// Bytes of a response's head.
const MAX_RESPONSE_HEAD: usize = 60 * 1024;

/// What connections are kept under.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Key {
    cluster: u64,
    address: SocketAddr,
    transport: u32,
    /// Set when the protocol follows the request.
    follows: Option<Version>,
}

/// All pools of a worker.
#[derive(Default)]
pub struct Pools {
    hosts: RefCell<HashMap<Key, Rc<Host>>>,
    filled: Notify,
}

/// Connections to one endpoint.
#[derive(Default)]
struct Host {
    idle: RefCell<Vec<Idle>>,
    shared: RefCell<Vec<Rc<Shared>>>,
    /// An HTTP/2 connection is being made; others wait for it.
    dialling: Cell<bool>,
    changed: Rc<Notify>,
    /// What the endpoint chose by ALPN last time.
    speaks: Cell<Option<Version>>,
    idle_timeout: Cell<Option<Duration>>,
}

struct Idle {
    client: Box<Client1>,
    since: Instant,
}

struct Shared {
    connected: Connected,
    opened: Cell<u32>,
    used: Cell<Instant>,
    _permit: Permit,
}

/// Whom to reach.
pub struct Target<'a> {
    pub cluster: &'a Arc<Cluster>,
    pub endpoint: &'a Arc<Endpoint>,
    /// The request's own, for clusters that follow it.
    pub version: Version,
    /// Bytes pass as they are (a CONNECT that ends here): a connection of its own, never reused.
    pub raw: bool,
    /// The request is an upgrade, which HTTP/2 upstreams have to agree to take.
    pub upgrade: bool,
}

/// A connection for one exchange, and where it goes back to.
pub struct Lease {
    pub up: Up,
    host: Rc<Host>,
}

impl Pools {
    /// A connection to the endpoint: an idle one, a stream of a shared one, or a new one.
    ///
    /// # Errors
    /// When connecting fails or a limit is reached.
    pub async fn checkout(&self, worker: &Worker, target: &Target<'_>) -> Result<Lease, Failure> {
        let host = self.host(target);
        if target.raw {
            let up = host.raw(worker, target).await?;
            return Ok(Lease { up, host });
        }
        let version = match target.cluster.protocol {
            Protocol::Http1 => Some(Version::Http11),
            Protocol::Http2 => Some(Version::Http2),
            Protocol::Downstream => Some(follow(target.version)),
            Protocol::Auto => match target.cluster.transport_of(target.endpoint) {
                Some(Transport::Tls(_)) => host.speaks.get(),
                _ => Some(Version::Http11),
            },
        };
        let up = match version {
            Some(Version::Http2) => host.stream(worker, target).await?,
            Some(_) => host.exclusive(worker, target).await?,
            None => host.first(worker, target).await?,
        };
        Ok(Lease { up, host })
    }

    /// Takes a connection back after a complete exchange.
    pub fn checkin(&self, lease: Lease, cluster: &Cluster) {
        let Lease { up, host } = lease;
        let Up::H1(mut client) = up else { return };
        let spent = cluster
            .max_requests_per_connection
            .is_some_and(|max| client.requests >= max);
        if client.tunnel || spent || !client.codec.next(&client.io.input) {
            return;
        }
        client.reused = true;
        client.io.release();
        host.idle_timeout.set(cluster.idle_timeout);
        host.idle.borrow_mut().push(Idle {
            client,
            since: Instant::now(),
        });
        host.changed.notify_one();
        self.filled.notify_one();
    }

    /// Closes what was idle for too long, was closed by the other end, or belongs to a cluster
    /// that is gone. Runs as long as the worker does.
    pub async fn sweep(&self, worker: &Rc<Worker>) {
        loop {
            if self.hosts.borrow().is_empty() {
                self.filled.notified().await;
            }
            worker.timers.sleep(SWEEP).await;
            let known: HashSet<u64> = {
                let snapshot = worker.store.peek();
                snapshot.clusters.values().map(|c| c.id).collect()
            };
            self.hosts
                .borrow_mut()
                .retain(|key, host| host.tidy(known.contains(&key.cluster)));
        }
    }

    fn host(&self, target: &Target<'_>) -> Rc<Host> {
        let follows = matches!(target.cluster.protocol, Protocol::Downstream);
        let key = Key {
            cluster: target.cluster.id,
            address: target.endpoint.address,
            transport: target.endpoint.transport.unwrap_or(u32::MAX),
            follows: follows.then(|| follow(target.version)),
        };
        self.filled.notify_one();
        self.hosts.borrow_mut().entry(key).or_default().clone()
    }
}

impl Host {
    /// An HTTP/1 connection for one exchange alone.
    async fn exclusive(
        self: &Rc<Self>,
        worker: &Worker,
        target: &Target<'_>,
    ) -> Result<Up, Failure> {
        let mut pending = None;
        loop {
            if let Some(client) = self.pop() {
                return Ok(client);
            }
            if let Some(permit) = target.cluster.limits.try_connection() {
                let stream = dial(worker, target).await?;
                return Ok(begin(exclusive_client(worker, target, stream, permit)));
            }
            self.wait(worker, target, &mut pending).await?;
        }
    }

    /// A new connection that speaks no HTTP.
    async fn raw(self: &Rc<Self>, worker: &Worker, target: &Target<'_>) -> Result<Up, Failure> {
        let permit = target.cluster.limits.try_connection();
        let permit = permit.ok_or(Failure::Overflow("connections"))?;
        let stream = dial(worker, target).await?;
        let mut client = exclusive_client(worker, target, stream, permit);
        client.tunnel = true;
        Ok(Up::H1(client))
    }

    /// A stream of a shared HTTP/2 connection.
    async fn stream(self: &Rc<Self>, worker: &Worker, target: &Target<'_>) -> Result<Up, Failure> {
        let mut pending = None;
        loop {
            if let Some(shared) = self.with_room(target.cluster) {
                shared.await_settings(worker, target).await;
                match shared.open().await {
                    Ok(up) => return Ok(up),
                    // It went away between two looks; another is made.
                    Err(_) => {
                        self.forget(&shared);
                        continue;
                    }
                }
            }
            if self.dialling.get() {
                self.wait(worker, target, &mut pending).await?;
                continue;
            }
            let Some(permit) = target.cluster.limits.try_connection() else {
                self.wait(worker, target, &mut pending).await?;
                continue;
            };
            let _dialling = Dialling::begin(self);
            let stream = dial(worker, target).await?;
            let shared = self.share(worker, target, stream, permit).await?;
            shared.await_settings(worker, target).await;
            return shared.open().await;
        }
    }

    /// A connection whose protocol the endpoint chooses.
    async fn first(self: &Rc<Self>, worker: &Worker, target: &Target<'_>) -> Result<Up, Failure> {
        let mut pending = None;
        let permit = loop {
            match target.cluster.limits.try_connection() {
                Some(permit) => break permit,
                None => self.wait(worker, target, &mut pending).await?,
            }
        };
        let stream = dial(worker, target).await?;
        let alpn = stream.tls_info().and_then(|tls| tls.alpn.as_deref());
        if matches!(alpn, Some(b"h2" | b"anyam-h2" | b"anyam-h2-case")) {
            self.speaks.set(Some(Version::Http2));
            let shared = self.share(worker, target, stream, permit).await?;
            shared.await_settings(worker, target).await;
            return shared.open().await;
        }
        self.speaks.set(Some(Version::Http11));
        Ok(begin(exclusive_client(worker, target, stream, permit)))
    }

    async fn share(
        self: &Rc<Self>,
        worker: &Worker,
        target: &Target<'_>,
        stream: Stream,
        permit: Permit,
    ) -> Result<Rc<Shared>, Failure> {
        let cluster = target.cluster;
        let about = about(&stream, Version::Http2);
        let bounds = Bounds {
            bytes: MAX_RESPONSE_HEAD,
            fields: cluster.max_response_headers_count,
        };
        let changed = self.changed.clone();
        let at_end = move || changed.notify_waiters();
        let connected = h2::handshake(
            stream,
            about,
            &cluster.http2,
            bounds,
            &worker.timers,
            at_end,
        )
        .await?;
        let shared = Rc::new(Shared {
            connected,
            opened: Cell::new(0),
            used: Cell::new(Instant::now()),
            _permit: permit,
        });
        self.idle_timeout.set(cluster.idle_timeout);
        self.shared.borrow_mut().push(shared.clone());
        Ok(shared)
    }

    fn with_room(&self, cluster: &Cluster) -> Option<Rc<Shared>> {
        let mut all = self.shared.borrow_mut();
        all.retain(|shared| !shared.connected.is_closed() && !shared.is_spent(cluster));
        let found = all.iter().find(|shared| shared.connected.has_room());
        found.cloned()
    }

    fn forget(&self, gone: &Rc<Shared>) {
        let mut all = self.shared.borrow_mut();
        all.retain(|shared| !Rc::ptr_eq(shared, gone));
    }

    /// The idle connection used last that is still alive.
    fn pop(&self) -> Option<Up> {
        loop {
            let mut idle = self.idle.borrow_mut().pop()?;
            if is_quiet(&mut idle.client.io) {
                return Some(begin(idle.client));
            }
        }
    }

    /// Waits until looking again is worth it, within the limit of those who may wait.
    async fn wait(
        &self,
        worker: &Worker,
        target: &Target<'_>,
        pending: &mut Option<Permit>,
    ) -> Result<(), Failure> {
        if pending.is_none() {
            let permit = target.cluster.limits.try_pending();
            *pending = Some(permit.ok_or_else(|| {
                target.cluster.metrics.overflows.inc();
                Failure::Overflow("pending requests")
            })?);
        }
        // Time or news, either is a reason to look.
        let news = self.changed.notified();
        let _ = worker.timers.timeout(LOOK_AGAIN, news).await;
        Ok(())
    }

    /// Drops what is not worth keeping; says whether anything is left.
    fn tidy(&self, known: bool) -> bool {
        let limit = self.idle_timeout.get();
        let expired = |since: Instant| limit.is_some_and(|limit| since.elapsed() >= limit);
        self.idle
            .borrow_mut()
            .retain_mut(|idle| known && !expired(idle.since) && is_quiet(&mut idle.client.io));
        self.shared.borrow_mut().retain(|shared| {
            let busy = shared.connected.is_busy();
            let kept = known && !expired(shared.used.get());
            !shared.connected.is_closed() && (busy || kept)
        });
        !(self.idle.borrow().is_empty() && self.shared.borrow().is_empty()) || self.dialling.get()
    }
}

impl Shared {
    /// Before an upgrade: its sender finds out for itself when the peer takes none.
    async fn await_settings(&self, worker: &Worker, target: &Target<'_>) {
        if target.upgrade {
            let patience = target.cluster.connect_timeout.min(SETTINGS_PATIENCE);
            self.connected
                .takes_upgrades(&worker.timers, patience)
                .await;
        }
    }

    async fn open(&self) -> Result<Up, Failure> {
        self.used.set(Instant::now());
        self.opened.set(self.opened.get().saturating_add(1));
        Ok(Up::H2(Box::new(self.connected.open().await?)))
    }

    fn is_spent(&self, cluster: &Cluster) -> bool {
        cluster
            .max_requests_per_connection
            .is_some_and(|max| self.opened.get() >= max)
    }
}

/// While it lives, others wait for the connection instead of making one of their own.
struct Dialling(Rc<Host>);

impl Dialling {
    fn begin(host: &Rc<Host>) -> Self {
        host.dialling.set(true);
        Self(host.clone())
    }
}

impl Drop for Dialling {
    fn drop(&mut self) {
        self.0.dialling.set(false);
        self.0.changed.notify_waiters();
    }
}

fn begin(mut client: Box<Client1>) -> Up {
    client.requests += 1;
    Up::H1(client)
}

fn exclusive_client(
    worker: &Worker,
    target: &Target<'_>,
    stream: Stream,
    permit: Permit,
) -> Box<Client1> {
    let about = about(&stream, Version::Http11);
    let limits = HeadLimits {
        head_bytes: MAX_RESPONSE_HEAD,
        fields: target.cluster.max_response_headers_count,
    };
    let spelling = Spelling {
        preserve_case: target.cluster.http1.preserve_case,
    };
    let io = Io::new(stream, BytesMut::new(), worker.buffers.clone());
    Box::new(Client1::new(
        io,
        ClientConn::new(limits, spelling),
        about,
        permit,
    ))
}

fn about(stream: &Stream, version: Version) -> Rc<Upstream> {
    Rc::new(Upstream {
        local: stream.local_addr().ok(),
        protocol: Some(version),
        tls: stream.tls_info().cloned().map(Rc::new),
        failure: None,
    })
}

fn follow(version: Version) -> Version {
    match version {
        Version::Http2 => Version::Http2,
        _ => Version::Http11,
    }
}

/// Nothing happened on a connection that nothing should happen on: no bytes, no end, no error.
fn is_quiet(io: &mut Io) -> bool {
    let mut cx = Context::from_waker(Waker::noop());
    io.poll_fill(&mut cx).is_pending()
}

async fn dial(worker: &Worker, target: &Target<'_>) -> Result<Stream, Failure> {
    let metrics = &target.cluster.metrics;
    metrics.connections.inc();
    let dial = Dial::default();
    connect(worker, target.cluster, target.endpoint, &dial)
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
}
