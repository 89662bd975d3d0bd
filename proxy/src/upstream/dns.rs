//! Names of STRICT_DNS and LOGICAL_DNS clusters, resolved by the system's resolver.
//!
//! A lookup blocks a thread of the runtime's blocking pool, so the number of concurrent ones is
//! limited. A slow lookup gives its permit to another name while it continues, so names whose
//! resolver does not answer do not hold up those that resolve. Answers are kept by name: a name
//! that does not resolve keeps its last addresses (as in Envoy), and has no effect on the other
//! names of its cluster.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::{JoinHandle, JoinSet, spawn_blocking};

use super::endpoints::bind;
use crate::config::cluster::{AddressFamily, Discovery, LbEndpoint};
use crate::upstream::cluster::Cluster;
use crate::upstream::endpoint::{Endpoint, Priority};

/// How long a start, and the first configuration, wait for names.
pub const FIRST: Duration = Duration::from_secs(5);
/// How long a later change of the configuration waits for names that are new in it.
pub const LATER: Duration = Duration::from_secs(1);
/// Concurrent lookups, not counting slow ones.
const CONCURRENT: usize = 32;
/// A lookup that takes longer is slow.
const SLOW: Duration = Duration::from_millis(500);
/// Concurrent slow lookups; below the 512 threads of the runtime's blocking pool.
const MAX_SLOW: usize = 256;
/// Addresses of one name that are used.
const MAX_ADDRESSES: usize = 256;
/// An answer younger than this is used for every cluster that has the name.
const FRESH: Duration = Duration::from_millis(250);

/// Asks for the addresses of one name; blocks.
type Lookup = dyn Fn(&str) -> io::Result<BTreeSet<IpAddr>> + Send + Sync;

/// Resolves names; clones share answers and the bound on lookups.
#[derive(Clone)]
pub struct Resolver {
    lookup: Arc<Lookup>,
    turns: Arc<Semaphore>,
    slow: Arc<Semaphore>,
    answers: Arc<Mutex<HashMap<Box<str>, ResolvedAddresses>>>,
}

/// The last answer for a name.
struct ResolvedAddresses {
    addresses: BTreeSet<IpAddr>,
    at: Instant,
}

impl Default for Resolver {
    /// By the system's resolver.
    fn default() -> Self {
        Self::new(|host| {
            let found = (host, 0).to_socket_addrs()?;
            Ok(found.map(|address| address.ip()).collect())
        })
    }
}

impl Resolver {
    /// `lookup` may block.
    pub fn new(
        lookup: impl Fn(&str) -> io::Result<BTreeSet<IpAddr>> + Send + Sync + 'static,
    ) -> Self {
        Self {
            lookup: Arc::new(lookup),
            turns: Arc::new(Semaphore::new(CONCURRENT)),
            slow: Arc::new(Semaphore::new(MAX_SLOW)),
            answers: Arc::default(),
        }
    }

    /// Resolves the names of DNS clusters, each beside the version that it replaces, before
    /// traffic reaches them. Returns once every name is known or has failed, or after `limit`;
    /// lookups that take longer go on, and their clusters get the endpoints when they are there.
    pub async fn warm(
        &self,
        clusters: impl IntoIterator<Item = (Arc<Cluster>, Option<Arc<Cluster>>)>,
        limit: Duration,
    ) {
        let mut lookups = JoinSet::new();
        for (cluster, previous) in clusters {
            if matches!(cluster.discovery, Discovery::Dns { .. }) {
                let resolver = self.clone();
                lookups.spawn(async move { resolver.refresh(&cluster, previous.as_deref()).await });
            }
        }
        let all = async { while lookups.join_next().await.is_some() {} };
        if tokio::time::timeout(limit, all).await.is_err() {
            tracing::warn!(
                clusters = lookups.len(),
                "clusters whose names did not resolve within {limit:?} begin without endpoints"
            );
            lookups.detach_all();
        }
    }

    /// Resolves a DNS cluster's names once and publishes its endpoints as they change; hosts that
    /// `previous` had keep their state. Other clusters are left alone.
    pub async fn refresh(&self, cluster: &Cluster, previous: Option<&Cluster>) {
        let Discovery::Dns { hosts, .. } = &cluster.discovery else {
            return;
        };
        let mut found: Vec<_> = hosts.iter().map(|host| self.last(&host.host)).collect();
        let ask = |(place, host)| async move { (place, host, self.resolve(host).await) };
        let mut asked: FuturesUnordered<_> = hosts.iter().enumerate().map(ask).collect();
        if hosts.is_empty() {
            publish(cluster, previous, &found);
        }
        while let Some((place, host, answer)) = asked.next().await {
            match (answer, found.get_mut(place)) {
                (Ok(addresses), Some(known)) => {
                    *known = Some(addresses);
                    publish(cluster, previous, &found);
                }
                (Err(error), _) => {
                    let (cluster, host) = (&cluster.name, &host.host);
                    tracing::warn!(%cluster, %host, %error, "a name does not resolve; its last addresses stay");
                }
                (Ok(_), None) => {}
            }
        }
    }

    /// Forgets the answers for names that are not among `hosts`.
    pub fn retain(&self, hosts: &HashSet<&str>) {
        self.answers().retain(|host, _| hosts.contains(&**host));
    }

    fn last(&self, host: &str) -> Option<BTreeSet<IpAddr>> {
        let answers = self.answers();
        answers.get(host).map(|answer| answer.addresses.clone())
    }

    async fn resolve(&self, host: &LbEndpoint) -> io::Result<BTreeSet<IpAddr>> {
        if let Ok(address) = host.host.parse::<IpAddr>() {
            return Ok(BTreeSet::from([address]));
        }
        let turn = self.turns.clone().acquire_owned().await;
        let turn = turn.map_err(io::Error::other)?;
        if let Some(answer) = self.answers().get(&host.host)
            && answer.at.elapsed() < FRESH
        {
            return Ok(answer.addresses.clone());
        }
        let (lookup, name) = (self.lookup.clone(), host.host.clone());
        let blocking = spawn_blocking(move || lookup(&name));
        // A task of its own: the lookup continues, and is counted, when its caller no longer waits
        // for it.
        let looking_up = tokio::spawn(counted(blocking, turn, self.slow.clone()));
        let addresses = looking_up.await.map_err(io::Error::other)??;
        let answer = ResolvedAddresses {
            addresses: addresses.clone(),
            at: Instant::now(),
        };
        self.answers().insert(host.host.clone(), answer);
        Ok(addresses)
    }

    fn answers(&self) -> MutexGuard<'_, HashMap<Box<str>, ResolvedAddresses>> {
        let answers = self.answers.lock();
        answers.unwrap_or_else(PoisonError::into_inner)
    }
}

/// Waits for a lookup, which holds its permit until it is slow and has got one for slow lookups.
async fn counted(
    mut blocking: JoinHandle<io::Result<BTreeSet<IpAddr>>>,
    turn: OwnedSemaphorePermit,
    slow: Arc<Semaphore>,
) -> io::Result<BTreeSet<IpAddr>> {
    let becoming_slow = async {
        tokio::time::sleep(SLOW).await;
        slow.acquire_owned().await
    };
    let _slow = tokio::select! {
        found = &mut blocking => return found.map_err(io::Error::other)?,
        slow = becoming_slow => slow,
    };
    drop(turn);
    blocking.await.map_err(io::Error::other)?
}

/// Publishes the endpoints of the names that have addresses, if they have changed. `found`: in the
/// order of the cluster's hosts.
fn publish(cluster: &Cluster, previous: Option<&Cluster>, found: &[Option<BTreeSet<IpAddr>>]) {
    let Discovery::Dns {
        logical,
        hosts,
        policy,
        family,
        ..
    } = &cluster.discovery
    else {
        return;
    };
    let mut resolved: Vec<(SocketAddr, &LbEndpoint)> = Vec::new();
    for (host, addresses) in hosts.iter().zip(found) {
        let wanted = if *logical { 1 } else { MAX_ADDRESSES };
        // Sorted: round-robin answers are not a change.
        let addresses = of_family(addresses.clone().unwrap_or_default(), *family);
        let chosen = addresses.into_iter().take(wanted);
        resolved.extend(chosen.map(|ip| (SocketAddr::new(ip, host.port), host)));
    }
    let now = cluster.endpoints.load_full();
    let before = match previous {
        Some(previous) if !now.ready => previous.endpoints.load_full(),
        _ => now.clone(),
    };
    let next = bind(cluster, resolved, &before, Instant::now());
    if !now.ready || !are_same(&next, &now.priorities) {
        cluster.set_endpoints(next, *policy);
    }
}

/// Whether both have the same endpoints with the same settings.
fn are_same(a: &[Priority], b: &[Priority]) -> bool {
    let same = |(a, b): (&Arc<Endpoint>, &Arc<Endpoint>)| {
        (a.address, a.weight, a.transport, a.tunnel_port, a.health)
            == (b.address, b.weight, b.transport, b.tunnel_port, b.health)
            && (&a.hash_key, &a.check, a.leaving) == (&b.hash_key, &b.check, b.leaving)
            && (a.locality_weight, &a.lb_metadata) == (b.locality_weight, &b.lb_metadata)
            && (
                &a.host_name,
                &a.locality,
                &a.transport_metadata,
                &a.workload,
            ) == (
                &b.host_name,
                &b.locality,
                &b.transport_metadata,
                &b.workload,
            )
    };
    let all = |(a, b): (&Priority, &Priority)| {
        a.endpoints.len() == b.endpoints.len() && a.endpoints.iter().zip(&b.endpoints).all(same)
    };
    a.len() == b.len() && a.iter().zip(b).all(all)
}

fn of_family(all: BTreeSet<IpAddr>, family: AddressFamily) -> BTreeSet<IpAddr> {
    let only = |v4: bool| {
        all.iter()
            .copied()
            .filter(|ip| ip.is_ipv4() == v4)
            .collect()
    };
    let prefer = |v4: bool| -> BTreeSet<IpAddr> {
        let preferred: BTreeSet<IpAddr> = only(v4);
        if preferred.is_empty() {
            only(!v4)
        } else {
            preferred
        }
    };
    match family {
        AddressFamily::V4 => only(true),
        AddressFamily::V6 => only(false),
        AddressFamily::PreferV4 => prefer(true),
        AddressFamily::PreferV6 => prefer(false),
        AddressFamily::All => all,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_are_chosen_and_preferred() {
        let v4: IpAddr = [10, 0, 0, 1].into();
        let v6: IpAddr = "fd00::1".parse().unwrap();
        let both = BTreeSet::from([v4, v6]);
        let chosen = |family| of_family(both.clone(), family);
        assert_eq!(chosen(AddressFamily::V4), BTreeSet::from([v4]));
        assert_eq!(chosen(AddressFamily::PreferV6), BTreeSet::from([v6]));
        assert_eq!(chosen(AddressFamily::All), both);
        let lone = of_family(BTreeSet::from([v4]), AddressFamily::PreferV6);
        assert_eq!(lone, BTreeSet::from([v4]));
    }
}
