//! The table of MAGLEV: each endpoint fills places in an order of its own, as many as its weight
//! gives it. Source: "Maglev: A Fast and Reliable Software Network Load Balancer" 3.4, with Envoy's
//! order of endpoints and its weights.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::indices::Indices;
use crate::upstream::hash;

/// The endpoint at each place.
pub(super) struct Maglev(Indices);

/// An endpoint while the table is filled.
struct Filler {
    endpoint: u32,
    /// Its next place, and how far the one after it is.
    place: u64,
    skip: u64,
    weight: f64,
    /// It gets its next place in the first round that, times its weight, is no less than this.
    due: f64,
}

impl Maglev {
    /// `keys`: what endpoints are hashed by; `weights`: their shares of one; `size`: a prime.
    pub fn new(keys: &[impl AsRef<[u8]>], weights: &[f64], size: u32) -> Self {
        let heaviest = weights.iter().copied().fold(0.0, f64::max);
        let mut fillers = fillers(keys, weights, size.into());
        let places = usize::try_from(size).unwrap_or(0);
        let mut table: Vec<Option<u32>> = vec![None; places];
        // The round in which each gets its next place, and its place in that round. The heaviest gets one
        // in every round; going through all endpoints in each would take long where one is far heavier.
        let all = (0..fillers.len()).map(|index| Reverse((1, index)));
        let mut queue: BinaryHeap<Reverse<(u64, usize)>> = all.collect();
        for _ in 0..places {
            let Some(mut next) = queue.peek_mut() else {
                break;
            };
            let Reverse((round, index)) = *next;
            let Some(filler) = fillers.get_mut(index) else {
                break;
            };
            filler.fill(&mut table);
            filler.due += heaviest;
            *next = Reverse((filler.round_after(round), index));
        }
        let filled = table.iter().map(|endpoint| endpoint.unwrap_or(0));
        Self(Indices::new(filled, keys.len()))
    }

    /// `attempt`: how many endpoints were not acceptable before.
    pub fn at(&self, key: u64, attempt: u32) -> Option<usize> {
        let key = key ^ 0u64.wrapping_sub(attempt.into());
        let place = key.checked_rem(self.0.len() as u64)?;
        self.0.get(usize::try_from(place).ok()?)
    }
}

fn fillers(keys: &[impl AsRef<[u8]>], weights: &[f64], size: u64) -> Vec<Filler> {
    // The order must not depend on that of the configuration.
    let keys = keys.iter().map(|key| -> &[u8] { key.as_ref() });
    let mut sorted: Vec<_> = keys.zip(weights).zip(0u32..).collect();
    sorted.sort_by_key(|((key, _), endpoint)| (*key, *endpoint));
    let filler = |((key, weight), endpoint): ((&[u8], &f64), u32)| Filler {
        endpoint,
        place: hash::xx(key, 0).checked_rem(size).unwrap_or(0),
        skip: hash::xx(key, 1)
            .checked_rem(size.saturating_sub(1))
            .unwrap_or(0)
            .saturating_add(1),
        weight: *weight,
        due: 0.0,
    };
    sorted.into_iter().map(filler).collect()
}

impl Filler {
    /// The next round in which it gets a place.
    fn round_after(&self, round: u64) -> u64 {
        // Rounding may make a quotient one too large or too small. As a u64 it saturates.
        let about = (self.due / self.weight) as u64;
        let first = about.saturating_sub(1).max(round.saturating_add(1));
        let mut rounds = first..first.saturating_add(3);
        let is_due = |round: &u64| *round as f64 * self.weight >= self.due;
        rounds.find(is_due).unwrap_or(rounds.end)
    }

    /// Takes the first free place of its order; there is one.
    fn fill(&mut self, table: &mut [Option<u32>]) {
        let size = table.len() as u64;
        loop {
            let place = usize::try_from(self.place).unwrap_or(usize::MAX);
            let next = self.place.saturating_add(self.skip);
            self.place = next.checked_rem(size).unwrap_or(0);
            match table.get_mut(place) {
                Some(Some(_)) => {}
                Some(free) => {
                    *free = Some(self.endpoint);
                    return;
                }
                None => return,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The paper's loop with weights: every endpoint in every round.
    fn by_rounds(keys: &[String], weights: &[f64], size: u32) -> Vec<usize> {
        let heaviest = weights.iter().copied().fold(0.0, f64::max);
        let mut fillers = fillers(keys, weights, size.into());
        let mut table = vec![None; size as usize];
        let mut left = size;
        for round in 1u32.. {
            for filler in &mut fillers {
                if left > 0 && f64::from(round) * filler.weight >= filler.due {
                    filler.due += heaviest;
                    filler.fill(&mut table);
                    left -= 1;
                }
            }
            if left == 0 {
                break;
            }
        }
        table.into_iter().map(|at| at.unwrap() as usize).collect()
    }

    proptest! {
        #[test]
        fn places_are_those_of_the_papers_loop(
            weights in prop::collection::vec(prop_oneof![1u32..4, 1u32..1000, Just(1 << 20)], 1..30),
        ) {
            let total: f64 = weights.iter().copied().map(f64::from).sum();
            let weights: Vec<f64> = weights.iter().map(|w| f64::from(*w) / total).collect();
            let keys: Vec<_> = (0..weights.len()).map(|n| format!("10.0.0.1:{n}")).collect();
            let table = Maglev::new(&keys, &weights, 1009);
            let places: Vec<_> = (0..1009).map(|at| table.0.get(at).unwrap()).collect();
            prop_assert_eq!(places, by_rounds(&keys, &weights, 1009));
        }
    }
}
