//! Endpoints of a cluster, with what is known of each.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use super::host::HostState;
use super::lb::Balance;
use super::lb::subset::SubsetTable;
use crate::config::Name;
use crate::config::endpoint::{
    AssignmentPolicy, HealthStatus, LbMetadata, TransportMetadata, Workload,
};
use crate::config::health::EndpointCheck;

/// envoy.config.endpoint.v3.ClusterLoadAssignment, compiled. Replaced whole, behind
/// [`super::cluster::Cluster::endpoints`]; also when an endpoint is ejected or comes back.
#[derive(Default)]
pub struct EndpointSet {
    /// All endpoints, by priority.
    pub priorities: Vec<Priority>,
    /// Rises with each replacement.
    pub version: u64,
    pub policy: AssignmentPolicy,
    /// False until the first assignment arrived: the cluster is warming.
    pub ready: bool,
    /// The endpoints that load balancing chooses from, by health and ejection. Derived from the
    /// fields above.
    pub balance: Balance,
    /// Of clusters that have subsets; derived as well.
    pub subsets: Option<SubsetTable>,
    /// Until when some of the endpoints are new, where new ones slow-start; weights change meanwhile.
    pub ramps_until: Option<Instant>,
    /// When endpoints last came or went, where no older connection is to be used after that.
    pub connections_from: Option<Instant>,
    /// Of [`super::local::LocalCluster`], when the balance was computed.
    pub local_version: u64,
    /// Where the endpoints of sessions are found.
    pub by_address: AddressIndex,
}

/// The places of endpoints, sorted by address. Endpoint sets of one assignment share it.
#[derive(Clone, Default)]
pub struct AddressIndex(Arc<[EndpointPlace]>);

/// Priority, and place in it.
type EndpointPlace = (u32, u32);

impl AddressIndex {
    pub fn new(priorities: &[Priority]) -> Self {
        let mut all: Vec<(SocketAddr, EndpointPlace)> = Vec::new();
        for (priority, group) in (0u32..).zip(priorities) {
            let of_group = group.endpoints.iter().zip(0u32..);
            all.extend(of_group.map(|(endpoint, place)| (endpoint.address, (priority, place))));
        }
        all.sort_unstable();
        Self(all.into_iter().map(|(_, place)| place).collect())
    }
}

impl EndpointSet {
    pub fn all(&self) -> impl Iterator<Item = &Arc<Endpoint>> {
        self.priorities.iter().flat_map(|p| &p.endpoints)
    }

    /// The endpoint at this address, with its priority; of several priorities the first.
    pub fn find(&self, address: SocketAddr) -> Option<(u32, &Arc<Endpoint>)> {
        let at = |&(priority, place): &EndpointPlace| {
            let group = self.priorities.get(usize::try_from(priority).ok()?)?;
            group.endpoints.get(usize::try_from(place).ok()?)
        };
        let places = &self.by_address.0;
        let first = places.partition_point(|place| at(place).is_some_and(|e| e.address < address));
        let place = places.get(first)?;
        let found = at(place).filter(|endpoint| endpoint.address == address)?;
        Some((place.0, found))
    }

    /// Its endpoints without those that were only kept because they passed their health checks, and
    /// do not any more.
    pub fn staying(&self) -> (Vec<Priority>, AddressIndex) {
        let stays = |endpoint: &Arc<Endpoint>| {
            !(endpoint.leaving && endpoint.state.health.get().is_failed())
        };
        if self.all().all(stays) {
            return (self.priorities.clone(), self.by_address.clone());
        }
        let of_priority = |group: &Priority| Priority {
            endpoints: group
                .endpoints
                .iter()
                .filter(|e| stays(e))
                .cloned()
                .collect(),
        };
        let priorities: Vec<_> = self.priorities.iter().map(of_priority).collect();
        let index = AddressIndex::new(&priorities);
        (priorities, index)
    }

    /// How many there are, by their health.
    pub fn members(&self) -> MemberCounts {
        let mut counts = MemberCounts::default();
        let one_more = |count: &mut i64| *count = count.saturating_add(1);
        for endpoint in self.all() {
            one_more(&mut counts.total);
            if endpoint.state.health.get().is_uncounted() {
                one_more(&mut counts.excluded);
            }
            match endpoint.status() {
                HealthStatus::Healthy => one_more(&mut counts.healthy),
                HealthStatus::Degraded => one_more(&mut counts.degraded),
                HealthStatus::Draining | HealthStatus::Unhealthy => {}
            }
        }
        counts
    }

    /// Whether both have endpoints at the same addresses.
    pub fn has_same_addresses(&self, other: &[Priority]) -> bool {
        let sorted = |priorities: &[Priority]| {
            let all = priorities.iter().flat_map(|p| &p.endpoints);
            let mut all: Vec<SocketAddr> = all.map(|endpoint| endpoint.address).collect();
            all.sort_unstable();
            all
        };
        sorted(&self.priorities) == sorted(other)
    }

    pub fn len(&self) -> usize {
        self.priorities.iter().map(|p| p.endpoints.len()).sum()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Envoy's `membership_…`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemberCounts {
    pub total: i64,
    pub healthy: i64,
    pub degraded: i64,
    pub excluded: i64,
}

#[derive(Clone, Default)]
pub struct Priority {
    pub endpoints: Vec<Arc<Endpoint>>,
}

pub struct Endpoint {
    pub address: SocketAddr,
    pub host_name: Option<Name>,
    /// At least 1.
    pub weight: u32,
    pub locality: Option<Name>,
    /// The weight of its locality; 0 where it has none.
    pub locality_weight: u32,
    /// What subsets are formed by; shared by endpoints with the same.
    pub lb_metadata: Option<Arc<LbMetadata>>,
    /// The metadata that `transport_socket_matches` compare; shared by endpoints with the same.
    pub transport_metadata: Arc<TransportMetadata>,
    /// Index into [`crate::config::cluster::ClusterDef::transport`], chosen by metadata at compile time.
    /// `None`: no match, connecting fails closed.
    pub transport: Option<u32>,
    /// Where it takes tunnels: `filter_metadata`, `anyam.tunnel: {port: 15008}`.
    pub tunnel_port: Option<u16>,
    /// What it is hashed by in place of its address: `filter_metadata`, `envoy.lb: {hash_key: …}`.
    pub hash_key: Option<Box<str>>,
    pub health: HealthStatus,
    /// How it is checked, where that is configured for it.
    pub check: Option<Arc<EndpointCheck>>,
    /// Discovery does not have it any more, but it passes its health checks.
    pub leaving: bool,
    /// Active requests, ejection, counters: carried over while the address stays.
    pub state: Arc<HostState>,
    /// Labels for telemetry, from `filter_metadata`, Istio's `istio: {workload:
    /// "name;namespace;canonical service;canonical revision;cluster"}`.
    pub workload: Option<Arc<Workload>>,
}

impl Endpoint {
    /// Its health by all that is known: discovery, outlier detection, active checks.
    pub fn status(&self) -> HealthStatus {
        let active = self.state.health.get();
        if self.state.is_ejected() || active.is_failed() {
            return HealthStatus::Unhealthy;
        }
        match self.health {
            HealthStatus::Healthy if active.is_degraded() => HealthStatus::Degraded,
            by_discovery => by_discovery,
        }
    }

    /// Whether it is checked, where its cluster has health checks.
    pub fn is_checkable(&self) -> bool {
        !self.check.as_ref().is_some_and(|check| check.disabled)
    }

    /// Where it is checked.
    pub fn check_address(&self) -> SocketAddr {
        let check = self.check.as_deref();
        let ip = check.and_then(|check| check.address);
        let port = check.and_then(|check| check.port);
        SocketAddr::new(
            ip.unwrap_or(self.address.ip()),
            port.unwrap_or(self.address.port()),
        )
    }

    /// Of which nothing but the address is known.
    pub fn at(address: SocketAddr) -> Self {
        Self {
            address,
            host_name: None,
            weight: 1,
            locality: None,
            locality_weight: 0,
            lb_metadata: None,
            transport_metadata: Arc::default(),
            transport: None,
            tunnel_port: None,
            hash_key: None,
            health: HealthStatus::Healthy,
            check: None,
            leaving: false,
            state: Arc::default(),
            workload: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(priorities: &[&[&str]]) -> EndpointSet {
        let endpoint = |address: &&str| Arc::new(Endpoint::at(address.parse().unwrap()));
        let priority = |addresses: &&[&str]| Priority {
            endpoints: addresses.iter().map(endpoint).collect(),
        };
        let priorities: Vec<_> = priorities.iter().map(priority).collect();
        EndpointSet {
            by_address: AddressIndex::new(&priorities),
            priorities,
            ..EndpointSet::default()
        }
    }

    #[test]
    fn endpoints_are_found_by_address_in_their_first_priority() {
        let (two, one) = ("10.0.0.2:80", "10.0.0.1:80");
        let set = set(&[&[], &[two, "[::1]:80", one], &["10.0.0.1:81", two]]);
        for (address, priority) in [(one, 1), (two, 1), ("[::1]:80", 1), ("10.0.0.1:81", 2)] {
            let address = address.parse().unwrap();
            let (found, endpoint) = set.find(address).unwrap();
            assert_eq!((found, endpoint.address), (priority, address));
        }
        for absent in ["0.0.0.0:0", "10.0.0.1:82", "10.0.0.3:80", "[::2]:80"] {
            assert!(set.find(absent.parse().unwrap()).is_none(), "{absent}");
        }
        assert!(EndpointSet::default().find(one.parse().unwrap()).is_none());
    }
}
