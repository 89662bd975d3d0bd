//! Load balancing: priorities, panic, localities, and the choice of one endpoint.
//!
//! - `groups`: what a pick chooses from; `priority`: the health of priorities, and the share of picks
//!   that each gets
//! - `locality`: localities and their weights; `zone`: routing within the proxy's own
//! - `subset`: endpoints by their metadata
//! - `pool`: the choice among endpoints that are alike; `shares`: by weights; `slow_start`: weights
//!   of new ones
//! - `table`: balancing by hash, with `ring` and `maglev`; `indices`: what tables consist of
//!
//! [`Balance`] is computed when endpoints, their health or an ejection change, and while new ones
//! slow-start; a pick only reads it and draws, or looks a hash up. Time and randomness are injected.
//! Source: Envoy's load balancing documentation.

mod groups;
mod indices;
mod locality;
mod maglev;
mod pool;
mod priority;
mod ring;
mod shares;
mod slow_start;
pub mod subset;
mod table;
mod zone;

use std::net::SocketAddr;
use std::sync::Arc;

use smallvec::SmallVec;

pub use self::groups::BalanceSettings;
use self::pool::EndpointPool;
pub use self::pool::RoundRobinCursor;
use self::shares::Shares;
use self::zone::ZoneRouting;
pub use self::zone::{ZoneChoice, ZoneObstacle};
use crate::config::cluster::LbPolicy;
use crate::upstream::endpoint::Endpoint;

/// Picks that were already tried are drawn again this often before a search.
const REDRAWS: u32 = 3;

/// Groups of endpoints with the share of picks each gets.
#[derive(Default)]
pub struct Balance {
    groups: Vec<Group>,
    /// Why zone-aware routing, which is on, has no effect.
    pub obstacle: Option<ZoneObstacle>,
}

/// Endpoints of one priority and health.
struct Group {
    /// Cumulative percent.
    bound: u32,
    priority: u32,
    panic: bool,
    split: Split,
    /// One, unless [`Group::split`] says otherwise.
    pools: SmallVec<[EndpointPool; 1]>,
}

/// How the picks of a group are spread over its pools.
enum Split {
    One,
    /// A pool for each locality.
    ByWeight(Shares),
    /// A pool of all, then one for each locality.
    ByZone(ZoneRouting),
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
    /// Picks after this one choose as if it had not been.
    pub peek: bool,
}

/// What was picked.
#[derive(Clone)]
pub struct Choice {
    pub endpoint: Arc<Endpoint>,
    pub priority: u32,
    /// The priority is in panic: health was disregarded.
    pub panic: bool,
    /// What zone-aware routing decided.
    pub zone: Option<ZoneChoice>,
}

impl Balance {
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
            peek,
        } = what;
        let hash = policy
            .is_hash()
            .then(|| hash.unwrap_or_else(|| random.u64(..)));
        let group = self.group(hash, random)?;
        let (pool, zone) = group.pool(turn, peek, random)?;
        let mut draw = |attempt| match (hash, &pool.table) {
            (Some(hash), Some(table)) => table.choose(&pool.endpoints, hash, attempt, active),
            _ => pool.draw(policy, turn, peek, random),
        };
        let mut index = draw(0)?;
        if exclude.is_empty() {
            return group.choice(pool, index, zone);
        }
        let tried = |endpoint: &Arc<Endpoint>| exclude.contains(&endpoint.address);
        for attempt in 1..=REDRAWS {
            if !pool.endpoints.get(index).is_some_and(tried) {
                return group.choice(pool, index, zone);
            }
            index = draw(attempt)?;
        }
        // From where the last draw fell, so that the first of a list does not get them all.
        let (before, from) = pool.endpoints.split_at_checked(index)?;
        let position = from
            .iter()
            .position(|e| !tried(e))
            .map(|n| index.saturating_add(n))
            .or_else(|| before.iter().position(|e| !tried(e)));
        match position {
            Some(other) => group.choice(pool, other, zone),
            None => self
                .elsewhere(exclude)
                .or_else(|| group.choice(pool, index, zone)),
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
        let pools = self
            .groups
            .iter()
            .flat_map(|group| group.pools.iter().map(move |pool| (group, pool)));
        pools.into_iter().find_map(|(group, pool)| {
            let free = |e: &Arc<Endpoint>| !exclude.contains(&e.address);
            let index = pool.endpoints.iter().position(free)?;
            group.choice(pool, index, None)
        })
    }
}

impl Group {
    /// The endpoints that a pick chooses from; `None`: it fails.
    fn pool(
        &self,
        turn: &RoundRobinCursor,
        peek: bool,
        random: &mut fastrand::Rng,
    ) -> Option<(&EndpointPool, Option<ZoneChoice>)> {
        let first = self.pools.first()?;
        match &self.split {
            Split::One => Some((first, None)),
            Split::ByWeight(shares) => {
                let locality = shares.in_turn(turn.next(peek));
                Some((self.pools.get(locality)?, None))
            }
            Split::ByZone(routing) => {
                let Some((locality, choice)) = routing.choose(random) else {
                    return Some((first, None));
                };
                let pool = self.pools.get(locality.saturating_add(1));
                // A locality may have no degraded endpoints; rather than that the pick fails, as in
                // Envoy, all localities take it.
                let pool = pool.filter(|pool| !pool.endpoints.is_empty());
                Some((pool.unwrap_or(first), Some(choice)))
            }
        }
    }

    fn choice(
        &self,
        pool: &EndpointPool,
        index: usize,
        zone: Option<ZoneChoice>,
    ) -> Option<Choice> {
        Some(Choice {
            endpoint: pool.endpoints.get(index)?.clone(),
            priority: self.priority,
            panic: self.panic,
            zone,
        })
    }
}

#[cfg(test)]
mod tests;
