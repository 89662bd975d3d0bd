//! Balancing by hash: the table of a group of endpoints, and the bound on what each may carry.

use std::borrow::Cow;
use std::sync::Arc;

use super::maglev::Maglev;
use super::ring::Ring;
use super::shares::common_divisor;
use crate::config::cluster::{ConsistentHashing, HashTableKind};
use crate::upstream::endpoint::Endpoint;

/// Which endpoint of a group a key goes to.
pub(super) struct HashTable {
    places: Places,
    /// With a `hash_balance_factor`.
    bound: Option<LoadBound>,
}

enum Places {
    Ring(Ring),
    Maglev(Maglev),
}

/// No endpoint has more than so many percent of its share of what is in flight.
struct LoadBound {
    percent: u64,
    /// Each endpoint's share of one.
    shares: Box<[f64]>,
}

impl HashTable {
    /// `shares`: of one, for each endpoint.
    pub fn new(
        endpoints: &[Arc<Endpoint>],
        shares: Box<[f64]>,
        options: &ConsistentHashing,
    ) -> Self {
        let keys: Vec<_> = endpoints
            .iter()
            .map(|endpoint| key(endpoint, options.use_hostname))
            .collect();
        let places = match options.table {
            HashTableKind::Ring {
                minimum,
                maximum,
                function,
            } => Places::Ring(Ring::new(&keys, &shares, (minimum, maximum), function)),
            HashTableKind::Maglev { size } => Places::Maglev(Maglev::new(&keys, &shares, size)),
        };
        Self {
            places,
            bound: options.balance_factor.map(|percent| LoadBound {
                percent: percent.get().into(),
                shares,
            }),
        }
    }

    /// The index of an endpoint. `attempt`: how many were not acceptable before; `active`: requests
    /// or connections of the cluster in flight, this one included.
    pub fn choose(
        &self,
        endpoints: &[Arc<Endpoint>],
        key: u64,
        attempt: u32,
        active: u32,
    ) -> Option<usize> {
        let chosen = match &self.places {
            Places::Ring(ring) => ring.at(key, attempt),
            Places::Maglev(maglev) => maglev.at(key, attempt),
        }?;
        match &self.bound {
            Some(bound) => bound.choose(endpoints, key, chosen, active),
            None => Some(chosen),
        }
    }
}

impl LoadBound {
    /// `first`, unless it carries too much; then the first in an order of the key's own that does
    /// not, or the one that exceeds its bound least. Only this search takes longer the more
    /// endpoints there are, as in Envoy.
    fn choose(
        &self,
        endpoints: &[Arc<Endpoint>],
        key: u64,
        first: usize,
        active: u32,
    ) -> Option<usize> {
        let slots = u64::from(active).saturating_mul(self.percent).div_ceil(100) as f64;
        let load = |index: usize| -> Option<f64> {
            let share = (slots * self.shares.get(index)?).ceil().max(1.0);
            Some(f64::from(endpoints.get(index)?.state.active()) / share)
        };
        let (mut best, mut least) = (first, load(first)?);
        if least <= 1.0 {
            return Some(first);
        }
        let count = endpoints.len();
        let step = coprime(key >> 32, count);
        let mut index = usize::try_from(key.checked_rem(count as u64)?).ok()?;
        for _ in 0..count {
            if least <= 1.0 {
                break;
            }
            let other = load(index)?;
            if other < least {
                (best, least) = (index, other);
            }
            index = index.saturating_add(step).checked_rem(count)?;
        }
        Some(best)
    }
}

/// A step below `count`, chosen by `key`, by which every index comes once.
fn coprime(key: u64, count: usize) -> usize {
    let count = count as u64;
    let mut step = key.checked_rem(count).unwrap_or(0).max(1);
    while common_divisor(step, count) != 1 {
        step = step.saturating_add(1);
    }
    usize::try_from(step).unwrap_or(1)
}

/// What an endpoint is hashed by: its `hash_key`, else its host name where that is wanted, else its
/// address.
fn key(endpoint: &Endpoint, use_hostname: bool) -> Cow<'_, [u8]> {
    let name = endpoint.host_name.as_deref().filter(|_| use_hostname);
    match endpoint.hash_key.as_deref().or(name) {
        Some(key) if !key.is_empty() => Cow::Borrowed(key.as_bytes()),
        _ => Cow::Owned(endpoint.address.to_string().into_bytes()),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::net::SocketAddr;
    use std::num::NonZeroU32;

    use proptest::prelude::*;

    use super::super::pool::shares_by_weight;
    use super::*;
    use crate::config::cluster::HashFunction;

    fn new(endpoints: &[Arc<Endpoint>], options: &ConsistentHashing) -> HashTable {
        HashTable::new(endpoints, shares_by_weight(endpoints).into(), options)
    }

    fn endpoints(weights: &[u32]) -> Vec<Arc<Endpoint>> {
        let endpoint = |(weight, port): (&u32, u16)| {
            Arc::new(Endpoint {
                weight: *weight,
                ..Endpoint::at(SocketAddr::from(([10, 0, 0, 1], port)))
            })
        };
        weights.iter().zip(1..).map(endpoint).collect()
    }

    fn ring(minimum: u32, maximum: u32) -> HashTableKind {
        HashTableKind::Ring {
            minimum,
            maximum,
            function: HashFunction::XxHash,
        }
    }

    fn options(table: HashTableKind) -> ConsistentHashing {
        ConsistentHashing {
            table,
            use_hostname: false,
            balance_factor: None,
        }
    }

    /// Keys spread as hashes are.
    fn keys(count: u64) -> impl Iterator<Item = u64> {
        (0..count).map(|n| crate::upstream::hash::xx(&n.to_le_bytes(), 7))
    }

    fn shares(table: &HashTable, endpoints: &[Arc<Endpoint>], count: u64) -> Vec<f64> {
        let mut seen = vec![0.0; endpoints.len()];
        for key in keys(count) {
            seen[table.choose(endpoints, key, 0, 1).unwrap()] += 1.0 / count as f64;
        }
        seen
    }

    proptest! {
        #[test]
        fn shares_follow_the_weights(weights in prop::collection::vec(1u32..10, 1..12)) {
            let all = endpoints(&weights);
            let total: u32 = weights.iter().sum();
            for (kind, slack) in [
                (HashTableKind::Maglev { size: 65537 }, 0.02),
                (ring(20_000, 8 << 20), 0.05),
            ] {
                let table = new(&all, &options(kind));
                for (weight, share) in weights.iter().zip(shares(&table, &all, 20_000)) {
                    let wanted = f64::from(*weight) / f64::from(total);
                    prop_assert!((share - wanted).abs() < slack, "{kind:?}: {share} {wanted}");
                }
            }
        }

        #[test]
        fn any_key_has_an_endpoint(
            weights in prop::collection::vec(1u32..1000, 1..20),
            key: u64, attempt in 0u32..10, minimum in 1u32..100, more in 0u32..100,
        ) {
            let all = endpoints(&weights);
            for kind in [HashTableKind::Maglev { size: 101 }, ring(minimum, minimum + more)] {
                let table = new(&all, &options(kind));
                let chosen = table.choose(&all, key, attempt, 1);
                prop_assert!(chosen.is_some_and(|at| at < all.len()), "{kind:?}");
            }
        }
    }

    #[test]
    fn few_keys_move_when_an_endpoint_goes() {
        let all = endpoints(&[1; 10]);
        let (gone, rest) = all.split_last().unwrap();
        for (kind, most) in [
            // The rest get more points, so that there are as many in all.
            (ring(1024, 8 << 20), 1500),
            (HashTableKind::Maglev { size: 65537 }, 1500),
        ] {
            let before = new(&all, &options(kind));
            let after = new(rest, &options(kind));
            let moved = keys(10_000).filter(|key| {
                let was = &all[before.choose(&all, *key, 0, 1).unwrap()];
                let is = &rest[after.choose(rest, *key, 0, 1).unwrap()];
                !Arc::ptr_eq(was, gone) && !Arc::ptr_eq(was, is)
            });
            assert!(moved.count() <= most, "{kind:?}");
        }
    }

    #[test]
    fn an_endpoint_carries_no_more_than_its_bound() {
        let all = endpoints(&[1, 1, 2]);
        for kind in [HashTableKind::Maglev { size: 101 }, ring(64, 128)] {
            let bounded = ConsistentHashing {
                balance_factor: NonZeroU32::new(125),
                ..options(kind)
            };
            let table = new(&all, &bounded);
            let mut open = Vec::new();
            let mut carried: HashMap<usize, u32> = HashMap::new();
            // All by one key.
            for active in 1..=400u32 {
                let chosen = table.choose(&all, 12345, 0, active).unwrap();
                open.push(all[chosen].state.begin());
                *carried.entry(chosen).or_default() += 1;
            }
            for (index, share) in [0.25, 0.25, 0.5].into_iter().enumerate() {
                let most = 400.0 * 1.25 * share + 1.0;
                let carried = f64::from(carried[&index]);
                assert!(carried <= most, "{kind:?}: {index} carries {carried}");
            }
            drop(open);
        }
    }

    #[test]
    fn endpoints_are_hashed_by_key_name_or_address() {
        let mut endpoint = Arc::into_inner(endpoints(&[1]).remove(0)).unwrap();
        assert_eq!(&*key(&endpoint, true), b"10.0.0.1:1");
        endpoint.host_name = Some("name".into());
        assert_eq!(&*key(&endpoint, true), b"name");
        assert_eq!(&*key(&endpoint, false), b"10.0.0.1:1");
        endpoint.hash_key = Some("key".into());
        assert_eq!(&*key(&endpoint, true), b"key");
        assert_eq!(&*key(&endpoint, false), b"key");
    }

    #[test]
    fn many_endpoints_need_wider_indices() {
        for count in [255, 256, 257, 70_000] {
            let all = endpoints(&vec![1; count.min(65_000)]);
            let many: Vec<_> = all.iter().cycle().take(count).cloned().collect();
            let table = new(&many, &options(ring(1, 8 << 20)));
            let seen = keys(5_000).map(|key| table.choose(&many, key, 0, 1).unwrap());
            assert!(seen.max().unwrap() < count);
        }
    }
}
