//! Names of STRICT_DNS and LOGICAL_DNS clusters, resolved by the system's resolver.
//!
//! A lookup blocks a thread of the runtime's blocking pool, so how many run at once is bounded. A
//! name that does not resolve leaves the endpoints as they are: a failing resolver must not take a
//! service down (as Envoy).

use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use tokio::sync::Semaphore;

use super::endpoints::bind;
use crate::config::cluster::{AddressFamily, Discovery, LbEndpoint};
use crate::upstream::cluster::Cluster;

/// Lookups at once.
const CONCURRENT: usize = 4;
/// Addresses of one name that are used.
const MAX_ADDRESSES: usize = 256;

/// Resolves names; clones share the bound on lookups.
#[derive(Clone)]
pub struct Resolver {
    turns: Arc<Semaphore>,
}

impl Default for Resolver {
    fn default() -> Self {
        Self {
            turns: Arc::new(Semaphore::new(CONCURRENT)),
        }
    }
}

impl Resolver {
    /// Resolves a DNS cluster's names once and publishes its endpoints if they changed. Other
    /// clusters are left alone.
    pub async fn refresh(&self, cluster: &Cluster) {
        let Discovery::Dns {
            logical,
            hosts,
            overprovisioning,
            family,
            ..
        } = &cluster.discovery
        else {
            return;
        };
        let mut resolved: Vec<(SocketAddr, &LbEndpoint)> = Vec::new();
        for host in hosts {
            let addresses = match self.lookup(host, *family).await {
                Ok(addresses) => addresses,
                Err(error) => {
                    let (cluster, host) = (&cluster.name, &host.host);
                    tracing::warn!(%cluster, %host, %error, "a name does not resolve; the last endpoints stay");
                    return;
                }
            };
            let wanted = if *logical { 1 } else { MAX_ADDRESSES };
            let chosen = addresses.into_iter().take(wanted);
            resolved.extend(chosen.map(|ip| (SocketAddr::new(ip, host.port), host)));
        }
        let before = cluster.endpoints.load_full();
        let known: BTreeSet<SocketAddr> = before.all().map(|e| e.address).collect();
        let found: BTreeSet<SocketAddr> = resolved.iter().map(|(address, _)| *address).collect();
        if !before.ready || known != found {
            cluster.set_endpoints(bind(cluster, resolved, &before), *overprovisioning);
        }
    }

    async fn lookup(
        &self,
        host: &LbEndpoint,
        family: AddressFamily,
    ) -> io::Result<BTreeSet<IpAddr>> {
        if let Ok(address) = host.host.parse::<IpAddr>() {
            return Ok(BTreeSet::from([address]));
        }
        let _turn = self.turns.acquire().await.map_err(io::Error::other)?;
        let found = tokio::net::lookup_host((&*host.host, host.port)).await?;
        // Sorted: round-robin answers are not a change.
        Ok(of_family(
            found.map(|address| address.ip()).collect(),
            family,
        ))
    }
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
