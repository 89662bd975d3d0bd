//! Load balancing: priorities, panic, and the choice of one endpoint.
//!
//! - `table`: balancing by hash, with `ring` and `maglev`; `indices`: what tables consist of
//! - `priority`: the health of one priority
//!
//! [`Balance`] is computed when endpoints, their health or an ejection change; a pick only reads it
//! and draws, or looks a hash up. Randomness is injected. Source: Envoy's load balancing
//! documentation (priority levels, degraded endpoints, panic threshold, overprovisioning).

mod indices;
mod maglev;
mod priority;
mod ring;
mod table;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use self::priority::Tally;
use self::table::HashTable;
use crate::config::cluster::LbPolicy;
use crate::config::endpoint::HealthStatus;
use crate::upstream::endpoint::{Endpoint, Priority};

/// Picks that were already tried are drawn again this often before a search.
const REDRAWS: u32 = 3;

/// Groups of endpoints with the share of picks each gets.
#[derive(Default)]
pub struct Balance {
    groups: Vec<Group>,
}

/// Endpoints of one priority and health that are balanced over alike.
struct Group {
    /// Cumulative percent.
    bound: u32,
    priority: u32,
    panic: bool,
    endpoints: Box<[Arc<Endpoint>]>,
    /// Cumulative weights; empty when all weigh the same.
    weights: Box<[u64]>,
    /// How far apart in a round two picks in a row are; see [`step`].
    step: u64,
    /// Where a hash chooses.
    table: Option<HashTable>,
}

/// What a pick depends on.
#[derive(Clone, Copy, Debug, Default)]
pub struct PickInput<'a> {
    /// Endpoints to be avoided while there are others.
    pub exclude: &'a [SocketAddr],
    /// For policies by hash; `None`: as at random.
    pub hash: Option<u64>,
    /// Requests or connections of the cluster in flight, this one included; read where
    /// [`LbPolicy::bounds_load`].
    pub active: u32,
}

/// State of a cluster's balancing that outlives its endpoint sets.
#[derive(Debug, Default)]
pub struct RoundRobinCursor(AtomicU64);

impl RoundRobinCursor {
    /// A cursor at the same position, which advances independently.
    pub fn copy(&self) -> Self {
        Self(AtomicU64::new(self.0.load(Relaxed)))
    }
}

/// What was picked.
#[derive(Clone)]
pub struct Choice {
    pub endpoint: Arc<Endpoint>,
    pub priority: u32,
    /// The priority is in panic: health was disregarded.
    pub panic: bool,
}

impl Balance {
    /// `panic_threshold` and `overprovisioning` in percent.
    pub fn new(priorities: &[Priority], overprovisioning: u32, panic_threshold: u8) -> Self {
        // Other threads eject and release meanwhile: each status is read once, so that what is
        // counted is what is chosen.
        let statuses: Vec<Vec<HealthStatus>> = priorities
            .iter()
            .map(|p| p.endpoints.iter().map(|e| e.status()).collect())
            .collect();
        let uncounted = |priority: &Priority| {
            let all = priority.endpoints.iter();
            all.filter(|e| e.state.health.get().is_uncounted()).count()
        };
        let tallies: Vec<Tally> = statuses
            .iter()
            .zip(priorities)
            .map(|(statuses, group)| Tally::new(statuses, uncounted(group), overprovisioning))
            .collect();
        let available: u32 = tallies
            .iter()
            .map(|t| t.healthy.saturating_add(t.degraded))
            .fold(0, u32::saturating_add)
            .min(100);
        let panics =
            |t: &Tally| available < 100 && t.share_available() < u64::from(panic_threshold);
        let mut balance = Self::default();
        let mut bound: u32 = 0;
        // Where every priority is in panic, health counts no more at all.
        if available == 0 || tallies.iter().all(panics) {
            balance.spread_in_panic(priorities, panic_threshold);
            return balance;
        }
        // Healthy endpoints of all priorities first, then degraded ones.
        for kind in [HealthStatus::Healthy, HealthStatus::Degraded] {
            let all = tallies.iter().zip(&statuses).zip(priorities);
            for (index, ((tally, statuses), priority)) in all.enumerate() {
                let load = if kind == HealthStatus::Healthy {
                    tally.healthy
                } else {
                    tally.degraded
                };
                let share = load.saturating_mul(100).checked_div(available);
                let share = share.unwrap_or(0).min(100u32.saturating_sub(bound));
                if share == 0 {
                    continue;
                }
                bound = bound.saturating_add(share);
                let panic = panics(tally);
                let chosen = priority.endpoints.iter().zip(statuses);
                let chosen = chosen.filter(|(_, status)| panic || **status == kind);
                let chosen = chosen.map(|(endpoint, _)| endpoint.clone());
                balance.push(bound, index, panic, chosen.collect());
            }
        }
        balance.give_rest();
        balance
    }

    /// Builds what balancing by hash looks requests up in; without effect for other policies. Takes
    /// long: not for workers.
    #[must_use]
    pub fn with_tables(mut self, policy: LbPolicy) -> Self {
        if let LbPolicy::ConsistentHash(options) = policy {
            for group in &mut self.groups {
                group.table = Some(HashTable::new(&group.endpoints, &options));
            }
        }
        self
    }

    /// Rounding leaves a few percent: they are the first group's, as in Envoy.
    fn give_rest(&mut self) {
        let bound = self.groups.last().map_or(0, |last| last.bound);
        let rest = 100u32.saturating_sub(bound);
        for group in &mut self.groups {
            group.bound = group.bound.saturating_add(rest);
        }
    }

    /// No endpoint of any priority is healthy: all endpoints, by their number. A threshold of 0
    /// turns panic off, and then there is no endpoint to pick.
    fn spread_in_panic(&mut self, priorities: &[Priority], panic_threshold: u8) {
        let total: usize = priorities.iter().map(|p| p.endpoints.len()).sum();
        if total == 0 || panic_threshold == 0 {
            return;
        }
        let mut bound: u32 = 0;
        for (index, priority) in priorities.iter().enumerate() {
            let share = priority.endpoints.len().saturating_mul(100);
            let share = share.checked_div(total).unwrap_or(100);
            bound = bound.saturating_add(u32::try_from(share).unwrap_or(100));
            self.push(bound, index, true, priority.endpoints.clone());
        }
        self.give_rest();
    }

    /// Adds a group. A group without endpoints is not added: its share goes to the next.
    fn push(&mut self, bound: u32, priority: usize, panic: bool, endpoints: Vec<Arc<Endpoint>>) {
        if endpoints.is_empty() {
            return;
        }
        let even = endpoints
            .windows(2)
            .all(|pair| matches!(pair, [one, next] if one.weight == next.weight));
        let mut sum: u64 = 0;
        let weights = endpoints.iter().map(|endpoint| {
            sum = sum.saturating_add(endpoint.weight.max(1).into());
            sum
        });
        let weights: Box<[u64]> = if even {
            Box::default()
        } else {
            weights.collect()
        };
        self.groups.push(Group {
            step: weights.last().map_or(1, |total| step(*total)),
            bound,
            priority: u32::try_from(priority).unwrap_or(u32::MAX),
            panic,
            endpoints: endpoints.into(),
            weights,
            table: None,
        });
    }

    /// One endpoint; `None`: there is none.
    pub fn pick(
        &self,
        policy: LbPolicy,
        turn: &RoundRobinCursor,
        what: PickInput<'_>,
        random: &mut fastrand::Rng,
    ) -> Option<Choice> {
        let PickInput {
            exclude,
            hash,
            active,
        } = what;
        let hash = policy
            .is_hash()
            .then(|| hash.unwrap_or_else(|| random.u64(..)));
        let group = self.group(hash, random)?;
        let mut draw = |attempt| match (hash, &group.table) {
            (Some(hash), Some(table)) => table.choose(&group.endpoints, hash, attempt, active),
            _ => group.draw(policy, turn, random),
        };
        let mut index = draw(0)?;
        if exclude.is_empty() {
            return group.choice(index);
        }
        let tried = |endpoint: &Arc<Endpoint>| exclude.contains(&endpoint.address);
        for attempt in 1..=REDRAWS {
            if !group.endpoints.get(index).is_some_and(tried) {
                return group.choice(index);
            }
            index = draw(attempt)?;
        }
        // From where the last draw fell, so that the first of a list does not get them all.
        let (before, from) = group.endpoints.split_at_checked(index)?;
        let position = from
            .iter()
            .position(|e| !tried(e))
            .map(|n| index.saturating_add(n))
            .or_else(|| before.iter().position(|e| !tried(e)));
        match position {
            Some(other) => group.choice(other),
            None => self.elsewhere(exclude).or_else(|| group.choice(index)),
        }
    }

    fn group(&self, hash: Option<u64>, random: &mut fastrand::Rng) -> Option<&Group> {
        if self.groups.len() < 2 {
            return self.groups.first();
        }
        // The remainder is below 100.
        let drawn = hash.map_or_else(|| random.u32(0..100), |hash| (hash % 100) as u32);
        self.groups
            .iter()
            .find(|group| drawn < group.bound)
            .or(self.groups.last())
    }

    /// An endpoint of any group that was not tried yet.
    fn elsewhere(&self, exclude: &[SocketAddr]) -> Option<Choice> {
        self.groups.iter().find_map(|group| {
            let free = |e: &Arc<Endpoint>| !exclude.contains(&e.address);
            let index = group.endpoints.iter().position(free)?;
            group.choice(index)
        })
    }
}

impl Group {
    fn choice(&self, index: usize) -> Option<Choice> {
        Some(Choice {
            endpoint: self.endpoints.get(index)?.clone(),
            priority: self.priority,
            panic: self.panic,
        })
    }

    /// An index; `None`: the group is empty.
    fn draw(
        &self,
        policy: LbPolicy,
        turn: &RoundRobinCursor,
        random: &mut fastrand::Rng,
    ) -> Option<usize> {
        let count = self.endpoints.len();
        if count < 2 {
            return count.checked_sub(1);
        }
        Some(match policy {
            LbPolicy::RoundRobin => self.next(turn),
            LbPolicy::Random | LbPolicy::ConsistentHash(_) => random.usize(0..count),
            LbPolicy::LeastRequest { choices, bias } => {
                let mut best = self.weighted(random);
                if bias == 0.0 {
                    return Some(best);
                }
                for _ in 1..choices {
                    let other = self.weighted(random);
                    if self.load(other) < self.load(best) {
                        best = other;
                    }
                }
                best
            }
        })
    }

    /// Active requests per unit of weight. Candidates are drawn by weight already, so that equal
    /// load means equal utilisation.
    fn load(&self, index: usize) -> f64 {
        self.endpoints.get(index).map_or(f64::INFINITY, |endpoint| {
            f64::from(endpoint.state.active()) / f64::from(endpoint.weight.max(1))
        })
    }

    fn weighted(&self, random: &mut fastrand::Rng) -> usize {
        match self.weights.last() {
            None => random.usize(0..self.endpoints.len()),
            Some(total) => self.at(random.u64(0..*total)),
        }
    }

    /// The next in turn. With weights, every point of a round of their sum comes exactly once, so
    /// that shares are exact; in the order of [`step`].
    fn next(&self, turn: &RoundRobinCursor) -> usize {
        let count = turn.0.fetch_add(1, Relaxed);
        let Some(&total) = self.weights.last() else {
            // The remainder fits, because it is less than a length.
            return count.checked_rem(self.endpoints.len() as u64).unwrap_or(0) as usize;
        };
        let place = u128::from(count.checked_rem(total).unwrap_or(0));
        let point = place.saturating_mul(self.step.into());
        // Below `total`, which is a u64.
        self.at(point.checked_rem(total.into()).unwrap_or(0) as u64)
    }

    fn at(&self, point: u64) -> usize {
        self.weights.partition_point(|bound| *bound <= point)
    }
}

/// The step by which the points of a round of `total` are visited: near the golden ratio, so that
/// heavy endpoints are not served in a row, and without a divisor in common with `total`, so that
/// no point is left out.
fn step(total: u64) -> u64 {
    let mut step = (total as f64 * 0.618_034) as u64 | 1;
    while common_divisor(step, total) != 1 {
        step = step.saturating_add(2);
    }
    step
}

fn common_divisor(mut a: u64, mut b: u64) -> u64 {
    while let Some(rest) = a.checked_rem(b) {
        (a, b) = (b, rest);
    }
    a
}

#[cfg(test)]
mod tests;
