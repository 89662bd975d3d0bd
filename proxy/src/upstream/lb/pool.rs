//! Endpoints that are balanced over alike, and the choice of one by the policy.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::shares::Shares;
use super::slow_start::Ramp;
use super::table::HashTable;
use crate::config::cluster::{ConsistentHashing, LbPolicy};
use crate::upstream::endpoint::Endpoint;

/// How far picks in turn have come.
#[derive(Debug)]
pub struct RoundRobinCursor(AtomicU64);

impl Default for RoundRobinCursor {
    /// At a random place, so that the first endpoints of a list do not get the first request of every
    /// proxy.
    fn default() -> Self {
        Self(AtomicU64::new(fastrand::u32(..).into()))
    }
}

impl RoundRobinCursor {
    pub(super) fn at(count: u64) -> Self {
        Self(AtomicU64::new(count))
    }

    /// How many picks in turn there were, from the place where they began.
    pub fn position(&self) -> u64 {
        self.0.load(Relaxed)
    }

    /// `peek`: without moving on.
    pub(super) fn next(&self, peek: bool) -> u64 {
        match peek {
            true => self.position(),
            false => self.0.fetch_add(1, Relaxed),
        }
    }
}

/// Endpoints of one priority, health and, where that matters, locality.
#[derive(Default)]
pub(super) struct EndpointPool {
    pub endpoints: Box<[Arc<Endpoint>]>,
    /// `None`: all weigh the same.
    weights: Option<Shares>,
    /// Where a hash chooses.
    pub table: Option<HashTable>,
    /// Its own, where it is one of several that are picked from in turn.
    turn: Option<RoundRobinCursor>,
}

impl EndpointPool {
    pub fn new(endpoints: Vec<Arc<Endpoint>>, ramp: Option<&Ramp>) -> Self {
        let ramping = ramp.and_then(|ramp| ramp.weights(&endpoints));
        let even = endpoints
            .windows(2)
            .all(|pair| matches!(pair, [one, next] if one.weight == next.weight));
        let weights = match ramping {
            Some(weights) => Some(Shares::new(weights)),
            None if even => None,
            None => Some(Shares::new(
                endpoints
                    .iter()
                    .map(|endpoint| endpoint.weight.max(1).into()),
            )),
        };
        Self {
            endpoints: endpoints.into(),
            weights,
            table: None,
            turn: None,
        }
    }

    /// One with a table of hashes. `shares`: of one, for each endpoint. Takes long: not for workers.
    pub fn hashed(
        endpoints: Vec<Arc<Endpoint>>,
        shares: Vec<f64>,
        options: &ConsistentHashing,
    ) -> Self {
        let table = HashTable::new(&endpoints, shares.into(), options);
        Self {
            table: Some(table),
            ..Self::new(endpoints, None)
        }
    }

    /// Picks in turn begin here, whatever is picked from other pools.
    #[must_use]
    pub fn with_turn(mut self, count: u64) -> Self {
        self.turn = Some(RoundRobinCursor::at(count));
        self
    }

    /// An index; `None`: there are no endpoints.
    pub fn draw(
        &self,
        policy: LbPolicy,
        turn: &RoundRobinCursor,
        peek: bool,
        random: &mut fastrand::Rng,
    ) -> Option<usize> {
        let count = self.endpoints.len();
        if count < 2 {
            return count.checked_sub(1);
        }
        Some(match policy {
            LbPolicy::RoundRobin => {
                let turn = self.turn.as_ref().unwrap_or(turn).next(peek);
                match &self.weights {
                    Some(weights) => weights.in_turn(turn),
                    // The remainder fits, because it is less than a length.
                    None => turn.checked_rem(count as u64).unwrap_or(0) as usize,
                }
            }
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
            let weight = self.weights.as_ref().map_or(1, |all| all.weight(index));
            f64::from(endpoint.state.active()) / weight.max(1) as f64
        })
    }

    fn weighted(&self, random: &mut fastrand::Rng) -> usize {
        match &self.weights {
            None => random.usize(0..self.endpoints.len()),
            Some(weights) => weights.random(random),
        }
    }
}

/// Shares of one by weight.
pub(super) fn shares_by_weight(endpoints: &[Arc<Endpoint>]) -> Vec<f64> {
    let weight = |endpoint: &Arc<Endpoint>| f64::from(endpoint.weight.max(1));
    let total: f64 = endpoints.iter().map(weight).sum();
    endpoints.iter().map(|e| weight(e) / total).collect()
}
