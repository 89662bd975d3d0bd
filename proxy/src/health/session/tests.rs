use proptest::prelude::*;

use super::*;
use crate::config::health::{
    CheckIntervals, CheckJitter, EventLog, HealthProtocol, Payloads, TcpHealthCheck,
};
use crate::upstream::health::FirstHealth;

const PASSED: CheckResult = CheckResult::Passed { degraded: false };
const DEGRADED: CheckResult = CheckResult::Passed { degraded: true };

fn failed(kind: FailureKind) -> CheckResult {
    CheckResult::Failed(CheckFailure::of(kind))
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn config(unhealthy_threshold: u32, healthy_threshold: u32) -> HealthCheck {
    HealthCheck {
        timeout: seconds(1),
        intervals: CheckIntervals {
            healthy: seconds(1),
            healthy_edge: seconds(2),
            unhealthy: seconds(3),
            unhealthy_edge: seconds(4),
            no_traffic: seconds(5),
            no_traffic_healthy: seconds(6),
        },
        jitter: CheckJitter::default(),
        unhealthy_threshold,
        healthy_threshold,
        reuse_connection: true,
        alpn: None,
        transport_metadata: None,
        events: EventLog::default(),
        protocol: HealthProtocol::Tcp(TcpHealthCheck {
            send: None,
            receive: Payloads::default(),
        }),
    }
}

struct Host {
    config: HealthCheck,
    health: ActiveHealth,
    session: CheckSession,
}

impl Host {
    fn new(config: HealthCheck, first: FirstHealth) -> Self {
        let health = ActiveHealth::default();
        health.begin(first);
        Self {
            config,
            health,
            session: CheckSession::default(),
        }
    }

    fn healthy(config: HealthCheck) -> Self {
        let mut host = Self::new(config, FirstHealth::Unhealthy);
        host.take(PASSED);
        host
    }

    fn take(&mut self, result: CheckResult) -> HealthTransition {
        self.outcome(result).transition
    }

    fn outcome(&mut self, result: CheckResult) -> CheckOutcome {
        self.session.take(&self.config, &self.health, result)
    }

    fn is_failed(&self) -> bool {
        self.health.get().is_failed()
    }
}

use HealthTransition::{Changed, Pending, Unchanged};

#[test]
fn one_success_makes_a_new_host_healthy() {
    let mut host = Host::new(config(3, 3), FirstHealth::Unhealthy);
    assert!(host.is_failed() && host.health.get().is_awaited());
    let outcome = host.outcome(PASSED);
    assert_eq!(outcome.transition, Changed);
    assert_eq!(*outcome.events, [HealthEvent::AddHealthy { first: true }]);
    assert!(!host.is_failed() && !host.health.get().is_awaited());
}

#[test]
fn after_a_first_failure_the_threshold_counts() {
    let mut host = Host::new(config(3, 3), FirstHealth::Unhealthy);
    assert_eq!(host.take(failed(FailureKind::Network)), Unchanged);
    assert!(host.is_failed());
    assert_eq!(host.take(PASSED), Pending);
    assert_eq!(host.take(PASSED), Pending);
    assert_eq!(host.take(PASSED), Changed);
    assert!(!host.is_failed());
}

#[test]
fn failures_of_the_network_take_the_threshold_and_others_do_not() {
    for kind in [FailureKind::Network, FailureKind::NetworkTimeout] {
        let mut host = Host::healthy(config(2, 1));
        assert_eq!(host.take(failed(kind)), Pending);
        assert!(!host.is_failed());
        assert_eq!(host.take(failed(kind)), Changed);
        assert!(host.is_failed());
    }
    for kind in [FailureKind::Active, FailureKind::Passive] {
        let mut host = Host::healthy(config(2, 1));
        assert_eq!(host.take(failed(kind)), Changed);
    }
    let mut host = Host::healthy(config(2, 1));
    let retriable = CheckResult::Failed(CheckFailure {
        retriable: true,
        status: Some(503),
        ..CheckFailure::of(FailureKind::Active)
    });
    assert_eq!(host.take(retriable), Pending);
    let outcome = host.outcome(retriable);
    let (kind, status) = (FailureKind::Active, Some(503));
    let ejected = HealthEvent::EjectUnhealthy { kind, status };
    assert_eq!(*outcome.events, [ejected]);
}

#[test]
fn a_result_of_the_other_kind_begins_the_count_anew() {
    let mut host = Host::healthy(config(2, 2));
    let network = failed(FailureKind::Network);
    for result in [network, PASSED, network, PASSED] {
        host.take(result);
        assert!(!host.is_failed());
    }
    host.take(network);
    host.take(network);
    for result in [PASSED, network, PASSED, network] {
        host.take(result);
        assert!(host.is_failed());
    }
}

#[test]
fn a_degraded_host_is_healthy_and_marked() {
    let mut host = Host::healthy(config(1, 1));
    let outcome = host.outcome(DEGRADED);
    assert_eq!(outcome.transition, Changed);
    assert_eq!(*outcome.events, [HealthEvent::Degraded]);
    assert!(!host.is_failed() && host.health.get().is_degraded());
    assert_eq!(host.take(DEGRADED), Unchanged);
    assert_eq!(
        *host.outcome(PASSED).events,
        [HealthEvent::NoLongerDegraded]
    );
    assert!(!host.health.get().is_degraded());
}

#[test]
fn a_time_out_is_marked_while_the_host_is_failed() {
    let mut host = Host::healthy(config(2, 1));
    let late = failed(FailureKind::NetworkTimeout);
    host.take(late);
    assert!(!host.health.get().is_timed_out());
    host.take(late);
    assert!(host.health.get().is_timed_out());
    host.take(failed(FailureKind::Network));
    assert!(!host.health.get().is_timed_out());
    host.take(late);
    host.take(PASSED);
    assert!(!host.health.get().is_timed_out());
}

#[test]
fn a_host_that_is_excluded_comes_back_with_a_success() {
    let mut host = Host::healthy(config(3, 1));
    assert!(host.health.report());
    assert_eq!(host.take(failed(FailureKind::Passive)), Changed);
    assert!(host.health.get().is_excluded() && host.health.get().is_uncounted());
    assert_eq!(host.take(PASSED), Changed);
    assert!(!host.health.get().is_uncounted());
}

#[test]
fn a_new_host_that_is_ignored_counts_after_its_first_result() {
    for result in [PASSED, failed(FailureKind::Network)] {
        let mut host = Host::new(config(1, 1), FirstHealth::Ignored);
        assert!(host.health.get().is_uncounted());
        assert_eq!(host.take(result), Changed);
        assert!(!host.health.get().is_uncounted());
    }
}

#[test]
fn a_host_that_served_before_serves_until_its_first_result() {
    let mut host = Host::new(config(3, 3), FirstHealth::Healthy);
    assert!(!host.is_failed());
    assert_eq!(host.take(failed(FailureKind::Network)), Changed);
    assert!(host.is_failed());
    let mut host = Host::new(config(3, 3), FirstHealth::Healthy);
    assert_eq!(host.take(PASSED), Unchanged);
    assert_eq!(host.take(failed(FailureKind::Network)), Pending);
}

#[test]
fn events_are_logged_as_configured() {
    let mut quiet = Host::new(config(1, 1), FirstHealth::Unhealthy);
    let kind = FailureKind::NetworkTimeout;
    let event = |first| HealthEvent::Failure {
        kind,
        first,
        status: None,
    };
    assert_eq!(*quiet.outcome(failed(kind)).events, [event(true)]);
    assert!(quiet.outcome(failed(kind)).events.is_empty());
    quiet.take(PASSED);
    assert!(quiet.outcome(PASSED).events.is_empty());

    let mut all = config(2, 1);
    (all.events.all_failures, all.events.all_successes) = (true, true);
    let mut all = Host::healthy(all);
    assert_eq!(*all.outcome(PASSED).events, [HealthEvent::Success]);
    assert_eq!(*all.outcome(failed(kind)).events, [event(false)]);
    let ejected = HealthEvent::EjectUnhealthy { kind, status: None };
    assert_eq!(*all.outcome(failed(kind)).events, [ejected, event(false)]);
}

#[test]
fn intervals_follow_result_transition_and_traffic() {
    let config = config(1, 1);
    let random = &mut fastrand::Rng::with_seed(1);
    let network = failed(FailureKind::Network);
    for (result, transition, traffic, expected) in [
        (PASSED, Unchanged, true, 1),
        (PASSED, Changed, true, 1),
        (PASSED, Pending, true, 2),
        (network, Unchanged, true, 3),
        (network, Changed, true, 3),
        (network, Pending, true, 4),
        (network, Changed, false, 5),
        (PASSED, Pending, false, 5),
        (PASSED, Changed, false, 6),
    ] {
        let wait = wait_after(&config, result, transition, traffic, random);
        assert_eq!(
            wait,
            seconds(expected),
            "{result:?} {transition:?} {traffic}"
        );
    }
}

fn any_result() -> impl Strategy<Value = CheckResult> {
    let kind = prop_oneof![
        Just(FailureKind::Active),
        Just(FailureKind::Passive),
        Just(FailureKind::Network),
        Just(FailureKind::NetworkTimeout),
    ];
    let failure = (kind, any::<bool>(), any::<bool>()).prop_map(|(kind, retriable, excludes)| {
        CheckResult::Failed(CheckFailure {
            kind,
            retriable,
            status: None,
            excludes,
        })
    });
    let passed = any::<bool>().prop_map(|degraded| CheckResult::Passed { degraded });
    prop_oneof![passed, failure]
}

proptest! {
    /// Against a reading of the documentation: the last so many results decide.
    #[test]
    fn health_is_what_the_last_results_say(
        results in prop::collection::vec(any_result(), 1..40),
        unhealthy in 1u32..4, healthy in 1u32..4,
    ) {
        let mut host = Host::new(config(unhealthy, healthy), FirstHealth::Unhealthy);
        let (mut failed, mut streak) = (true, 0);
        for (index, result) in results.into_iter().enumerate() {
            let before = host.is_failed();
            let transition = host.take(result);
            match result {
                CheckResult::Passed { .. } if !failed => streak = 0,
                CheckResult::Passed { .. } => {
                    streak += 1;
                    if index == 0 || streak == healthy {
                        (failed, streak) = (false, 0);
                    }
                }
                CheckResult::Failed(_) if failed => streak = 0,
                CheckResult::Failed(failure) => {
                    let at_once = !failure.retriable && !failure.kind.is_of_network();
                    streak += 1;
                    if at_once || streak == unhealthy {
                        (failed, streak) = (true, 0);
                    }
                }
            }
            prop_assert_eq!(host.is_failed(), failed, "after result {}", index);
            prop_assert!(!host.health.get().is_awaited());
            // Every change of the flags that balancing reads is among the effects.
            prop_assert!(before == failed || transition == Changed);
            if let CheckResult::Passed { degraded } = result {
                prop_assert_eq!(host.health.get().is_degraded(), degraded);
            }
            prop_assert!(failed || !host.health.get().is_timed_out());
        }
    }

    #[test]
    fn jitter_is_within_its_bounds(
        seed: u64, percent in 0u32..200, jitter in 0u64..5000, initial in 0u64..5000,
    ) {
        let mut config = config(1, 1);
        config.jitter = CheckJitter {
            initial: Duration::from_millis(initial),
            interval: Duration::from_millis(jitter),
            percent,
        };
        let random = &mut fastrand::Rng::with_seed(seed);
        let wait = wait_after(&config, PASSED, Unchanged, true, random);
        let most = seconds(1) + seconds(1) * percent / 100 + Duration::from_millis(jitter);
        prop_assert!((seconds(1)..=most).contains(&wait), "{wait:?}");
        prop_assert!(initial_wait(&config, random) <= Duration::from_millis(initial));
    }
}
