//! Connections to upstreams, per worker: kept while idle, shared where the protocol shares.
//!
//! HTTP/1: last in, first out, so that the connection most likely alive is used and the others can
//! age. A connection is checked before it is used again; one that the upstream closed is dropped.
//! HTTP/2: one connection per endpoint until its streams (or, with tunnels, windows) run out, then
//! another.
//!
//! - `host`: the connections to one endpoint; `shared`: an HTTP/2 connection and its streams
//! - `place`: places for connections under the limits of a cluster and a listener

pub(crate) mod host;
mod place;
pub(crate) mod shared;

use std::cell::RefCell;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use foldhash::HashMap;
use tokio::sync::Notify;

use self::host::{HostPool, Idle};
pub use self::place::ConnectionSlot;
pub(crate) use self::place::LimitReached;
use crate::bug;
use crate::config::cluster::{Transport, UpstreamProtocol};
use crate::connection_limit::ConnectionLimit;
use crate::http::forward::upstream::UpstreamIo;
use crate::http::request::error::Failure;
use crate::message::head::Version;
use crate::tls::ClientContext;
use crate::upstream::cluster::Cluster;
use crate::upstream::endpoint::Endpoint;
use crate::worker::Worker;

/// How often idle connections are checked.
const SWEEP: Duration = Duration::from_secs(1);

/// The key of a pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct PoolKey {
    cluster: u64,
    address: SocketAddr,
    transport: u32,
    /// `Some`: the version is the downstream request's.
    follows: Option<Version>,
    carries: Carries,
}

/// What the connections of a pool are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Carries {
    Requests,
    Tunnels,
    /// They are counted here, and not kept.
    Tcp,
}

/// All pools of a worker.
#[derive(Default)]
pub struct Pools {
    hosts: RefCell<HashMap<PoolKey, Rc<HostPool>>>,
    filled: Notify,
}

/// The endpoint of a checkout.
pub struct CheckoutTarget<'a> {
    pub cluster: &'a Arc<Cluster>,
    pub endpoint: &'a Arc<Endpoint>,
    /// The request's own, for clusters that follow it.
    pub version: Version,
    pub purpose: Purpose,
    /// The limit of the listener that the connection is for.
    pub limit: Option<&'a Arc<ConnectionLimit>>,
}

/// What a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// An exchange, by any version that the cluster has.
    Exchange,
    /// An upgrade, which HTTP/2 upstreams have to agree to take (RFC 8441).
    Upgrade,
    /// An upgrade that has no form in HTTP/2: where the endpoint supports both, HTTP/1 is used.
    Http1Upgrade,
    /// Raw bytes (a CONNECT that ends here): a connection of its own, never reused.
    Raw,
}

/// A connection for one exchange, and the pool that it returns to.
pub struct Lease {
    pub up: UpstreamIo,
    host: Rc<HostPool>,
}

impl Pools {
    /// A connection to the endpoint: an idle one, a stream of a shared one, or a new one.
    ///
    /// # Errors
    /// When connecting fails or a limit is reached.
    pub async fn checkout(
        &self,
        worker: &Worker,
        target: &CheckoutTarget<'_>,
    ) -> Result<Lease, Failure> {
        let host = self.host(target);
        host.oldest.set(target.cluster.oldest_connection());
        if target.purpose == Purpose::Raw {
            let up = host.raw(self, worker, target).await?;
            return Ok(Lease { up, host });
        }
        let version = match target.cluster.protocol {
            UpstreamProtocol::Http1 => Some(Version::Http11),
            UpstreamProtocol::Http2 => Some(Version::Http2),
            UpstreamProtocol::Downstream => Some(follow(target.version)),
            UpstreamProtocol::Auto => match target.cluster.transport_of(target.endpoint) {
                Some(Transport::Tls(context))
                    if target.purpose == Purpose::Http1Upgrade && offers_http1(context) =>
                {
                    Some(Version::Http11)
                }
                Some(Transport::Tls(_)) => host.alpn_version.get(),
                _ => Some(Version::Http11),
            },
        };
        let up = match version {
            Some(Version::Http2) => host.stream(self, worker, target).await?,
            Some(_) => host.exclusive(self, worker, target).await?,
            None => host.first(self, worker, target).await?,
        };
        Ok(Lease { up, host })
    }

    /// Takes a connection back after a complete exchange.
    pub fn checkin(&self, lease: Lease, cluster: &Cluster, now: Instant) {
        let Lease { up, host } = lease;
        let UpstreamIo::H1(mut client) = up else {
            return;
        };
        let spent = cluster
            .max_requests_per_connection
            .is_some_and(|max| client.requests >= max);
        let old = cluster
            .max_connection_duration
            .is_some_and(|max| now.saturating_duration_since(client.since) >= max);
        let old = old || host.is_old(client.since);
        if client.io.is_tunnel() || spent || old || !client.codec.next(&client.io.input) {
            return;
        }
        // Requests wait for another endpoint or on another worker: the connection is closed, which
        // frees its place for them.
        let contended = cluster.limits.is_contended() || client.place.is_contended();
        if contended && !host.is_awaited() {
            return;
        }
        client.reused = true;
        client.io.release();
        host.update_limits(cluster);
        let mut idle = host.idle.borrow_mut();
        bug::point("checkin");
        idle.push(Idle { client, since: now });
        drop(idle);
        host.changed.notify_one();
    }

    /// Closes what was idle for too long, was closed by the other end, or belongs to a cluster
    /// that is gone. Runs as long as the worker does.
    pub async fn sweep(&self, worker: &Rc<Worker>) {
        loop {
            if self.hosts.borrow().is_empty() {
                self.filled.notified().await;
            }
            self.rest(worker).await;
            // Whether requests wait, and from when on connections may be used.
            let clusters: HashMap<u64, (bool, Option<Instant>)> = {
                let snapshot = worker.store.borrow();
                let clusters = snapshot.clusters.values();
                let of =
                    |c: &Arc<Cluster>| (c.id, (c.limits.is_contended(), c.oldest_connection()));
                clusters.map(of).collect()
            };
            self.hosts.borrow_mut().retain(|key, host| {
                let cluster = clusters.get(&key.cluster);
                if let Some((_, oldest)) = cluster.filter(|_| key.carries == Carries::Requests) {
                    host.oldest.set(*oldest);
                }
                let kept = cluster.is_some_and(|(contended, _)| !contended);
                // A host with connections in use or waiting requests stays in the map.
                host.close_expired(kept) || Rc::strong_count(host) > 1
            });
        }
    }

    /// Waits for the next sweep; meanwhile closes the connections that have been idle for longest,
    /// when memory or descriptors are short.
    async fn rest(&self, worker: &Worker) {
        let mut sleep = std::pin::pin!(worker.timers.sleep(SWEEP));
        poll_fn(|cx| {
            let reaper = &worker.overload.idle;
            if reaper.is_active() {
                self.hosts
                    .borrow()
                    .values()
                    .for_each(|host| host.reap(reaper));
            }
            sleep.as_mut().poll(cx)
        })
        .await;
    }

    /// Closes the connection of a cluster that has been idle for longest; `false`: there is none.
    fn close_idle(&self, cluster: u64) -> bool {
        let hosts = self.hosts.borrow();
        let of_cluster = hosts.iter().filter(|(key, _)| key.cluster == cluster);
        let oldest = of_cluster
            .filter_map(|(_, host)| Some((host.idle_since(|_| true)?, host)))
            .min_by_key(|(since, _)| *since);
        oldest.is_some_and(|(since, host)| host.close_idle(since, |_| true))
    }

    /// The pool that counts TCP connections to the endpoint.
    pub(crate) fn counting_tcp(&self, cluster: &Cluster, endpoint: &Endpoint) -> Rc<HostPool> {
        self.at(PoolKey {
            cluster: cluster.id,
            address: endpoint.address,
            transport: endpoint.transport.unwrap_or(u32::MAX),
            follows: None,
            carries: Carries::Tcp,
        })
    }

    fn host(&self, target: &CheckoutTarget<'_>) -> Rc<HostPool> {
        let follows = matches!(target.cluster.protocol, UpstreamProtocol::Downstream);
        self.at(PoolKey {
            cluster: target.cluster.id,
            address: target.endpoint.address,
            transport: target.endpoint.transport.unwrap_or(u32::MAX),
            follows: follows.then(|| follow(target.version)),
            carries: Carries::Requests,
        })
    }

    /// The pool of connections to `address` that carry tunnels.
    pub(crate) fn carrying_tunnels(
        &self,
        cluster: &Cluster,
        endpoint: &Endpoint,
        address: SocketAddr,
    ) -> Rc<HostPool> {
        self.at(PoolKey {
            cluster: cluster.id,
            address,
            transport: endpoint.transport.unwrap_or(u32::MAX),
            follows: None,
            carries: Carries::Tunnels,
        })
    }

    fn at(&self, key: PoolKey) -> Rc<HostPool> {
        let mut hosts = self.hosts.borrow_mut();
        if let Some(host) = hosts.get(&key) {
            return host.clone();
        }
        self.filled.notify_one();
        hosts.entry(key).or_default().clone()
    }
}

fn offers_http1(context: &ClientContext) -> bool {
    let mut offered = context.options().alpn.iter();
    offered.any(|name| !host::is_h2(name))
}

fn follow(version: Version) -> Version {
    match version {
        Version::Http2 => Version::Http2,
        _ => Version::Http11,
    }
}
