//! Load balancing: priorities, panic, and the choice of one endpoint.
//!
//! [`Balance`] is computed when endpoints, their health or an ejection change; a pick only reads it
//! and draws. Randomness is injected. Source: Envoy's load balancing documentation (priority
//! levels, degraded endpoints, panic threshold, overprovisioning).

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::config::cluster::LbPolicy;
use crate::config::endpoint::HealthStatus;
use crate::upstream::endpoint::{Endpoint, Priority};

/// Picks that were already tried are drawn again this often before a search.
const REDRAWS: usize = 3;

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
            .map(|p| p.endpoints.iter().map(|e| status(e)).collect())
            .collect();
        let tallies: Vec<Tally> = statuses
            .iter()
            .map(|statuses| Tally::new(statuses, overprovisioning))
            .collect();
        let available: u32 = tallies
            .iter()
            .map(|t| t.healthy.saturating_add(t.degraded))
            .fold(0, u32::saturating_add)
            .min(100);
        let panics = |t: &Tally| {
            t.total > 0 && available < 100 && t.share_available() < u64::from(panic_threshold)
        };
        let mut balance = Self::default();
        let mut bound: u32 = 0;
        if available == 0 {
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
        // Rounding leaves a few percent: they are the last group's.
        if let Some(last) = balance.groups.last_mut() {
            last.bound = 100;
        }
        balance
    }

    /// No endpoint of any priority is healthy: all endpoints, by their number. A threshold of 0
    /// turns panic off, and then there is no endpoint to pick.
    fn spread_in_panic(&mut self, priorities: &[Priority], panic_threshold: u8) {
        let total: usize = priorities.iter().map(|p| p.endpoints.len()).sum();
        if total == 0 || panic_threshold == 0 {
            return;
        }
        let mut seen: usize = 0;
        for (index, priority) in priorities.iter().enumerate() {
            if priority.endpoints.is_empty() {
                continue;
            }
            seen = seen.saturating_add(priority.endpoints.len());
            let bound = seen.saturating_mul(100).checked_div(total).unwrap_or(100);
            let bound = u32::try_from(bound).unwrap_or(100);
            self.push(bound, index, true, priority.endpoints.clone());
        }
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
        });
    }

    /// One endpoint; `None`: there is none. Endpoints in `exclude` are avoided while there are
    /// others.
    pub fn pick(
        &self,
        policy: LbPolicy,
        turn: &RoundRobinCursor,
        exclude: &[SocketAddr],
        random: &mut fastrand::Rng,
    ) -> Option<Choice> {
        let group = self.group(random)?;
        let mut index = group.draw(policy, turn, random)?;
        if exclude.is_empty() {
            return group.choice(index);
        }
        let tried = |endpoint: &Arc<Endpoint>| exclude.contains(&endpoint.address);
        for _ in 0..REDRAWS {
            if !group.endpoints.get(index).is_some_and(tried) {
                return group.choice(index);
            }
            index = group.draw(policy, turn, random)?;
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

    fn group(&self, random: &mut fastrand::Rng) -> Option<&Group> {
        if self.groups.len() < 2 {
            return self.groups.first();
        }
        let drawn = random.u32(0..100);
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
            LbPolicy::Random => random.usize(0..count),
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

fn status(endpoint: &Endpoint) -> HealthStatus {
    if endpoint.state.is_ejected() {
        return HealthStatus::Unhealthy;
    }
    endpoint.health
}

/// Health of one priority. `healthy` and `degraded` in percent, overprovisioned.
struct Tally {
    total: u64,
    usable: u64,
    healthy: u32,
    degraded: u32,
}

impl Tally {
    fn new(statuses: &[HealthStatus], overprovisioning: u32) -> Self {
        let count = |kind| statuses.iter().filter(|status| **status == kind).count() as u64;
        let total = statuses.len() as u64;
        let (healthy, degraded) = (count(HealthStatus::Healthy), count(HealthStatus::Degraded));
        let percent = |count: u64| {
            let share = count.saturating_mul(overprovisioning.into());
            let share = share.checked_div(total).unwrap_or(0);
            u32::try_from(share.min(100)).unwrap_or(100)
        };
        Self {
            total,
            usable: healthy.saturating_add(degraded),
            healthy: percent(healthy),
            degraded: percent(degraded),
        }
    }

    fn share_available(&self) -> u64 {
        let share = self.usable.saturating_mul(100).checked_div(self.total);
        share.unwrap_or(0)
    }
}

#[cfg(test)]
mod tests;
