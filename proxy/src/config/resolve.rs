//! DNS clusters, kept resolved: their names are looked up again and again, and their endpoints
//! replaced when the addresses change.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::task::AbortHandle;

use super::cluster::{AddressFamily, Cluster, Discovery, DnsHost};
use super::{Name, Store};
use crate::config::compile::set_resolved;

/// The first wait after a failure; doubles up to the refresh rate.
const RETRY: Duration = Duration::from_millis(500);

/// Follows the snapshot: one task for each DNS cluster.
pub async fn keep_resolved(store: Arc<Store>) {
    let mut snapshots = store.subscribe();
    let mut running: HashMap<Name, (Arc<Cluster>, AbortHandle)> = HashMap::new();
    loop {
        let snapshot = store.load();
        running.retain(|name, (cluster, task)| {
            let current = snapshot.clusters.get(name);
            let stays = current.is_some_and(|current| Arc::ptr_eq(current, cluster));
            if !stays {
                task.abort();
            }
            stays
        });
        for (name, cluster) in &snapshot.clusters {
            if matches!(cluster.discovery, Discovery::Dns { .. }) && !running.contains_key(name) {
                let task = tokio::spawn(resolve(cluster.clone())).abort_handle();
                running.insert(name.clone(), (cluster.clone(), task));
            }
        }
        drop(snapshot);
        if snapshots.changed().await.is_err() {
            return;
        }
    }
}

async fn resolve(cluster: Arc<Cluster>) {
    let Discovery::Dns {
        logical,
        hosts,
        refresh,
        family,
        ..
    } = &cluster.discovery
    else {
        return;
    };
    let mut wait = RETRY;
    loop {
        let mut found = Vec::new();
        let mut failed = false;
        for host in hosts {
            match look_up(host, *family, *logical).await {
                Ok(addresses) => found.extend(addresses.into_iter().map(|at| (at, host))),
                Err(error) => {
                    tracing::warn!(cluster = %cluster.name, host = %host.host, %error, "DNS");
                    failed = true;
                }
            }
        }
        // A resolver that is away takes no endpoint with it.
        if !failed {
            set_resolved(&cluster, found);
            wait = *refresh;
        } else {
            wait = (wait * 2).min((*refresh).max(RETRY));
        }
        tokio::time::sleep(wait).await;
    }
}

async fn look_up(
    host: &DnsHost,
    family: AddressFamily,
    logical: bool,
) -> std::io::Result<Vec<SocketAddr>> {
    if let Ok(address) = host.host.parse::<IpAddr>() {
        return Ok(vec![SocketAddr::new(address, host.port)]);
    }
    let found = tokio::net::lookup_host((&*host.host, host.port)).await?;
    let mut addresses = of_family(found.collect(), family);
    if logical {
        addresses.truncate(1);
    }
    Ok(addresses)
}

fn of_family(all: Vec<SocketAddr>, family: AddressFamily) -> Vec<SocketAddr> {
    let (v4, v6): (Vec<_>, Vec<_>) = all.into_iter().partition(SocketAddr::is_ipv4);
    match family {
        AddressFamily::V4 => v4,
        AddressFamily::V6 => v6,
        AddressFamily::PreferV4 if v4.is_empty() => v6,
        AddressFamily::PreferV4 => v4,
        AddressFamily::PreferV6 if v6.is_empty() => v4,
        AddressFamily::PreferV6 => v6,
        AddressFamily::All => v4.into_iter().chain(v6).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_are_chosen_as_envoy_does() {
        let v4: SocketAddr = "192.0.2.1:80".parse().unwrap();
        let v6: SocketAddr = "[2001:db8::1]:80".parse().unwrap();
        let both = || vec![v6, v4];
        assert_eq!(of_family(both(), AddressFamily::V4), [v4]);
        assert_eq!(of_family(both(), AddressFamily::PreferV6), [v6]);
        assert_eq!(of_family(vec![v4], AddressFamily::PreferV6), [v4]);
        assert_eq!(of_family(both(), AddressFamily::All), [v4, v6]);
    }
}
