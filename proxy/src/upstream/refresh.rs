//! The endpoints of a cluster, published with what balancing is computed to be: when they come, when
//! one is ejected or comes back, while new ones slow-start, and when the local cluster changes.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use super::lb::subset::{SubsetChoice, SubsetTable};
use super::lb::{BalanceSettings, Choice, ZoneChoice, ZoneObstacle};
use super::local::{LocalCluster, LocalHosts};
use crate::config::balancing::{LocalityPolicy, ZoneAware};
use crate::config::endpoint::AssignmentPolicy;
use crate::upstream::cluster::Cluster;
use crate::upstream::endpoint::{AddressIndex, EndpointSet, Priority};

/// While endpoints slow-start, weights are computed so often in their window, but not more often than
/// once in [`SHORTEST`] nor less often than once in [`LONGEST`].
const STEPS: u32 = 10;
const SHORTEST: Duration = Duration::from_millis(250);
const LONGEST: Duration = Duration::from_secs(1);
/// Spreads where picks in turn begin over successive sets.
const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;

/// What an endpoint set is computed from.
struct Basis {
    priorities: Vec<Priority>,
    policy: AssignmentPolicy,
    ready: bool,
    by_address: AddressIndex,
}

impl Cluster {
    /// Publishes new endpoints.
    pub fn set_endpoints(&self, priorities: Vec<Priority>, policy: AssignmentPolicy) {
        let by_address = AddressIndex::new(&priorities);
        self.replace(|_| Basis {
            priorities: priorities.clone(),
            policy,
            ready: true,
            by_address: by_address.clone(),
        });
        if self.slow_start.is_some() {
            self.rebuild.notify_one();
        }
        if let Some(checks) = &self.checks {
            checks.endpoints_changed();
        }
    }

    /// Works the balance out again, after an ejection or its end, a change of active health, or when time
    /// has passed.
    pub fn refresh(&self) {
        let ejected = self.detector.ejected();
        self.metrics.ejections_active.set(ejected.into());
        self.replace(|before| {
            let (priorities, by_address) = before.staying();
            Basis {
                priorities,
                policy: before.policy,
                ready: before.ready,
                by_address,
            }
        });
    }

    /// From when on connections may be used; `None`: however old they are.
    pub fn oldest_connection(&self) -> Option<Instant> {
        if !self.close_connections_on_host_set_change {
            return None;
        }
        self.endpoints.load().connections_from
    }

    /// Whether [`Cluster::keep_current`] may have something to do.
    pub fn needs_upkeep(&self) -> bool {
        self.lb.is_hash()
            || self.subsets.is_some()
            || self.slow_start.is_some()
            || self.local().is_some()
    }

    /// Computes what has become stale: tables, or what depends on the local cluster. For the control
    /// thread.
    pub fn keep_current(&self) {
        let stale = self.stale.swap(false, Relaxed);
        let local = self.local().map(LocalCluster::version);
        let known = self.endpoints.load().local_version;
        if stale || local.is_some_and(|version| version != known) {
            self.refresh();
        }
    }

    /// How long until weights are to be computed again because endpoints slow-start; `None`: none do.
    pub fn ramp_interval(&self) -> Option<Duration> {
        let settings = self.slow_start?;
        self.endpoints.load().ramps_until?;
        let interval = settings.window.checked_div(STEPS).unwrap_or(LONGEST);
        Some(interval.clamp(SHORTEST, LONGEST))
    }

    /// The local cluster, where balancing depends on it.
    fn local(&self) -> Option<&LocalCluster> {
        let local = self.place.local.as_ref()?;
        let other = *local.name != *self.name;
        (other && !self.lb.is_hash()).then_some(local)
    }

    fn replace(&self, basis: impl Fn(&EndpointSet) -> Basis) {
        let local = self.local();
        let (version, hosts) = (
            local.map_or(0, LocalCluster::version),
            local.and_then(LocalCluster::hosts),
        );
        let now = Instant::now();
        // Workers eject while the control thread replaces: the second of two concurrent updates
        // retries.
        let before = self.endpoints.rcu(|before| {
            let basis = basis(before);
            let next = before.version.wrapping_add(1);
            let settings = self.settings(basis.policy, hosts.as_deref(), now, next);
            let closes = self.close_connections_on_host_set_change && before.ready;
            let cut = closes && !before.has_same_addresses(&basis.priorities);
            Arc::new(EndpointSet {
                balance: settings.balance(&basis.priorities),
                subsets: self.subsets.as_ref().map(|subsets| {
                    SubsetTable::new(
                        subsets,
                        &basis.priorities,
                        &settings,
                        before.subsets.as_ref(),
                    )
                }),
                ramps_until: settings.ramps_until(&basis.priorities),
                connections_from: if cut {
                    Some(now)
                } else {
                    before.connections_from
                },
                local_version: version,
                version: next,
                priorities: basis.priorities,
                policy: basis.policy,
                ready: basis.ready,
                by_address: basis.by_address,
            })
        });
        let after = self.endpoints.load();
        if hosts.is_some() {
            self.count_zone(ZONE_RECALCULATED);
        }
        match after.balance.obstacle {
            Some(ZoneObstacle::LocalClusterNotOk) => self.count_zone(ZONE_LOCAL_NOT_OK),
            Some(ZoneObstacle::ClusterTooSmall) => self.count_zone(ZONE_TOO_SMALL),
            Some(ZoneObstacle::FewLocalities) | None => {}
        }
        let count = after.members();
        self.metrics.members.set(count.total);
        self.metrics.members_healthy.set(count.healthy);
        self.metrics.members_degraded.set(count.degraded);
        self.metrics.members_excluded.set(count.excluded);
        self.note_subsets(before.subsets.as_ref(), after.subsets.as_ref());
        self.note_local(&after);
    }

    fn settings<'a>(
        &'a self,
        assignment: AssignmentPolicy,
        local: Option<&'a LocalHosts>,
        now: Instant,
        version: u64,
    ) -> BalanceSettings<'a> {
        let aware = self.subsets.as_ref().map(|s| s.locality_weight_aware);
        let locality = match (self.locality, aware) {
            // As if localities had no weights.
            (LocalityPolicy::Weighted, Some(false)) if self.lb.is_hash() => LocalityPolicy::Ignored,
            (LocalityPolicy::Weighted, Some(false)) => {
                LocalityPolicy::ZoneAware(ZoneAware::default())
            }
            (locality, _) => locality,
        };
        let scaled = self
            .subsets
            .as_ref()
            .is_some_and(|s| s.scale_locality_weight);
        BalanceSettings {
            policy: self.lb,
            slow_start: self.slow_start,
            locality,
            scale_locality_weight: scaled,
            panic_threshold: self.panic_threshold,
            assignment,
            own_locality: self.place.locality.as_deref(),
            local,
            now,
            start: self
                .turn
                .position()
                .wrapping_add(version.wrapping_mul(SPREAD)),
        }
    }

    /// If this is the local cluster, others are told of its endpoints.
    fn note_local(&self, set: &EndpointSet) {
        let Some(local) = self.place.is_local(&self.name) else {
            return;
        };
        // Zone-aware routing is for one priority only.
        let first = set.priorities.iter().take(1).flat_map(|p| &p.endpoints);
        let endpoints = first.map(|endpoint| (endpoint, endpoint.status()));
        let hosts = LocalHosts::new(endpoints, self.place.locality.as_deref());
        if local.set_hosts(hosts) {
            self.rebuild.notify_one();
        }
    }

    fn note_subsets(&self, before: Option<&SubsetTable>, after: Option<&SubsetTable>) {
        let Some(after) = after else {
            return;
        };
        let metrics = &self.metrics;
        let removed = before.map_or(0, |before| before.not_in(Some(after)));
        metrics
            .subsets
            .add(SUBSETS_CREATED.0, SUBSETS_CREATED.1, after.not_in(before));
        metrics
            .subsets
            .add(SUBSETS_REMOVED.0, SUBSETS_REMOVED.1, removed);
        metrics
            .subsets_active
            .set(i64::try_from(after.count()).unwrap_or(i64::MAX));
        if after.dropped > before.map_or(0, |before| before.dropped) {
            tracing::warn!(
                "cluster {}: {} memberships in subsets were left out, since there are {} subsets \
                 already; use selectors with fewer values",
                self.name,
                after.dropped,
                after.count()
            );
        }
    }

    /// Counts by what a subset was chosen.
    pub(super) fn count_subsets(&self, choices: &[SubsetChoice]) {
        for choice in choices {
            let (index, label) = match choice {
                SubsetChoice::Selected => (2, "selected"),
                SubsetChoice::Fallback => (3, "fallback"),
                SubsetChoice::FallbackPanic => (4, "fallback_panic"),
            };
            self.metrics.subsets.inc(index, label);
        }
    }

    /// Counts what is notable of a pick.
    pub(super) fn count_choice(&self, choice: &Choice) {
        if choice.panic {
            self.metrics.healthy_panic.inc();
        }
        match choice.zone {
            None => {}
            Some(ZoneChoice::AllDirectly) => self.count_zone((3, "routing_all_directly")),
            Some(ZoneChoice::Sampled) => self.count_zone((4, "routing_sampled")),
            Some(ZoneChoice::CrossZone) => self.count_zone((5, "routing_cross_zone")),
            Some(ZoneChoice::NoCapacityLeft) => {
                self.count_zone((5, "routing_cross_zone"));
                self.count_zone((6, "no_capacity_left"));
            }
        }
    }

    fn count_zone(&self, (index, label): (usize, &'static str)) {
        self.metrics.zones.inc(index, label);
    }
}

const ZONE_RECALCULATED: (usize, &str) = (0, "recalculated");
const ZONE_LOCAL_NOT_OK: (usize, &str) = (1, "local_cluster_not_ok");
const ZONE_TOO_SMALL: (usize, &str) = (2, "cluster_too_small");
const SUBSETS_CREATED: (usize, &str) = (0, "created");
const SUBSETS_REMOVED: (usize, &str) = (1, "removed");
