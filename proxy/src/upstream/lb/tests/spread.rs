//! Localities, zones and new endpoints.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::super::*;
use super::{LEAST, RING, priority, settings, tally};
use crate::config::balancing::{LocalityPolicy, SlowStart, ZoneAware};
use crate::config::endpoint::HealthStatus;
use crate::upstream::endpoint::Priority;
use crate::upstream::local::LocalHosts;

/// Localities of the first priority, by name: healthy and unhealthy endpoints, and the locality's weight.
type LocalityNumbers<'n> = &'n [(&'n str, usize, usize, u32)];

fn localities(of: LocalityNumbers<'_>) -> Priority {
    let mut priority = Priority::default();
    for (name, healthy, unhealthy, weight) in of {
        for index in 0..healthy + unhealthy {
            let health = match index < *healthy {
                true => HealthStatus::Healthy,
                false => HealthStatus::Unhealthy,
            };
            let port = u16::try_from(priority.endpoints.len() + 1).unwrap();
            priority.endpoints.push(Arc::new(Endpoint {
                locality: Some((*name).into()),
                locality_weight: *weight,
                health,
                ..Endpoint::at(SocketAddr::from(([10, 0, 0, 1], port)))
            }));
        }
    }
    priority
}

/// Picks by locality.
fn by_locality(balance: &Balance, policy: LbPolicy, picks: usize) -> HashMap<String, usize> {
    let turn = RoundRobinCursor::default();
    let mut random = fastrand::Rng::with_seed(11);
    let mut seen = HashMap::new();
    for hash in 0..picks as u64 {
        let input = PickInput {
            hash: Some(crate::upstream::hash::xx(&hash.to_le_bytes(), 0)),
            ..PickInput::default()
        };
        let choice = balance.pick(policy, &turn, input, &mut random).unwrap();
        let name = choice.endpoint.locality.as_deref().unwrap_or_default();
        *seen.entry(name.to_owned()).or_default() += 1;
    }
    seen
}

#[test]
fn localities_share_by_weight_and_availability_under_every_policy() {
    let priority = localities(&[
        ("a", 10, 0, 30),
        ("b", 5, 5, 60),
        ("c", 4, 0, 10),
        ("d", 1, 0, 0),
    ]);
    for (policy, shares) in [
        // b is available to 70 %.
        (LbPolicy::RoundRobin, [30.0, 42.0, 10.0]),
        (LEAST, [30.0, 42.0, 10.0]),
        (LbPolicy::Random, [30.0, 42.0, 10.0]),
        // As in Envoy, tables know no availability.
        (RING, [30.0, 60.0, 10.0]),
    ] {
        let weighted = BalanceSettings {
            locality: LocalityPolicy::Weighted,
            ..settings(policy)
        };
        let balance = weighted.balance(std::slice::from_ref(&priority));
        let seen = by_locality(&balance, policy, 20_000);
        assert!(!seen.contains_key("d"), "{policy:?}");
        let total: f64 = shares.iter().sum();
        for (name, share) in ["a", "b", "c"].into_iter().zip(shares) {
            let got = seen[name] as f64 / 20_000.0;
            let slack = if policy == RING { 0.06 } else { 0.01 };
            assert!(
                (got - share / total).abs() < slack,
                "{policy:?} {name}: {got}"
            );
        }
    }
}

/// Within a locality endpoints take turns, whatever the other localities get.
#[test]
fn round_robin_is_exact_within_each_locality() {
    let priority = localities(&[("a", 3, 0, 1), ("b", 2, 0, 1)]);
    let weighted = BalanceSettings {
        locality: LocalityPolicy::Weighted,
        ..settings(LbPolicy::RoundRobin)
    };
    let balance = weighted.balance(&[priority]);
    let seen = tally(&balance, LbPolicy::RoundRobin, 1200);
    let expected = [(1, 200), (2, 200), (3, 200), (4, 300), (5, 300)];
    assert_eq!(seen, HashMap::from(expected));
}

#[test]
fn without_weights_of_localities_all_endpoints_share() {
    let priority = localities(&[("a", 3, 0, 0), ("b", 1, 0, 0)]);
    let weighted = |policy| BalanceSettings {
        locality: LocalityPolicy::Weighted,
        ..settings(policy)
    };
    let balance = weighted(LbPolicy::RoundRobin).balance(std::slice::from_ref(&priority));
    assert_eq!(
        tally(&balance, LbPolicy::RoundRobin, 400),
        HashMap::from([(1, 100), (2, 100), (3, 100), (4, 100)])
    );
    // As in Envoy, tables are empty then.
    let balance = weighted(RING).balance(&[priority]);
    let turn = RoundRobinCursor::default();
    let mut random = fastrand::Rng::with_seed(1);
    assert!(
        balance
            .pick(RING, &turn, PickInput::default(), &mut random)
            .is_none()
    );
}

fn local(numbers: LocalityNumbers<'_>) -> LocalHosts {
    let priority = localities(numbers);
    let endpoints = priority.endpoints.iter().map(|e| (e, e.status()));
    LocalHosts::new(endpoints, Some("a"))
}

#[test]
fn requests_stay_in_the_zone_as_far_as_its_endpoints_suffice() {
    let of_local = local(&[("a", 4, 0, 0), ("b", 4, 0, 0), ("c", 2, 0, 0)]);
    let zoned = BalanceSettings {
        local: Some(&of_local),
        ..settings(LbPolicy::RoundRobin)
    };
    let upstream = localities(&[("a", 10, 0, 0), ("b", 20, 0, 0), ("c", 10, 0, 0)]);
    let balance = zoned.balance(&[upstream]);
    assert_eq!(balance.obstacle, None);
    let seen = by_locality(&balance, LbPolicy::RoundRobin, 40_000);
    for (name, share) in [("a", 0.625), ("b", 0.25), ("c", 0.125)] {
        let got = seen[name] as f64 / 40_000.0;
        assert!((got - share).abs() < 0.01, "{name}: {got}");
    }
    // Enough here: all stay. In panic, and for endpoints of other priorities, nothing is kept.
    let upstream = localities(&[("a", 10, 0, 0), ("b", 10, 0, 0)]);
    let balance = zoned.balance(&[upstream]);
    assert_eq!(by_locality(&balance, LbPolicy::RoundRobin, 1000).len(), 1);
    let sick = localities(&[("a", 4, 10, 0), ("b", 4, 10, 0)]);
    let balance = zoned.balance(&[sick]);
    assert_eq!(by_locality(&balance, LbPolicy::RoundRobin, 1000).len(), 2);
    let second = localities(&[("a", 10, 0, 0), ("b", 10, 0, 0)]);
    let balance = zoned.balance(&[Priority::default(), second]);
    assert_eq!(by_locality(&balance, LbPolicy::RoundRobin, 1000).len(), 2);
}

#[test]
fn zone_awareness_can_fail_in_panic_and_needs_a_healthy_local_cluster() {
    let fails = LocalityPolicy::ZoneAware(ZoneAware {
        fail_traffic_on_panic: true,
        ..ZoneAware::default()
    });
    let sick = localities(&[("a", 4, 10, 0), ("b", 4, 10, 0)]);
    let pick = |settings: BalanceSettings<'_>, priority: &Priority| {
        let balance = settings.balance(std::slice::from_ref(priority));
        let turn = RoundRobinCursor::default();
        let mut random = fastrand::Rng::with_seed(1);
        let choice = balance.pick(
            LbPolicy::RoundRobin,
            &turn,
            PickInput::default(),
            &mut random,
        );
        (choice.is_some(), balance.obstacle)
    };
    let failing = BalanceSettings {
        locality: fails,
        ..settings(LbPolicy::RoundRobin)
    };
    assert_eq!(pick(failing, &sick), (false, None));
    let well = localities(&[("a", 10, 0, 0), ("b", 10, 0, 0)]);
    let of_local = local(&[("a", 1, 3, 0), ("b", 1, 3, 0)]);
    let why = Some(ZoneObstacle::LocalClusterNotOk);
    let zoned = BalanceSettings {
        local: Some(&of_local),
        ..settings(LbPolicy::RoundRobin)
    };
    assert_eq!(pick(zoned, &well), (true, why));
    let failing = BalanceSettings {
        locality: fails,
        ..zoned
    };
    assert_eq!(pick(failing, &well), (false, why));
}

#[test]
fn a_new_endpoint_gets_its_growing_share() {
    let began = Instant::now();
    let window = Duration::from_secs(100);
    let mut all = priority(&[2, 2, 2]);
    let new = Endpoint {
        weight: 2,
        ..Endpoint::at(SocketAddr::from(([10, 0, 0, 1], 9)))
    };
    new.state.begin_slow_start(began);
    all.endpoints.push(Arc::new(new));
    for policy in [LbPolicy::RoundRobin, LEAST] {
        for (seconds, share) in [(0, 0.1), (25, 0.25), (50, 0.5), (99, 0.99), (100, 1.0)] {
            let starting = BalanceSettings {
                slow_start: Some(SlowStart {
                    window,
                    aggression: 1.0,
                    min_weight: 0.1,
                }),
                now: began + Duration::from_secs(seconds),
                ..settings(policy)
            };
            let priorities = std::slice::from_ref(&all);
            let seen = tally(&starting.balance(priorities), policy, 20_000);
            let got = seen[&9] as f64 / seen[&1] as f64;
            assert!(
                (got - share).abs() < 0.06,
                "{policy:?} after {seconds} s: {got}"
            );
            let end = (seconds < 100).then(|| began + window);
            assert_eq!(starting.ramps_until(priorities), end);
        }
    }
}

proptest! {
    /// Whatever the weights, health, localities and policy: no endpoint gets more than its bound, and
    /// only endpoints that may be picked are.
    #[test]
    fn shares_are_weights_times_availability(
        of in prop::collection::vec((0usize..5, 0usize..5, 0u32..5), 1..5),
    ) {
        let names = ["a", "b", "c", "d"];
        let numbers: Vec<_> = names.into_iter().zip(&of).map(|(name, (up, down, weight))| (name, *up, *down, *weight)).collect();
        let priority = localities(&numbers);
        let healthy: usize = of.iter().map(|(up, ..)| up).sum();
        let total = priority.endpoints.len();
        // Not in panic, and with something to choose by.
        let wanted: Vec<f64> = of.iter().map(|(up, down, weight)| {
            let available = (*up as f64 / (up + down).max(1) as f64 * 1.4).min(1.0);
            f64::from(*weight) * available
        }).collect();
        let sum: f64 = wanted.iter().sum();
        prop_assume!(healthy * 2 > total && sum > 0.0);
        let weighted = BalanceSettings { locality: LocalityPolicy::Weighted, panic_threshold: 0, ..settings(LbPolicy::RoundRobin) };
        let balance = weighted.balance(&[priority]);
        let picks = 20_000;
        let seen = by_locality(&balance, LbPolicy::RoundRobin, picks);
        for (name, wanted) in names.into_iter().zip(wanted) {
            let got = *seen.get(name).unwrap_or(&0) as f64;
            prop_assert!((got - wanted / sum * picks as f64).abs() < 25.0, "{name}: {got} {seen:?}");
        }
    }
}
