//! The tcp_proxy filter: decide where to, dial, relay, record.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use bytes::BytesMut;

use super::verdict::judged;
use super::{Early, Means, Options, relay};
use crate::config::cluster::{Cluster, Transport};
use crate::config::endpoint::Endpoint;
use crate::config::listener::{FilterChain, Listener, TcpProxy, TcpTarget};
use crate::config::snapshot::{ClusterLinks, ClusterRef};
use crate::socket;
use crate::stream::Stream;
use crate::telemetry::{Call, Calls, Record, ResponseFlags};
use crate::tls::{ClientContext, ConnectionInfo, Dial};
use crate::upstream::cluster::{NoEndpoint, PickFor};
use crate::upstream::connect::{ConnectError, connect};
use crate::upstream::host::Active;
use crate::upstream::limits::Permit;
use crate::upstream::outlier;
use crate::worker::Worker;

/// A connection whose chain ends in a tcp_proxy.
pub struct Connection {
    pub stream: Stream,
    /// Bytes of the client that were read already.
    pub prefix: BytesMut,
    pub listener: Arc<Listener>,
    pub chain: Arc<FilterChain>,
    pub proxy: Arc<TcpProxy>,
    pub peer: SocketAddr,
    /// Where the client meant to go.
    pub local: SocketAddr,
    pub original_dst: Option<SocketAddr>,
    pub start: Instant,
    /// Dialled while the client was still silent.
    pub dialled: Option<Dialled>,
}

/// A connection to an endpoint, with what it takes up while it lives.
pub struct Dialled {
    pub stream: Stream,
    cluster: Arc<Cluster>,
    endpoint: Arc<Endpoint>,
    attempts: u32,
    _permit: Permit,
    _active: Active,
    _open: Open,
}

impl Dialled {
    /// It was dialled on a guess.
    pub fn count_speculative(&self) {
        self.cluster.metrics.speculative.inc();
    }
}

/// Counts a connection of a cluster while it is open.
struct Open(Arc<Cluster>);

impl Open {
    fn new(cluster: &Arc<Cluster>) -> Self {
        cluster.metrics.connections.inc();
        cluster.metrics.active_connections.inc();
        Open(cluster.clone())
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.metrics.active_connections.dec();
    }
}

/// Why no endpoint was reached.
pub struct DialFailure {
    flags: ResponseFlags,
    why: String,
    cluster: Option<Arc<Cluster>>,
    endpoint: Option<SocketAddr>,
    attempts: u32,
}

impl DialFailure {
    fn new(flags: ResponseFlags, why: impl Into<String>) -> Self {
        DialFailure {
            flags,
            why: why.into(),
            cluster: None,
            endpoint: None,
            attempts: 0,
        }
    }
}

/// Serves a connection to its end; `cut` is asked whether it must end early.
pub async fn serve(worker: &Rc<Worker>, connection: Connection, cut: &dyn Fn() -> bool) {
    let Connection {
        stream,
        prefix,
        proxy,
        original_dst,
        dialled,
        ..
    } = connection;
    let tls = stream.tls_info().cloned();
    let served = Served {
        buffer: connection.listener.def.per_connection_buffer_limit,
        id: worker.next_connection_id(),
        start: connection.start,
        start_time: SystemTime::now(),
        peer: connection.peer,
        local: connection.local,
        calls: Calls::new(
            worker,
            connection.listener.clone(),
            connection.peer.ip(),
            connection.local.port(),
            tls.as_ref().and_then(|tls| tls.peer.clone()),
        ),
        chain: connection.chain,
        tls,
    };
    let dialled = match dialled {
        Some(dialled) => Ok(dialled),
        None => dial(worker, &connection.listener.clusters, &proxy, original_dst).await,
    };
    match dialled {
        Ok(dialled) => carry(worker, &served, &proxy, (stream, prefix), dialled, cut).await,
        Err(failure) => {
            socket::reset_on_close(stream.socket());
            give_up(worker, &served, &proxy, &failure);
        }
    }
}

/// A connection, and what is said of it when it ends.
struct Served {
    id: u64,
    start: Instant,
    start_time: SystemTime,
    peer: SocketAddr,
    local: SocketAddr,
    chain: Arc<FilterChain>,
    tls: Option<ConnectionInfo>,
    calls: Rc<Calls>,
    /// Bytes that may be held for it in each direction.
    buffer: usize,
}

impl Served {
    fn record(&self) -> Record<'_> {
        let mut record = Record::begun(self.start_time);
        record.duration = self.start.elapsed();
        record.connection_id = self.id;
        record.direct_remote = Some(self.peer);
        record.remote = Some(self.peer);
        record.local = Some(self.local);
        record.chain = Some(&self.chain.name);
        if let Some(tls) = &self.tls {
            record.sni = tls.sni.as_deref();
            record.peer_uri_san = tls.peer.as_ref().map(|peer| peer.as_str());
            record.tls_version = Some(tls.version);
            record.tls_cipher = Some(tls.cipher);
        }
        record
    }
}

/// Relays to the endpoint that was dialled, to the end.
async fn carry(
    worker: &Rc<Worker>,
    served: &Served,
    proxy: &TcpProxy,
    (down, prefix): (Stream, BytesMut),
    dialled: Dialled,
    cut: &dyn Fn() -> bool,
) {
    // The guards in what is left of `dialled` live as long as the relay.
    let Dialled {
        stream,
        cluster,
        endpoint,
        attempts,
        ..
    } = dialled;
    let up_tls = stream.tls_info().cloned().map(Rc::new);
    let up_local = stream.local_addr().ok();
    let call = Call {
        cluster: Some(cluster.clone()),
        endpoint: Some(endpoint.clone()),
        upstream: up_tls.clone(),
    };
    served.calls.opened(&call);
    let means = Means {
        buffers: &worker.buffers,
        pipes: &worker.pipes,
        timers: &worker.timers,
        most: served.buffer,
    };
    let options = Options {
        idle: proxy.idle_timeout,
        until: proxy.max_duration.map(|most| served.start + most),
        cut,
    };
    let early = Early {
        from_down: prefix,
        ..Early::default()
    };
    let outcome = relay(&means, down, stream, early, &options).await;
    let (flags, details) = judged(&outcome);
    if flags.contains(ResponseFlags::UPSTREAM_REMOTE_RESET) {
        cluster.report(
            &endpoint,
            outlier::Outcome::Reset,
            &mut fastrand::Rng::new(),
        );
    }
    served.calls.closed(
        &call,
        flags,
        false,
        false,
        (outcome.from_up, outcome.from_down),
    );
    let mut record = served.record();
    record.flags = flags;
    record.termination_details = details;
    record.bytes_received = outcome.from_down;
    record.bytes_sent = outcome.from_up;
    record.cluster = Some(&cluster.name);
    record.upstream_host = Some(endpoint.address);
    record.upstream_local = up_local;
    record.attempts = attempts;
    let up_peer = up_tls.as_ref().and_then(|tls| tls.peer.as_ref());
    record.upstream_peer_uri_san = up_peer.map(|peer| peer.as_str());
    worker.logs.write(&proxy.access_log, &record);
}

fn give_up(worker: &Rc<Worker>, served: &Served, proxy: &TcpProxy, failure: &DialFailure) {
    let call = Call {
        cluster: failure.cluster.clone(),
        ..Call::default()
    };
    served
        .calls
        .closed(&call, failure.flags, true, false, (0, 0));
    let mut record = served.record();
    record.flags = failure.flags;
    record.upstream_failure = Some(&failure.why);
    record.cluster = failure.cluster.as_ref().map(|cluster| &*cluster.name);
    record.upstream_host = failure.endpoint;
    record.attempts = failure.attempts;
    worker.logs.write(&proxy.access_log, &record);
}

/// Dials an endpoint of the cluster that `proxy` names, trying others where it may.
///
/// # Errors
/// See [`DialFailure`]; every failed attempt is counted and told to outlier detection.
pub async fn dial(
    worker: &Rc<Worker>,
    links: &ClusterLinks,
    proxy: &TcpProxy,
    original_dst: Option<SocketAddr>,
) -> Result<Dialled, DialFailure> {
    let mut random = fastrand::Rng::new();
    let reference = target(&proxy.target, &mut random);
    let link = reference.and_then(|reference| links.get(usize::try_from(reference.0).ok()?));
    let Some(cluster) = link.and_then(|link| link.target.clone()) else {
        let name = link.map_or("", |link| &*link.name);
        let why = format!("cluster `{name}` is not known");
        return Err(DialFailure::new(ResponseFlags::NO_CLUSTER_FOUND, why));
    };
    let mut tried = Vec::new();
    loop {
        match attempt(worker, &cluster, &tried, original_dst, &mut random).await {
            Ok(mut dialled) => {
                dialled.attempts += u32::try_from(tried.len()).unwrap_or(u32::MAX);
                return Ok(dialled);
            }
            Err(mut failure) => {
                tried.extend(failure.endpoint);
                let again = failure.endpoint.is_some()
                    && tried.len() < usize::try_from(proxy.max_connect_attempts).unwrap_or(1);
                if again {
                    continue;
                }
                failure.attempts = u32::try_from(tried.len()).unwrap_or(u32::MAX);
                failure.cluster = Some(cluster);
                return Err(failure);
            }
        }
    }
}

fn target(target: &TcpTarget, random: &mut fastrand::Rng) -> Option<ClusterRef> {
    match target {
        TcpTarget::Cluster(reference) => Some(*reference),
        TcpTarget::Weighted(entries) => {
            let (total, last) = entries.last()?;
            let drawn = random.u64(..(*total).max(1));
            let entry = entries.iter().find(|(bound, _)| drawn < *bound);
            Some(entry.map_or(*last, |(_, reference)| *reference))
        }
    }
}

async fn attempt(
    worker: &Rc<Worker>,
    cluster: &Arc<Cluster>,
    exclude: &[SocketAddr],
    original_dst: Option<SocketAddr>,
    random: &mut fastrand::Rng,
) -> Result<Dialled, DialFailure> {
    let metrics = &cluster.metrics;
    let Some(permit) = cluster.limits.try_connection() else {
        metrics.overflows.inc();
        let why = "the cluster's connection limit is reached";
        return Err(DialFailure::new(ResponseFlags::UPSTREAM_OVERFLOW, why));
    };
    let picked = cluster
        .pick(
            PickFor {
                exclude,
                original_dst,
            },
            random,
        )
        .map_err(|none| {
            metrics.no_endpoint.inc();
            let flags = match none {
                NoEndpoint::NoOriginalDestination => ResponseFlags::NO_ROUTE_FOUND,
                NoEndpoint::Warming | NoEndpoint::Unhealthy => ResponseFlags::NO_HEALTHY_UPSTREAM,
            };
            DialFailure::new(flags, none.to_string())
        })?;
    let endpoint = picked.endpoint;
    let active = endpoint.state.begin();
    let alpn = tunnel_alpn(cluster, &endpoint);
    let dial = Dial {
        alpn: alpn.as_deref(),
        ..Dial::default()
    };
    match connect(worker, cluster, &endpoint, &dial).await {
        Ok(stream) => {
            cluster.report(&endpoint, outlier::Outcome::Alive, random);
            Ok(Dialled {
                stream,
                cluster: cluster.clone(),
                endpoint,
                attempts: 1,
                _permit: permit,
                _active: active,
                _open: Open::new(cluster),
            })
        }
        Err(error) => {
            let outcome = match &error {
                ConnectError::Timeout(_) => {
                    metrics.connect_timeouts.inc();
                    outlier::Outcome::TimedOut
                }
                _ => outlier::Outcome::ConnectFailed,
            };
            metrics.connect_failures.inc();
            cluster.report(&endpoint, outcome, random);
            let flags = ResponseFlags::UPSTREAM_CONNECTION_FAILURE;
            let why = format!("{}: {error}", endpoint.address);
            let endpoint = Some(endpoint.address);
            Err(DialFailure {
                endpoint,
                ..DialFailure::new(flags, why)
            })
        }
    }
}

/// A cluster that HTTP shares offers HTTP by ALPN; between sidecars bytes go as `anyam-tcp`.
fn tunnel_alpn(cluster: &Cluster, endpoint: &Endpoint) -> Option<Vec<Vec<u8>>> {
    let Some(Transport::Tls(context)) = cluster.transport_of(endpoint) else {
        return None;
    };
    let offers: &ClientContext = context;
    let ours = offers
        .options()
        .alpn
        .iter()
        .any(|name| name.starts_with(b"anyam-"));
    ours.then(|| vec![b"anyam-tcp".to_vec()])
}
