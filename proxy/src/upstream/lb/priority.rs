//! The health of priorities, and the share of picks that each gets by it.

use std::sync::Arc;

use crate::config::endpoint::{AssignmentPolicy, HealthStatus};
use crate::upstream::endpoint::Endpoint;

/// Health of one priority. `healthy` and `degraded` in percent, overprovisioned.
pub(super) struct Tally {
    total: u64,
    usable: u64,
    healthy: u32,
    degraded: u32,
}

impl Tally {
    pub fn new(
        endpoints: &[Arc<Endpoint>],
        statuses: &[HealthStatus],
        policy: AssignmentPolicy,
    ) -> Self {
        let is_counted = |endpoint: &&Arc<Endpoint>| !endpoint.state.health.get().is_uncounted();
        let count = |kind| statuses.iter().filter(|status| **status == kind).count() as u64;
        let (healthy, degraded) = (count(HealthStatus::Healthy), count(HealthStatus::Degraded));
        let total = endpoints.iter().filter(is_counted).count() as u64;
        let weight = |kind: HealthStatus| {
            let of_kind = endpoints.iter().zip(statuses);
            let of_kind = of_kind.filter(|(_, status)| **status == kind);
            of_kind.fold(0u64, |sum, (e, _)| sum.saturating_add(e.weight.into()))
        };
        let (weighed_healthy, weighed_degraded, of) = match policy.weighted_priority_health {
            false => (healthy, degraded, total),
            true => (
                weight(HealthStatus::Healthy),
                weight(HealthStatus::Degraded),
                endpoints
                    .iter()
                    .filter(is_counted)
                    .fold(0u64, |sum, e| sum.saturating_add(e.weight.into())),
            ),
        };
        let percent = |part: u64| {
            let share = part.saturating_mul(policy.overprovisioning.into());
            let share = share.checked_div(of).unwrap_or(0);
            u32::try_from(share.min(100)).unwrap_or(100)
        };
        Self {
            total,
            usable: healthy.saturating_add(degraded),
            healthy: percent(weighed_healthy),
            degraded: percent(weighed_degraded),
        }
    }

    /// Percent that is healthy or degraded.
    pub fn share_available(&self) -> u64 {
        let share = self.usable.saturating_mul(100).checked_div(self.total);
        share.unwrap_or(0)
    }
}

/// The share of picks, in percent, of each priority's healthy and of its degraded endpoints, and
/// whether it is in panic: health is disregarded. All shares sum to 100.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct PriorityLoads {
    pub healthy: Vec<u32>,
    pub degraded: Vec<u32>,
    pub panic: Vec<bool>,
}

impl PriorityLoads {
    /// `panic_threshold` in percent; 0 turns panic off.
    pub fn new(tallies: &[Tally], panic_threshold: u8) -> Self {
        let healthy = tallies.iter().map(|tally| tally.healthy);
        let degraded = tallies.iter().map(|tally| tally.degraded);
        let all = healthy.clone().chain(degraded.clone());
        let available = all.fold(0, u32::saturating_add).min(100);
        let panics =
            |t: &Tally| available < 100 && t.share_available() < u64::from(panic_threshold);
        let mut loads = Self {
            healthy: vec![0; tallies.len()],
            degraded: vec![0; tallies.len()],
            panic: tallies.iter().map(panics).collect(),
        };
        // Where every priority is in panic, health counts no more at all.
        if loads.panic.iter().all(|panics| *panics) {
            loads.spread_by_number(tallies);
            return loads;
        }
        let mut rest = 100;
        let mut give = |loads: &mut [u32], part: u32, at: usize| {
            let share = part.saturating_mul(100).checked_div(available);
            let share = share.unwrap_or(0).min(rest);
            if let Some(load) = loads.get_mut(at) {
                *load = share;
            }
            rest = rest.saturating_sub(share);
        };
        // Healthy endpoints of all priorities first, then degraded ones.
        for (at, part) in healthy.enumerate() {
            give(&mut loads.healthy, part, at);
        }
        for (at, part) in degraded.enumerate() {
            give(&mut loads.degraded, part, at);
        }
        loads.give_rest(tallies, rest);
        loads
    }

    /// Rounding leaves a few percent: they are the first available priority's, as in Envoy.
    fn give_rest(&mut self, tallies: &[Tally], rest: u32) {
        let healthy = tallies.iter().position(|tally| tally.healthy > 0);
        let degraded = tallies.iter().position(|tally| tally.degraded > 0);
        let first = match (healthy, degraded) {
            (None, Some(at)) => self.degraded.get_mut(at),
            (at, _) => self.healthy.get_mut(at.unwrap_or(0)),
        };
        if let Some(load) = first {
            *load = load.saturating_add(rest);
        }
    }

    /// By the number of endpoints, whatever their health.
    fn spread_by_number(&mut self, tallies: &[Tally]) {
        let total = tallies
            .iter()
            .fold(0u64, |sum, tally| sum.saturating_add(tally.total));
        let mut rest: u32 = 100;
        for (load, tally) in self.healthy.iter_mut().zip(tallies) {
            let share = tally.total.saturating_mul(100).checked_div(total);
            *load = u32::try_from(share.unwrap_or(0)).unwrap_or(100);
            rest = rest.saturating_sub(*load);
        }
        let first = tallies.iter().position(|tally| tally.total > 0);
        if let Some(load) = self.healthy.get_mut(first.unwrap_or(0)) {
            *load = load.saturating_add(rest);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use proptest::prelude::*;

    use super::*;
    use HealthStatus::{Degraded, Healthy, Unhealthy};

    /// Endpoints of one priority: how many are healthy, degraded and unhealthy, each with its weight.
    type Numbers = [(usize, u32); 3];

    fn tally(numbers: Numbers, policy: AssignmentPolicy) -> Tally {
        let (mut endpoints, mut statuses) = (Vec::new(), Vec::new());
        for (status, (number, weight)) in [Healthy, Degraded, Unhealthy].into_iter().zip(numbers) {
            for _ in 0..number {
                endpoints.push(Arc::new(Endpoint {
                    weight,
                    ..Endpoint::at(SocketAddr::from(([10, 0, 0, 1], 1)))
                }));
                statuses.push(status);
            }
        }
        Tally::new(&endpoints, &statuses, policy)
    }

    fn loads(priorities: &[[usize; 3]], threshold: u8) -> PriorityLoads {
        let of = |numbers: &[usize; 3]| {
            let numbers = numbers.map(|number| (number, 1));
            tally(numbers, AssignmentPolicy::default())
        };
        let tallies: Vec<_> = priorities.iter().map(of).collect();
        PriorityLoads::new(&tallies, threshold)
    }

    /// `70/0 30/0!`: shares of healthy and degraded endpoints by priority; `!`: in panic.
    fn text(loads: &PriorityLoads) -> String {
        let shares = loads.healthy.iter().zip(&loads.degraded).zip(&loads.panic);
        let text = shares.map(|((healthy, degraded), panic)| {
            format!("{healthy}/{degraded}{}", if *panic { "!" } else { "" })
        });
        text.collect::<Vec<_>>().join(" ")
    }

    /// Numbers of Envoy's documentation (priority levels, degraded endpoints, panic threshold), and
    /// of what its rules say beyond that.
    #[test]
    fn loads_are_those_of_envoys_documentation() {
        let cases: [(&[[usize; 3]], u8, &str); 18] = [
            // Two priorities: 100, 72, 71, 50, 25, 0 % of the first healthy.
            (&[[100, 0, 0], [100, 0, 0]], 50, "100/0 0/0"),
            (&[[72, 0, 28], [100, 0, 0]], 50, "100/0 0/0"),
            (&[[71, 0, 29], [100, 0, 0]], 50, "99/0 1/0"),
            (&[[50, 0, 50], [100, 0, 0]], 50, "70/0 30/0"),
            (&[[25, 0, 75], [100, 0, 0]], 50, "35/0 65/0"),
            (&[[0, 0, 100], [100, 0, 0]], 50, "0/0 100/0"),
            // The total is below 100: normalised, and panic for each by itself.
            (&[[25, 0, 75], [25, 0, 75]], 20, "50/0 50/0"),
            (&[[25, 0, 75], [20, 0, 80]], 25, "56/0 44/0!"),
            (&[[5, 0, 95], [65, 0, 35]], 50, "8/0! 92/0"),
            // The first keeps its few healthy endpoints while others can take the rest.
            (&[[5, 0, 95], [100, 0, 0]], 50, "7/0 93/0"),
            // All in panic: by numbers.
            (&[[25, 0, 75], [25, 0, 75]], 50, "50/0! 50/0!"),
            (&[[0, 0, 1], [1, 0, 5]], 50, "15/0! 85/0!"),
            (&[[0, 0, 0], [0, 0, 3]], 50, "0/0! 100/0!"),
            // Degraded ones take what healthy ones leave.
            (&[[0, 100, 0], [25, 0, 75]], 50, "0/65 35/0"),
            (
                &[[10, 20, 70], [20, 10, 70], [10, 0, 90]],
                10,
                "16/28 28/14 14/0",
            ),
            (&[[0, 50, 50]], 50, "0/100"),
            // Without panic there is only what is healthy, however little; with nothing, the first.
            (&[[0, 0, 9], [0, 0, 9]], 0, "100/0 0/0"),
            (&[[1, 0, 199]], 0, "100/0"),
        ];
        for (priorities, threshold, expected) in cases {
            let found = text(&loads(priorities, threshold));
            assert_eq!(found, expected, "{priorities:?}, {threshold} %");
        }
    }

    #[test]
    fn health_can_be_that_of_the_weight() {
        let numbers = [(1, 90), (0, 1), (9, 10)];
        let policy = |weighted_priority_health| AssignmentPolicy {
            weighted_priority_health,
            ..AssignmentPolicy::default()
        };
        let healthy = |weighted| tally(numbers, policy(weighted)).healthy;
        assert_eq!((healthy(false), healthy(true)), (14, 70));
        // Panic goes by the number all the same, as in Envoy.
        assert_eq!(tally(numbers, policy(true)).share_available(), 10);
    }

    proptest! {
        #[test]
        fn shares_sum_to_all(
            priorities in prop::collection::vec([0usize..20, 0..20, 0..20], 1..6),
            threshold in 0u8..=100,
        ) {
            let PriorityLoads { healthy, degraded, panic } = loads(&priorities, threshold);
            prop_assert_eq!(healthy.iter().chain(&degraded).sum::<u32>(), 100);
            let any = priorities.iter().any(|numbers| numbers[0] + numbers[1] > 0);
            for (at, numbers) in priorities.iter().enumerate() {
                if any && !panic.iter().all(|panics| *panics) && healthy[at] > 0 {
                    prop_assert!(numbers[0] > 0 || at == 0, "{priorities:?}");
                }
                prop_assert!(degraded[at] == 0 || numbers[1] > 0, "{priorities:?}");
            }
        }
    }
}
