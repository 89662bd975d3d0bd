//! Groups of endpoints, made of priorities, health and localities.

use std::sync::Arc;
use std::time::Instant;

use smallvec::SmallVec;

use super::locality::{Localities, effective_shares, shares_by_locality};
use super::pool::{EndpointPool, shares_by_weight};
use super::priority::{PriorityLoads, Tally};
use super::slow_start::Ramp;
use super::zone::{ZoneObstacle, ZoneRouting};
use super::{Balance, Group, Split};
use crate::config::balancing::{LocalityPolicy, SlowStart, ZoneAware};
use crate::config::cluster::LbPolicy;
use crate::config::endpoint::{AssignmentPolicy, HealthStatus};
use crate::upstream::endpoint::{Endpoint, Priority};
use crate::upstream::local::LocalHosts;

/// What endpoints are balanced by.
#[derive(Clone, Copy)]
pub struct BalanceSettings<'a> {
    pub policy: LbPolicy,
    pub slow_start: Option<SlowStart>,
    pub locality: LocalityPolicy,
    /// Weights of localities are scaled by the part of their endpoints that is balanced over.
    pub scale_locality_weight: bool,
    /// Percent; 0 turns panic off.
    pub panic_threshold: u8,
    pub assignment: AssignmentPolicy,
    /// Where the proxy is.
    pub own_locality: Option<&'a str>,
    /// The local cluster; `None`: there is none, or it is this one.
    pub local: Option<&'a LocalHosts>,
    pub now: Instant,
    /// Where picks in turn among several pools begin.
    pub start: u64,
}

impl BalanceSettings<'_> {
    /// Takes long where the policy hashes: not for workers then.
    pub fn balance(&self, priorities: &[Priority]) -> Balance {
        self.balance_part(priorities, &self.localities(priorities))
    }

    /// Localities by priority, as far as they make a difference.
    pub(super) fn localities(&self, priorities: &[Priority]) -> Vec<Localities> {
        let of = |(index, priority): (usize, &Priority)| match self.locality {
            LocalityPolicy::Ignored => Localities::default(),
            LocalityPolicy::ZoneAware(_) if self.local.is_none() || index > 0 => {
                Localities::default()
            }
            _ => Localities::of(priority, self.own_locality),
        };
        priorities.iter().enumerate().map(of).collect()
    }

    /// `priorities` have some of the endpoints that `localities` are of.
    pub(super) fn balance_part(
        &self,
        priorities: &[Priority],
        localities: &[Localities],
    ) -> Balance {
        // Other threads eject and release meanwhile: each status is read once, so that what is
        // counted is what is chosen.
        let statuses: Vec<Vec<HealthStatus>> = priorities
            .iter()
            .map(|p| p.endpoints.iter().map(|e| e.status()).collect())
            .collect();
        let tally = |(p, statuses): (&Priority, &Vec<HealthStatus>)| {
            Tally::new(&p.endpoints, statuses, self.assignment)
        };
        let tallies: Vec<Tally> = priorities.iter().zip(&statuses).map(tally).collect();
        let loads = PriorityLoads::new(&tallies, self.panic_threshold);
        let mut balance = Balance::default();
        let mut bound: u32 = 0;
        for (kind, loads_of) in [
            (HealthStatus::Healthy, &loads.healthy),
            (HealthStatus::Degraded, &loads.degraded),
        ] {
            let all = priorities.iter().zip(&statuses).zip(localities).zip(0u32..);
            let all = all.zip(loads_of.iter().zip(&loads.panic));
            for ((((priority, statuses), localities), index), (load, panic)) in all {
                bound = bound.saturating_add(*load);
                let part = GroupPart {
                    priority,
                    statuses,
                    localities,
                    index,
                    kind,
                    panic: *panic,
                };
                if *load > 0 {
                    balance.push(bound, &part, self.split(&part));
                }
            }
        }
        balance
    }

    /// `None`: there are no endpoints.
    fn split(&self, part: &GroupPart<'_>) -> Option<SplitPools> {
        let chosen = part.endpoints(|status| part.panic || status == part.kind);
        if chosen.is_empty() {
            return None;
        }
        let zone = match self.locality {
            LocalityPolicy::ZoneAware(zone) => zone,
            _ => ZoneAware::default(),
        };
        let mut split = SplitPools::default();
        if part.panic && zone.fail_traffic_on_panic {
            return Some(split);
        }
        if let LbPolicy::ConsistentHash(options) = self.policy {
            let (endpoints, shares) = self.hash_shares(part, chosen);
            split
                .pools
                .push(EndpointPool::hashed(endpoints, shares, &options));
            return Some(split);
        }
        let ramp = self.ramp();
        if !part.panic && part.localities.len() > 0 {
            self.split_by_locality(part, &zone, &chosen, &mut split);
        }
        if matches!(split.by, Split::ByWeight(_)) {
            return Some(split);
        }
        let local_panics = self.local.is_some_and(|l| l.panics(self.panic_threshold));
        if matches!(split.by, Split::ByZone(_)) && local_panics {
            // The local cluster's health says nothing of what is here.
            split = SplitPools {
                obstacle: Some(ZoneObstacle::LocalClusterNotOk),
                ..SplitPools::default()
            };
            if zone.fail_traffic_on_panic {
                return Some(split);
            }
        }
        split
            .pools
            .insert(0, EndpointPool::new(chosen, ramp.as_ref()));
        Some(split)
    }

    /// Pools of localities: by their weights where they have some, else by zone.
    fn split_by_locality(
        &self,
        part: &GroupPart<'_>,
        zone: &ZoneAware,
        chosen: &[Arc<Endpoint>],
        split: &mut SplitPools,
    ) {
        let eligible = part.localities.split(chosen);
        let ramp = self.ramp();
        let pools = |eligible: Vec<Vec<Arc<Endpoint>>>| -> SmallVec<[EndpointPool; 1]> {
            let pool =
                |endpoints| EndpointPool::new(endpoints, ramp.as_ref()).with_turn(self.start);
            eligible.into_iter().map(pool).collect()
        };
        if self.locality == LocalityPolicy::Weighted {
            let all = part.localities.split(&part.priority.endpoints);
            let weights = part.localities.weights(&all, self.scale_locality_weight);
            let factor = self.assignment.overprovisioning;
            if let Some(shares) = effective_shares(&weights, &all, &eligible, factor) {
                split.by = Split::ByWeight(shares);
                split.pools = pools(eligible);
                return;
            }
        }
        let Some(local) = self.local.filter(|_| part.index == 0) else {
            return;
        };
        let healthy = part.endpoints(|status| status == HealthStatus::Healthy);
        let healthy = part.localities.split(&healthy);
        match ZoneRouting::new(zone, local, part.localities, &healthy) {
            Ok(routing) => {
                split.by = Split::ByZone(routing);
                split.pools = pools(eligible);
            }
            Err(obstacle) => split.obstacle = Some(obstacle),
        }
    }

    /// Endpoints with their shares of the places of a table.
    fn hash_shares(
        &self,
        part: &GroupPart<'_>,
        chosen: Vec<Arc<Endpoint>>,
    ) -> (Vec<Arc<Endpoint>>, Vec<f64>) {
        if self.locality != LocalityPolicy::Weighted {
            let shares = shares_by_weight(&chosen);
            return (chosen, shares);
        }
        let all = part.localities.split(&part.priority.endpoints);
        let weights = part.localities.weights(&all, self.scale_locality_weight);
        shares_by_locality(&weights, part.localities.split(&chosen))
    }

    fn ramp(&self) -> Option<Ramp> {
        let now = self.now;
        self.slow_start.map(|settings| Ramp { settings, now })
    }

    /// When the last of new endpoints is no longer new; `None`: none is.
    pub fn ramps_until(&self, priorities: &[Priority]) -> Option<Instant> {
        let endpoints = priorities.iter().flat_map(|p| &p.endpoints);
        self.ramp()?.end(endpoints)
    }
}

/// The endpoints of a priority that have one health.
struct GroupPart<'a> {
    priority: &'a Priority,
    statuses: &'a [HealthStatus],
    localities: &'a Localities,
    index: u32,
    kind: HealthStatus,
    panic: bool,
}

impl GroupPart<'_> {
    fn endpoints(&self, wanted: impl Fn(HealthStatus) -> bool) -> Vec<Arc<Endpoint>> {
        let all = self.priority.endpoints.iter().zip(self.statuses);
        let wanted = all.filter(|(_, status)| wanted(**status));
        wanted.map(|(endpoint, _)| endpoint.clone()).collect()
    }
}

/// The pools of a group. Without any, its picks fail.
struct SplitPools {
    by: Split,
    pools: SmallVec<[EndpointPool; 1]>,
    obstacle: Option<ZoneObstacle>,
}

impl Default for SplitPools {
    fn default() -> Self {
        Self {
            by: Split::One,
            pools: SmallVec::new(),
            obstacle: None,
        }
    }
}

impl Balance {
    /// Adds a group, unless it has no endpoints: its share then goes to the next.
    fn push(&mut self, bound: u32, part: &GroupPart<'_>, split: Option<SplitPools>) {
        let Some(split) = split else {
            return;
        };
        self.obstacle = self.obstacle.or(split.obstacle);
        self.groups.push(Group {
            bound,
            priority: part.index,
            panic: part.panic,
            split: split.by,
            pools: split.pools,
        });
    }
}
