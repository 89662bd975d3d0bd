//! Dials the upstream of a TCP connection: its cluster, an endpoint, and a connection or tunnel to
//! it.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::SystemTime;

use crate::bug;
use crate::config::ClusterRef;
use crate::config::access_log::Format;
use crate::config::balancing::SubsetCriteria;
use crate::config::cluster::{Discovery, Transport};
use crate::config::hash::HashInput;
use crate::config::listener::{TcpProxy, TcpTarget, Tunneling};
use crate::connection_limit::{ConnectionLimit, ConnectionPermit};
use crate::hbone::{self, Connect};
use crate::http::pool::host::RETRY_INTERVAL;
use crate::http::pool::{ConnectionSlot, LimitReached, Pools};
use crate::metrics::ResponseFlags;
use crate::snapshot::ClusterLinks;
use crate::stream::Stream;
use crate::telemetry::{Record, render};
use crate::tls::Dial;
use crate::upstream::cluster::Cluster;
use crate::upstream::cluster::{NoEndpoint, PickFor};
use crate::upstream::connect::ConnectError;
use crate::upstream::endpoint::Endpoint;
use crate::upstream::hash;
use crate::upstream::host::Active;
use crate::upstream::outlier;
use crate::worker::Worker;

/// ALPN of raw bytes between sidecars.
pub(crate) const TCP_ALPN: &str = "anyam-tcp";

/// The downstream side of a connection.
pub struct Origin<'a> {
    pub peer: SocketAddr,
    /// The client's destination address.
    pub local: SocketAddr,
    pub original_dst: Option<SocketAddr>,
    pub sni: Option<&'a str>,
    /// The limit of its listener.
    pub limit: Option<&'a Arc<ConnectionLimit>>,
}

/// A connection to an endpoint, with its permits and counts.
pub struct Dialled {
    pub stream: Stream,
    pub(super) endpoint: Arc<Endpoint>,
    pub(super) attempts: u32,
    _place: ConnectionSlot,
    _active: Active,
    open: Open,
}

impl Dialled {
    /// Counts a speculative dial, made while the client was silent.
    pub fn count_speculative(&self) {
        self.cluster().metrics.speculative.inc();
    }

    pub(super) fn cluster(&self) -> &Arc<Cluster> {
        &self.open.0
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
    pub(super) flags: ResponseFlags,
    pub(super) why: String,
    pub(super) cluster: Option<Arc<Cluster>>,
    pub(super) endpoint: Option<SocketAddr>,
    pub(super) attempts: u32,
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

/// Dials an endpoint of the cluster that `proxy` names, trying others where it may.
///
/// # Errors
/// See [`DialFailure`]; every failed attempt is counted and reported to outlier detection.
pub async fn dial(
    worker: &Rc<Worker>,
    pools: &Pools,
    links: &ClusterLinks,
    proxy: &TcpProxy,
    origin: &Origin<'_>,
) -> Result<Dialled, DialFailure> {
    let mut random = fastrand::Rng::new();
    let (reference, subset) = target(proxy, &mut random).unzip();
    let link = reference.and_then(|reference| links.get(usize::try_from(reference.0).ok()?));
    let subset = subset.flatten();
    let Some(cluster) = link.and_then(|link| link.target.clone()) else {
        let name = link.map_or("", |link| &*link.name);
        let why = format!("cluster `{name}` is not known");
        return Err(DialFailure::new(ResponseFlags::NO_CLUSTER_FOUND, why));
    };
    let mut tried = Vec::new();
    loop {
        let select = PickFor {
            exclude: &tried,
            original_dst: origin.original_dst,
            hash: hash(&cluster, proxy, origin),
            session: None,
            subset,
        };
        match attempt(worker, pools, &cluster, proxy, select, origin, &mut random).await {
            Ok(mut dialled) => {
                let failed = u32::try_from(tried.len()).unwrap_or(u32::MAX);
                dialled.attempts = dialled.attempts.saturating_add(failed);
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

/// The cluster that a connection goes to, and what it asks of the endpoint's metadata.
pub(crate) fn target<'p>(
    proxy: &'p TcpProxy,
    random: &mut fastrand::Rng,
) -> Option<(ClusterRef, Option<&'p Arc<SubsetCriteria>>)> {
    let own = proxy.subset.as_ref();
    match &proxy.target {
        TcpTarget::Cluster(reference) => Some((*reference, own)),
        TcpTarget::Weighted(entries) => {
            let last = entries.last()?;
            let drawn = random.u64(..last.bound.max(1));
            let entry = entries.iter().find(|entry| drawn < entry.bound);
            let entry = entry.unwrap_or(last);
            Some((entry.cluster, entry.subset.as_ref().or(own)))
        }
    }
}

async fn attempt(
    worker: &Rc<Worker>,
    pools: &Pools,
    cluster: &Arc<Cluster>,
    proxy: &TcpProxy,
    select: PickFor<'_>,
    origin: &Origin<'_>,
    random: &mut fastrand::Rng,
) -> Result<Dialled, DialFailure> {
    let metrics = &cluster.metrics;
    let picked = cluster.pick(select, random).map_err(|none| {
        metrics.no_endpoint.inc();
        let flags = match none {
            NoEndpoint::NoOriginalDestination => ResponseFlags::NO_ROUTE_FOUND,
            NoEndpoint::Warming | NoEndpoint::Unhealthy | NoEndpoint::SessionEndpointGone => {
                ResponseFlags::NO_HEALTHY_UPSTREAM
            }
        };
        DialFailure::new(flags, none.to_string())
    })?;
    let endpoint = picked.endpoint;
    let place = place(worker, pools, cluster, &endpoint, origin.limit).await;
    let place = place.map_err(|why| {
        metrics.overflows.inc();
        DialFailure::new(ResponseFlags::UPSTREAM_OVERFLOW, why)
    })?;
    let active = endpoint.state.begin();
    match reach(worker, pools, cluster, &endpoint, proxy, origin).await {
        Ok(stream) => {
            cluster.report(&endpoint, outlier::AttemptResult::Alive, random);
            Ok(Dialled {
                stream,
                endpoint,
                attempts: 1,
                _place: place,
                _active: active,
                open: Open::new(cluster),
            })
        }
        Err(error) => {
            let outcome = match &error {
                ConnectError::Timeout(_) => {
                    metrics.connect_timeouts.inc();
                    outlier::AttemptResult::TimedOut
                }
                _ => outlier::AttemptResult::ConnectFailed,
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

/// The hash of the client's address, where the cluster balances by it. The cluster's own policy comes
/// before the filter's; of requests it hashes nothing here.
fn hash(cluster: &Cluster, proxy: &TcpProxy, origin: &Origin<'_>) -> Option<u64> {
    let by_source = match &cluster.hash_policy {
        Some(policy) => {
            let mut rules = policy.0.iter();
            rules.any(|rule| matches!(rule.by, HashInput::SourceIp))
        }
        None => proxy.hash_source_ip,
    };
    let hashes = cluster.lb.is_hash() && by_source;
    hashes.then(|| hash::source_ip(origin.peer.ip()))
}

/// A place for the connection under the limits of its cluster and its listener; else the one that is
/// reached. A cluster's limit is not waited for: connections in use may last.
async fn place(
    worker: &Worker,
    pools: &Pools,
    cluster: &Cluster,
    endpoint: &Endpoint,
    limit: Option<&Arc<ConnectionLimit>>,
) -> Result<ConnectionSlot, &'static str> {
    let of_cluster = pools.counting_tcp(cluster, endpoint);
    // Every original destination is an endpoint of its own: with one beyond the limit for each there
    // would be no limit.
    let may_exceed = !matches!(cluster.discovery, Discovery::OriginalDst { .. });
    let of_cluster = of_cluster.cluster_place(pools, cluster, may_exceed);
    let of_cluster = of_cluster.ok_or("the cluster's connection limit is reached")?;
    let of_listener = permit_of_listener(worker, pools, cluster, limit).await;
    let of_listener = of_listener
        .map_err(|LimitReached| "the listener's limit of connections to upstreams is reached")?;
    Ok(ConnectionSlot::new(of_cluster, of_listener))
}

/// A permit of the listener's limit, waited for no longer than a dial may take: when the limit is
/// reached, other workers close idle connections that count towards it within a second.
async fn permit_of_listener(
    worker: &Worker,
    pools: &Pools,
    cluster: &Cluster,
    limit: Option<&Arc<ConnectionLimit>>,
) -> Result<Option<ConnectionPermit>, LimitReached> {
    let since = worker.timers.now();
    loop {
        let permit = pools.permit_of(limit);
        let waited = worker.timers.now().saturating_duration_since(since);
        if permit.is_ok() || waited >= cluster.connect_timeout {
            return permit;
        }
        worker.timers.sleep(RETRY_INTERVAL).await;
    }
}

/// Dials through a tunnel, if the endpoint's transport or the filter is configured for one; else
/// directly.
async fn reach(
    worker: &Rc<Worker>,
    pools: &Pools,
    cluster: &Arc<Cluster>,
    endpoint: &Arc<Endpoint>,
    proxy: &TcpProxy,
    origin: &Origin<'_>,
) -> Result<Stream, ConnectError> {
    bug::point("tcp_dial");
    let mut address = endpoint.address;
    let connect = match (cluster.tunnel_to(endpoint), &proxy.tunneling) {
        (Some(port), _) => {
            address.set_port(port);
            Connect {
                authority: endpoint.address.to_string().into(),
                alpn: Some(TCP_ALPN),
                headers: Vec::new(),
            }
        }
        (None, Some(tunneling)) => asked(tunneling, cluster, endpoint, origin),
        (None, None) => {
            let alpn = offers_mesh_alpn(cluster, endpoint).then(|| vec![TCP_ALPN.into()]);
            let dial = Dial {
                alpn: alpn.as_deref(),
                ..Dial::default()
            };
            return worker.dialler.connect(cluster, endpoint, &dial).await;
        }
    };
    let tunnel = hbone::pool::open(pools, worker, cluster, endpoint, address, &connect);
    tunnel.await.map(Stream::from)
}

fn asked(
    tunneling: &Tunneling,
    cluster: &Cluster,
    endpoint: &Endpoint,
    origin: &Origin<'_>,
) -> Connect {
    let mut record = Record::begun(SystemTime::now());
    record.cluster = Some(&cluster.name);
    record.upstream_host = Some(endpoint.address);
    record.direct_remote = Some(origin.peer);
    record.remote = Some(origin.peer);
    record.local = Some(origin.local);
    record.sni = origin.sni;
    let rendered = |format: &Format| {
        let mut text = Vec::new();
        render(format, &record, &mut text);
        text
    };
    let header = |(name, value): &(Box<str>, Format)| (name.clone(), rendered(value));
    Connect {
        authority: rendered(&tunneling.hostname),
        alpn: None,
        headers: tunneling.headers.iter().map(header).collect(),
    }
}

/// Whether the endpoint is dialled with one of the mesh's ALPNs. A cluster that HTTP and TCP share
/// offers HTTP's; a TCP connection between sidecars then offers `anyam-tcp` instead.
fn offers_mesh_alpn(cluster: &Cluster, endpoint: &Endpoint) -> bool {
    let Some(Transport::Tls(context)) = cluster.transport_of(endpoint) else {
        return false;
    };
    let offered = &context.options().alpn;
    offered.iter().any(|name| name.starts_with(b"anyam-"))
}
