//! Cumulative weights: a choice by a random number, or in turn.
//!
//! In turn, every point of a round of the weights' sum comes exactly once, so that shares are exact. The
//! workers share nothing for that but a counter, where Envoy has a queue (earliest deadline first) in each
//! of them. The order is that of the multiples of a step, modulo the sum. How far the picks of any stretch
//! of the order are from the weights depends on the continued fraction of step / sum: they are the closer,
//! the smaller its quotients are. Over random weights the distance is three or four picks at most, which a
//! test holds; that of a queue, which serves what has equal deadlines in a row, is two to three mostly, and
//! eleven at most, for the same weights.

/// Shares of several weights.
pub(super) struct Shares {
    /// Cumulative.
    bounds: Box<[u64]>,
    /// How far apart in a round two choices in a row are.
    step: u64,
}

impl Shares {
    /// A weight of 0 is never chosen.
    pub fn new(weights: impl IntoIterator<Item = u64>) -> Self {
        let weights: Vec<u64> = weights.into_iter().collect();
        // A short round is a smooth one.
        let divisor = weights.iter().copied().fold(0, common_divisor);
        let mut sum: u64 = 0;
        let bounds = weights.into_iter().map(|weight| {
            sum = sum.saturating_add(weight.checked_div(divisor).unwrap_or(0));
            sum
        });
        let bounds: Box<[u64]> = bounds.collect();
        Self {
            step: step(sum),
            bounds,
        }
    }

    pub fn total(&self) -> u64 {
        self.bounds.last().copied().unwrap_or(0)
    }

    /// Without what all weights have as a common divisor.
    pub fn weight(&self, index: usize) -> u64 {
        let before = index.checked_sub(1).and_then(|at| self.bounds.get(at));
        let bound = self.bounds.get(index).copied().unwrap_or(0);
        bound.saturating_sub(before.copied().unwrap_or(0))
    }

    pub fn random(&self, random: &mut fastrand::Rng) -> usize {
        self.at(random.u64(0..self.total().max(1)))
    }

    /// The choice of a number of a sequence.
    pub fn in_turn(&self, count: u64) -> usize {
        let total = self.total();
        let place = u128::from(count.checked_rem(total).unwrap_or(0));
        let point = place.saturating_mul(self.step.into());
        // Below `total`, which is a u64.
        self.at(point.checked_rem(total.into()).unwrap_or(0) as u64)
    }

    fn at(&self, point: u64) -> usize {
        self.bounds.partition_point(|bound| *bound <= point)
    }
}

/// How many numbers on each side of the golden section are looked at.
const CANDIDATES: u64 = 64;

/// Of the numbers near the golden section of `total` that have no divisor in common with it, so that
/// no point is left out, the one whose continued fraction has the least quotients.
fn step(total: u64) -> u64 {
    let golden = (total as f64 * 0.618_033_988_75) as u64;
    let near = (0..=CANDIDATES).flat_map(|distance| {
        [
            golden.saturating_sub(distance),
            golden.saturating_add(distance),
        ]
    });
    let within = near.filter(|step| (1..total).contains(step));
    let quotients = within.filter_map(|step| Some((sum_of_quotients(total, step)?, step)));
    quotients.min().map_or(1, |(_, step)| step)
}

pub(super) fn common_divisor(mut a: u64, mut b: u64) -> u64 {
    while let Some(rest) = a.checked_rem(b) {
        (a, b) = (b, rest);
    }
    a
}

/// `None`: the numbers have a common divisor.
fn sum_of_quotients(mut a: u64, mut b: u64) -> Option<u64> {
    let mut sum: u64 = 0;
    while let (Some(quotient), Some(rest)) = (a.checked_div(b), a.checked_rem(b)) {
        sum = sum.saturating_add(quotient);
        (a, b) = (b, rest);
    }
    (a == 1).then_some(sum)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The most that the choices of one weight, in any stretch of the order, are away from its share.
    fn distance(shares: &Shares, count: usize) -> f64 {
        let total = shares.total();
        let order: Vec<usize> = (0..total.saturating_mul(2))
            .map(|n| shares.in_turn(n))
            .collect();
        let of_one = |index: usize| {
            let share = shares.weight(index) as f64 / total as f64;
            let (mut at, mut least, mut most) = (0.0f64, 0.0f64, 0.0f64);
            for chosen in &order {
                at += f64::from(u8::from(*chosen == index)) - share;
                (least, most) = (least.min(at), most.max(at));
            }
            most - least
        };
        (0..count).map(of_one).fold(0.0, f64::max)
    }

    proptest! {
        #[test]
        fn each_weight_comes_as_often_as_it_says_and_evenly(
            weights in prop::collection::vec(prop_oneof![1u64..10, 1u64..100, Just(1)], 2..30),
        ) {
            let shares = Shares::new(weights.iter().copied());
            let mut seen = vec![0; weights.len()];
            for count in 0..shares.total() {
                seen[shares.in_turn(count)] += 1;
            }
            let rounds = weights.iter().sum::<u64>() / shares.total();
            let seen: Vec<u64> = seen.into_iter().map(|count: u64| count * rounds).collect();
            prop_assert_eq!(&seen, &weights);
            let far = distance(&shares, weights.len());
            prop_assert!(far < 5.0, "{far}");
        }

        #[test]
        fn steps_leave_no_point_out(total in 1u64..100_000) {
            let step = step(total);
            let mut divisors = (2..=step.min(1000)).filter(|d| total.is_multiple_of(*d) && step.is_multiple_of(*d));
            prop_assert_eq!(divisors.next(), None);
        }
    }

    #[test]
    fn heavy_and_light_ones_take_turns() {
        for (weights, most) in [
            (vec![1000, 1000, 1000, 137], 3.5),
            (vec![5, 1, 1, 1, 1, 1], 2.0),
            (vec![100, 100, 10], 3.0),
            (vec![1, 2, 3, 4, 5, 6, 7, 8, 9, 10], 2.5),
        ] {
            let far = distance(&Shares::new(weights.iter().copied()), weights.len());
            assert!(far < most, "{weights:?}: {far}");
        }
    }

    #[test]
    fn what_has_no_weight_is_not_chosen() {
        let shares = Shares::new([0, 3, 0, 1, 0]);
        let mut random = fastrand::Rng::with_seed(1);
        for count in 0..100 {
            assert!(matches!(shares.in_turn(count), 1 | 3));
            assert!(matches!(shares.random(&mut random), 1 | 3));
        }
        assert_eq!(
            (0..5).map(|n| shares.weight(n)).collect::<Vec<_>>(),
            [0, 3, 0, 1, 0]
        );
    }
}
