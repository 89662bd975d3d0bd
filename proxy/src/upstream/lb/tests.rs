mod spread;

use std::collections::HashMap;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

use proptest::prelude::*;

use super::*;
use crate::config::balancing::{LocalityPolicy, ZoneAware};
use crate::config::endpoint::{AssignmentPolicy, HealthStatus};
use crate::upstream::endpoint::Priority;

const LEAST: LbPolicy = LbPolicy::LeastRequest {
    choices: 2,
    bias: 1.0,
};

fn settings(policy: LbPolicy) -> BalanceSettings<'static> {
    BalanceSettings {
        policy,
        slow_start: None,
        locality: LocalityPolicy::ZoneAware(ZoneAware::default()),
        scale_locality_weight: false,
        panic_threshold: 50,
        assignment: AssignmentPolicy::default(),
        own_locality: Some("a"),
        local: None,
        now: Instant::now(),
        start: 0,
    }
}

/// `overprovisioning` and `panic_threshold` in percent.
fn balance(priorities: &[Priority], overprovisioning: u32, panic_threshold: u8) -> Balance {
    let assignment = AssignmentPolicy {
        overprovisioning,
        ..AssignmentPolicy::default()
    };
    let settings = BalanceSettings {
        panic_threshold,
        assignment,
        ..settings(LbPolicy::RoundRobin)
    };
    settings.balance(priorities)
}

fn endpoint(port: u16, weight: u32, health: HealthStatus) -> Arc<Endpoint> {
    Arc::new(Endpoint {
        weight,
        health,
        ..Endpoint::at(SocketAddr::from(([10, 0, 0, 1], port)))
    })
}

fn priority(weights: &[u32]) -> Priority {
    let endpoints = weights
        .iter()
        .zip(1u16..)
        .map(|(w, port)| endpoint(port, *w, HealthStatus::Healthy));
    Priority {
        endpoints: endpoints.collect(),
    }
}

fn healths(base: u16, healths: &[HealthStatus]) -> Priority {
    let endpoints = healths
        .iter()
        .zip(base..)
        .map(|(health, port)| endpoint(port, 1, *health));
    Priority {
        endpoints: endpoints.collect(),
    }
}

fn tally(balance: &Balance, policy: LbPolicy, picks: usize) -> HashMap<u16, usize> {
    let turn = RoundRobinCursor::default();
    let mut random = fastrand::Rng::with_seed(42);
    let mut seen = HashMap::new();
    for _ in 0..picks {
        let choice = balance
            .pick(policy, &turn, PickInput::default(), &mut random)
            .unwrap();
        *seen.entry(choice.endpoint.address.port()).or_default() += 1;
    }
    seen
}

proptest! {
    #[test]
    fn round_robin_gives_every_endpoint_exactly_its_weight(
        weights in prop::collection::vec(1u32..50, 1..20),
    ) {
        let balance = balance(&[priority(&weights)], 140, 50);
        let even = weights.iter().all(|w| *w == weights[0]);
        let round = if even { weights.len() } else { weights.iter().sum::<u32>() as usize };
        let seen = tally(&balance, LbPolicy::RoundRobin, round * 3);
        for (weight, port) in weights.iter().zip(1u16..) {
            let share = if even { 1 } else { *weight as usize };
            prop_assert_eq!(seen[&port], share * 3);
        }
    }

    #[test]
    fn random_and_least_request_without_load_follow_the_weights(
        weights in prop::collection::vec(1u32..10, 2..8),
    ) {
        let balance = balance(&[priority(&weights)], 140, 50);
        let picks = 20_000;
        let total: u32 = weights.iter().sum();
        let seen = tally(&balance, LEAST, picks);
        for (weight, port) in weights.iter().zip(1u16..) {
            let expected = picks as f64 * f64::from(*weight) / f64::from(total);
            let got = *seen.get(&port).unwrap_or(&0) as f64;
            prop_assert!((got - expected).abs() < 6.0 * expected.sqrt() + 10.0, "{got} {expected}");
        }
        let seen = tally(&balance, LbPolicy::Random, picks);
        let expected = picks as f64 / weights.len() as f64;
        for port in 1..=weights.len() as u16 {
            prop_assert!((seen[&port] as f64 - expected).abs() < 6.0 * expected.sqrt());
        }
    }

    #[test]
    fn excluded_endpoints_are_avoided_while_there_are_others(
        count in 1usize..12, excluded in 0usize..12, seed: u64,
    ) {
        let balance = balance(&[priority(&vec![1; count])], 140, 50);
        let exclude: Vec<_> = (1..=excluded.min(count) as u16)
            .map(|port| SocketAddr::from(([10, 0, 0, 1], port)))
            .collect();
        let mut random = fastrand::Rng::with_seed(seed);
        let choice = balance.pick(LEAST, &RoundRobinCursor::default(), PickInput { exclude: &exclude, ..PickInput::default() }, &mut random).unwrap();
        prop_assert_eq!(exclude.contains(&choice.endpoint.address), exclude.len() == count);
    }
}

#[test]
fn least_request_avoids_the_busy() {
    let priority = priority(&[1; 4]);
    let busy: Vec<_> = (0..50)
        .map(|_| priority.endpoints[0].state.begin())
        .collect();
    let balance = balance(&[priority], 140, 50);
    let seen = tally(&balance, LEAST, 10_000);
    // Only drawn when both draws hit it: one in sixteen.
    assert!((500..750).contains(&seen[&1]), "{seen:?}");
    drop(busy);
}

#[test]
fn ejected_and_unhealthy_endpoints_get_nothing_until_panic() {
    use HealthStatus::{Healthy, Unhealthy};
    let priority = healths(1, &[Healthy, Healthy, Healthy, Unhealthy]);
    priority.endpoints[0].state.set_ejected(true);
    let well = balance(std::slice::from_ref(&priority), 140, 50);
    assert_eq!(tally(&well, LbPolicy::RoundRobin, 100).len(), 2);
    // One of four is below the threshold: health counts no more.
    priority.endpoints[1].state.set_ejected(true);
    let panics = balance(std::slice::from_ref(&priority), 140, 50);
    assert_eq!(tally(&panics, LbPolicy::RoundRobin, 100).len(), 4);
    let strict = balance(&[priority], 140, 0);
    assert_eq!(tally(&strict, LbPolicy::RoundRobin, 100).len(), 1);
}

#[test]
fn load_spills_to_the_next_priority_as_health_falls() {
    use HealthStatus::{Healthy, Unhealthy};
    // Half healthy, overprovisioned by 1.4: 70 % stay.
    let first = healths(1, &[Healthy, Unhealthy]);
    let second = healths(11, &[Healthy, Healthy]);
    let balance = balance(&[first, second], 140, 50);
    let seen = tally(&balance, LEAST, 20_000);
    let stays = seen[&1] as f64 / 20_000.0;
    assert!((0.68..0.72).contains(&stays), "{stays}");
    assert!(!seen.contains_key(&2));
}

#[test]
fn degraded_endpoints_come_after_healthy_ones() {
    use HealthStatus::{Degraded, Healthy, Unhealthy};
    let all = balance(
        &[healths(1, &[Healthy, Healthy, Healthy, Degraded])],
        140,
        50,
    );
    assert!(!tally(&all, LEAST, 1000).contains_key(&4));
    let some = balance(&[healths(1, &[Healthy, Degraded, Unhealthy])], 140, 50);
    let seen = tally(&some, LEAST, 1000);
    assert!(seen[&1] > 0 && seen[&2] > 0 && !seen.contains_key(&3));
}

#[test]
fn no_healthy_host_is_panic_or_nothing() {
    let down = healths(1, &[HealthStatus::Unhealthy; 3]);
    let panic = balance(std::slice::from_ref(&down), 140, 50);
    assert_eq!(tally(&panic, LEAST, 300).len(), 3);
    let strict = balance(&[down], 140, 0);
    let mut random = fastrand::Rng::with_seed(1);
    assert!(
        strict
            .pick(
                LEAST,
                &RoundRobinCursor::default(),
                PickInput::default(),
                &mut random
            )
            .is_none()
    );
    assert!(
        Balance::default()
            .pick(
                LEAST,
                &RoundRobinCursor::default(),
                PickInput::default(),
                &mut random
            )
            .is_none()
    );
}

/// Tells other threads, also when a test fails, that it is over.
struct Done<'a>(&'a std::sync::atomic::AtomicBool);

impl Drop for Done<'_> {
    fn drop(&mut self) {
        self.0.store(true, Relaxed);
    }
}

/// Ejections and releases by other threads, at every moment of making a balance.
#[test]
fn every_balance_can_be_picked_from_while_endpoints_are_ejected_and_released() {
    use HealthStatus::{Degraded, Healthy};
    const ROUNDS: usize = 50_000;
    let done = std::sync::atomic::AtomicBool::new(false);
    let priorities = [healths(1, &[Healthy, Degraded]), healths(11, &[Healthy])];
    std::thread::scope(|scope| {
        for priority in &priorities {
            scope.spawn(|| {
                while !done.load(Relaxed) {
                    for ejected in [true, false] {
                        let endpoints = priority.endpoints.iter();
                        endpoints.for_each(|e| e.state.set_ejected(ejected));
                    }
                }
            });
        }
        let _done = Done(&done);
        let turn = RoundRobinCursor::default();
        let mut random = fastrand::Rng::with_seed(7);
        for round in 0..ROUNDS {
            let balance = balance(&priorities, 140, 50);
            let policy = [LbPolicy::RoundRobin, LbPolicy::Random, LEAST][round % 3];
            let pools = balance.groups.iter().flat_map(|group| &group.pools);
            let mut empty = pools.filter(|pool| pool.endpoints.is_empty());
            assert!(empty.next().is_none(), "in round {round}");
            let picked = balance.pick(policy, &turn, PickInput::default(), &mut random);
            assert!(picked.is_some());
        }
    });
}

#[test]
fn a_pool_without_endpoints_is_none() {
    let mut random = fastrand::Rng::with_seed(1);
    for policy in [LbPolicy::RoundRobin, LbPolicy::Random, LEAST] {
        let turn = RoundRobinCursor::default();
        let drawn = EndpointPool::default().draw(policy, &turn, false, &mut random);
        assert_eq!(drawn, None);
    }
}

const RING: LbPolicy = LbPolicy::ConsistentHash(crate::config::cluster::ConsistentHashing {
    table: crate::config::cluster::HashTableKind::Ring {
        minimum: 1024,
        maximum: 8 << 20,
        function: crate::config::cluster::HashFunction::XxHash,
    },
    use_hostname: false,
    balance_factor: None,
});

#[test]
fn a_hash_chooses_priority_and_endpoint_and_goes_on_where_these_were_tried() {
    use HealthStatus::{Healthy, Unhealthy};
    let first = healths(1, &[Healthy, Unhealthy]);
    let second = healths(11, &[Healthy, Healthy, Healthy]);
    let balance = BalanceSettings {
        locality: LocalityPolicy::Ignored,
        ..settings(RING)
    };
    let balance = balance.balance(&[first, second]);
    let turn = RoundRobinCursor::default();
    let mut random = fastrand::Rng::with_seed(3);
    let mut pick = |hash, exclude: &[SocketAddr]| {
        let input = PickInput {
            exclude,
            hash,
            active: 1,
            peek: false,
        };
        let choice = balance.pick(RING, &turn, input, &mut random).unwrap();
        (choice.priority, choice.endpoint.address)
    };
    for hash in 0..1000u64 {
        let (priority, address) = pick(Some(hash), &[]);
        assert_eq!(priority, u32::from(hash % 100 >= 70));
        assert_eq!(pick(Some(hash), &[]), (priority, address));
        let other = pick(Some(hash), &[address]);
        assert_ne!(other.1, address);
        assert_eq!(pick(Some(hash), &[address]), other);
    }
    // Without a hash it is as at random.
    let ports: std::collections::HashSet<u16> =
        (0..1000).map(|_| pick(None, &[]).1.port()).collect();
    assert_eq!(ports.len(), 4);
}

/// As in Envoy, what rounding leaves is the first group's.
#[test]
fn shares_of_a_hash_are_envoys_to_the_percent() {
    use HealthStatus::{Healthy, Unhealthy};
    let groups = |healths_of: &[(usize, usize)], panic_threshold| {
        let priority = |(index, (up, down)): (usize, &(usize, usize))| {
            let up = std::iter::repeat_n(Healthy, *up);
            let all: Vec<_> = up.chain(std::iter::repeat_n(Unhealthy, *down)).collect();
            healths(u16::try_from(index * 100 + 1).unwrap(), &all)
        };
        let priorities: Vec<_> = healths_of.iter().enumerate().map(priority).collect();
        let balance = balance(&priorities, 140, panic_threshold);
        let bounds: Vec<_> = balance.groups.iter().map(|group| group.bound).collect();
        bounds
    };
    // 23 and 46 percent of 69.
    assert_eq!(groups(&[(1, 5), (2, 4)], 20), [34, 100]);
    // All in panic: by numbers, 3 and 6 of 9.
    assert_eq!(groups(&[(1, 2), (1, 5)], 50), [34, 100]);
    assert_eq!(groups(&[(1, 1), (5, 0)], 50), [70, 100]);
}

#[test]
fn active_health_counts_beside_discovery_and_ejection() {
    use crate::upstream::health::FirstHealth;
    let all = healths(1, &[HealthStatus::Healthy; 4]);
    let host = |at: usize| &all.endpoints[at].state.health;
    for at in 0..4 {
        host(at).begin(FirstHealth::Unhealthy);
        host(at).set_known();
        host(at).set_passed();
    }
    host(0).set_failed();
    host(1).set_degraded(true);
    let statuses = |at: usize| all.endpoints[at].status();
    assert_eq!(statuses(0), HealthStatus::Unhealthy);
    assert_eq!(statuses(1), HealthStatus::Degraded);
    let draining = Endpoint {
        health: HealthStatus::Draining,
        ..Endpoint::at(SocketAddr::from(([10, 0, 0, 9], 9)))
    };
    draining.state.health.set_degraded(true);
    assert_eq!(draining.status(), HealthStatus::Draining);
    // Half of four are healthy, and 70 percent of their priority with overprovisioning; the degraded
    // one takes the rest.
    let seen = tally(&balance(&[all], 140, 50), LbPolicy::Random, 10_000);
    assert!(!seen.contains_key(&1), "{seen:?}");
    assert!((2500..3500).contains(&seen[&2]), "{seen:?}");
}

#[test]
fn endpoints_that_are_not_known_yet_are_not_counted() {
    use crate::upstream::health::FirstHealth;
    let panics = |first: FirstHealth| {
        let all = healths(1, &[HealthStatus::Healthy; 4]);
        for endpoint in &all.endpoints[..3] {
            endpoint.state.health.begin(first);
        }
        let seen = tally(&balance(&[all], 140, 50), LbPolicy::Random, 1000);
        seen.len() > 1
    };
    assert!(panics(FirstHealth::Unhealthy));
    assert!(!panics(FirstHealth::Ignored));
}
