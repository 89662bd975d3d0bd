//! The table of MAGLEV: each endpoint fills places in an order of its own, as many as its weight
//! gives it. Source: "Maglev: A Fast and Reliable Software Network Load Balancer" 3.4, with Envoy's
//! order of endpoints and its weights.

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
    /// Rounds times weight from which on it gets its next place.
    due: f64,
}

impl Maglev {
    /// `keys`: what endpoints are hashed by; `weights`: their shares of one; `size`: a prime.
    pub fn new(keys: &[impl AsRef<[u8]>], weights: &[f64], size: u32) -> Self {
        let heaviest = weights.iter().copied().fold(0.0, f64::max);
        let mut fillers = fillers(keys, weights, size.into());
        let places = usize::try_from(size).unwrap_or(0);
        let mut table: Vec<Option<u32>> = vec![None; places];
        let mut left = places;
        let mut round = 1.0;
        // The heaviest gets a place in every round.
        while left > 0 && !fillers.is_empty() {
            for filler in &mut fillers {
                if left == 0 {
                    break;
                }
                if round * filler.weight < filler.due {
                    continue;
                }
                filler.due += heaviest;
                filler.fill(&mut table);
                left = left.saturating_sub(1);
            }
            round += 1.0;
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
