use proptest::prelude::*;

use super::*;
use crate::config::outlier::{FailurePercentage, SuccessRate};

const STEP: Duration = Duration::from_secs(10);

struct Bench {
    detector: Detector,
    config: OutlierConfig,
    hosts: Vec<HostState>,
    now: Instant,
    random: fastrand::Rng,
}

impl Bench {
    fn new(hosts: usize, config: OutlierConfig) -> Self {
        Self {
            detector: Detector::default(),
            config,
            hosts: (0..hosts).map(|_| HostState::default()).collect(),
            now: Instant::now(),
            random: fastrand::Rng::with_seed(7),
        }
    }

    fn found(&mut self, host: usize, outcome: AttemptResult) -> Detections {
        self.detector.record(
            &self.config,
            &self.hosts[host],
            outcome,
            self.hosts.len(),
            self.now,
            &mut self.random,
        )
    }

    fn record(&mut self, host: usize, outcome: AttemptResult) -> bool {
        let found = self.found(host, outcome);
        found.iter().any(|d| d.result == DetectionResult::Ejected)
    }

    fn repeat(&mut self, host: usize, outcome: AttemptResult, times: u32) -> bool {
        (0..times).fold(false, |any, _| self.record(host, outcome) || any)
    }

    fn sweep(&mut self) -> Sweep {
        self.detector
            .sweep(&self.config, &self.hosts, self.now, &mut self.random)
    }

    fn sweep_after(&mut self, time: Duration) -> bool {
        self.now += time;
        self.sweep().changed
    }

    /// So many results, of which so many are bad, never two in a row while they can be spread.
    fn results(&mut self, host: usize, good: u32, bad: u32, failure: AttemptResult) {
        let mut left = (good, bad);
        while left != (0, 0) {
            if left.1 > 0 {
                left.1 -= 1;
                self.record(host, failure);
            }
            if left.0 > 0 {
                left.0 -= 1;
                self.record(host, AttemptResult::Status(200));
            }
        }
    }

    fn ejected(&self) -> Vec<usize> {
        let hosts = self.hosts.iter().enumerate();
        hosts
            .filter(|(_, h)| h.is_ejected())
            .map(|(at, _)| at)
            .collect()
    }
}

#[test]
fn five_failures_in_a_row_eject_and_a_success_between_does_not() {
    let mut bench = Bench::new(10, OutlierConfig::default());
    assert!(!bench.repeat(0, AttemptResult::Status(500), 4));
    assert!(!bench.record(0, AttemptResult::Status(200)));
    assert!(!bench.repeat(0, AttemptResult::Status(500), 4));
    assert!(bench.record(0, AttemptResult::Status(500)));
    assert!(bench.hosts[0].is_ejected());
}

#[test]
fn ejections_grow_and_fade() {
    let mut bench = Bench::new(10, OutlierConfig::default());
    bench.repeat(0, AttemptResult::Status(503), 5);
    assert!(!bench.sweep_after(Duration::from_secs(29)));
    assert!(bench.sweep_after(Duration::from_secs(1)));
    assert!(!bench.hosts[0].is_ejected());
    // The second time lasts twice the base.
    assert!(bench.repeat(0, AttemptResult::Status(503), 5));
    assert!(!bench.sweep_after(Duration::from_secs(59)));
    assert!(bench.sweep_after(Duration::from_secs(1)));
    // After two intervals without failures the ejection count is 0 again.
    bench.sweep_after(STEP);
    bench.sweep_after(STEP);
    assert!(bench.repeat(0, AttemptResult::Status(503), 5));
    assert!(bench.sweep_after(Duration::from_secs(30)));
}

#[test]
fn an_ejection_never_lasts_longer_than_its_bound() {
    let config = OutlierConfig {
        max_ejection: Duration::from_secs(40),
        ..OutlierConfig::default()
    };
    let mut bench = Bench::new(10, config);
    for _ in 0..20 {
        assert!(bench.repeat(0, AttemptResult::Status(500), 5));
        assert!(bench.sweep_after(Duration::from_secs(40)));
    }
}

#[test]
fn the_share_of_ejected_hosts_is_bounded() {
    let mut bench = Bench::new(20, OutlierConfig::default());
    for host in 0..20 {
        bench.repeat(host, AttemptResult::Status(500), 5);
    }
    assert_eq!(bench.hosts.iter().filter(|h| h.is_ejected()).count(), 2);

    let mut few = Bench::new(3, OutlierConfig::default());
    assert!(!few.repeat(0, AttemptResult::Status(500), 5));
    few.config.always_eject_one = true;
    assert!(few.repeat(0, AttemptResult::Status(500), 5));
    assert!(!few.repeat(1, AttemptResult::Status(500), 5));
}

#[test]
fn gateway_errors_are_detected_but_not_enforced_by_default() {
    let off = OutlierConfig {
        consecutive_5xx: None,
        ..OutlierConfig::default()
    };
    let mut bench = Bench::new(10, off.clone());
    assert!(!bench.repeat(0, AttemptResult::Status(502), 50));
    let mut bench = Bench::new(
        10,
        OutlierConfig {
            enforcing_gateway: 100,
            ..off
        },
    );
    assert!(!bench.repeat(0, AttemptResult::Status(500), 50));
    assert!(bench.repeat(0, AttemptResult::Status(504), 5));
}

#[test]
fn local_failures_count_apart_when_split() {
    let mut joint = Bench::new(10, OutlierConfig::default());
    joint.repeat(0, AttemptResult::ConnectFailed, 3);
    assert!(joint.repeat(0, AttemptResult::Status(500), 2));

    let mut split = Bench::new(
        10,
        OutlierConfig {
            split_local: true,
            ..OutlierConfig::default()
        },
    );
    split.repeat(0, AttemptResult::TimedOut, 3);
    assert!(!split.repeat(0, AttemptResult::Status(500), 2));
    assert!(!split.repeat(0, AttemptResult::ConnectFailed, 4));
    assert!(split.record(0, AttemptResult::ConnectFailed));
}

/// Only success rates are compared.
fn rates_only() -> OutlierConfig {
    OutlierConfig {
        consecutive_5xx: None,
        consecutive_gateway: None,
        consecutive_local: None,
        max_ejection_percent: 100,
        ..OutlierConfig::default()
    }
}

#[test]
fn a_share_of_success_far_below_the_others_ejects() {
    let mut bench = Bench::new(5, rates_only());
    // Envoy's own example: the mean is 90, the deviation 20, the threshold 52.
    bench.results(0, 50, 50, AttemptResult::Status(500));
    (1..5).for_each(|host| bench.results(host, 100, 0, AttemptResult::Status(500)));
    let sweep = bench.sweep();
    let kind = EjectionType::SuccessRate(FailureOrigin::External);
    let result = DetectionResult::Ejected;
    assert_eq!(sweep.detections, [Detection { kind, result }]);
    assert!(sweep.changed);
    assert_eq!(bench.ejected(), [0]);
    let baseline = bench.detector.baseline(FailureOrigin::External);
    assert_eq!(baseline.average(), Some(90.0));
    assert!((baseline.threshold().unwrap() - 52.0).abs() < 1e-9);
    assert_eq!(
        bench.hosts[0].rates.last(FailureOrigin::External),
        Some(50.0)
    );
    // The next interval begins without results.
    assert!(bench.sweep().detections.is_empty());
    assert_eq!(
        bench.detector.baseline(FailureOrigin::External).average(),
        None
    );
}

#[test]
fn too_few_requests_or_endpoints_are_not_compared() {
    let mut few_hosts = Bench::new(4, rates_only());
    few_hosts.results(0, 50, 50, AttemptResult::Status(500));
    (1..4).for_each(|host| few_hosts.results(host, 100, 0, AttemptResult::Status(500)));
    assert!(few_hosts.sweep().detections.is_empty());

    let mut few_requests = Bench::new(5, rates_only());
    few_requests.results(0, 50, 50, AttemptResult::Status(500));
    (1..5).for_each(|host| few_requests.results(host, 99, 0, AttemptResult::Status(500)));
    assert!(few_requests.sweep().detections.is_empty());
}

#[test]
fn failure_percentage_is_detected_and_ejects_where_enforced() {
    let all_fail = |bench: &mut Bench| {
        // All the same: no endpoint stands out, and yet all are above the bound.
        (0..5).for_each(|host| bench.results(host, 7, 43, AttemptResult::Status(500)));
        bench.sweep()
    };
    let mut bench = Bench::new(5, rates_only());
    let kind = EjectionType::FailurePercentage(FailureOrigin::External);
    let result = DetectionResult::NotEnforced;
    assert_eq!(
        all_fail(&mut bench).detections,
        [Detection { kind, result }; 5]
    );
    assert!(bench.ejected().is_empty());

    let mut config = rates_only();
    config.failure_percentage.enforcing = [100, 0];
    config.max_ejection_percent = 40;
    let mut bench = Bench::new(5, config);
    let verdicts: Vec<_> = all_fail(&mut bench)
        .detections
        .iter()
        .map(|d| d.result)
        .collect();
    use DetectionResult::{Ejected, Overflow};
    assert_eq!(verdicts, [Ejected, Ejected, Overflow, Overflow, Overflow]);
}

#[test]
fn shares_are_kept_apart_by_origin_when_split() {
    let config = OutlierConfig {
        split_local: true,
        ..rates_only()
    };
    let mut bench = Bench::new(5, config);
    bench.results(0, 100, 100, AttemptResult::ConnectFailed);
    (1..5).for_each(|host| bench.results(host, 100, 0, AttemptResult::Reset));
    let found = bench.sweep().detections;
    let kinds: Vec<_> = found.iter().map(|d| d.kind).collect();
    assert_eq!(kinds, [EjectionType::SuccessRate(FailureOrigin::Local)]);
    assert_eq!(bench.ejected(), [0]);

    // Without the split, the upstream's rate includes local failures.
    let mut joint = Bench::new(5, rates_only());
    joint.results(0, 100, 100, AttemptResult::ConnectFailed);
    (1..5).for_each(|host| joint.results(host, 100, 0, AttemptResult::Reset));
    let found = joint.sweep().detections;
    let kinds: Vec<_> = found.iter().map(|d| d.kind).collect();
    assert_eq!(kinds, [EjectionType::SuccessRate(FailureOrigin::External)]);
}

#[derive(Clone, Debug)]
enum Step {
    Record(usize, AttemptResult),
    Advance(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let outcome = prop_oneof![
        4 => Just(AttemptResult::Status(200)),
        3 => Just(AttemptResult::Status(500)),
        3 => Just(AttemptResult::Status(503)),
        1 => Just(AttemptResult::Alive),
        2 => Just(AttemptResult::ConnectFailed),
        1 => Just(AttemptResult::TimedOut),
        1 => Just(AttemptResult::Reset),
    ];
    prop_oneof![
        30 => (0usize..12, outcome).prop_map(|(host, outcome)| Step::Record(host, outcome)),
        1 => (0u64..60).prop_map(Step::Advance),
    ]
}

fn config() -> impl Strategy<Value = OutlierConfig> {
    (
        0u32..=100,
        any::<bool>(),
        any::<bool>(),
        1u64..40,
        0u64..5,
        1u32..4,
    )
        .prop_map(
            |(percent, always_eject_one, split_local, base, jitter, bound)| OutlierConfig {
                consecutive_5xx: Some(bound),
                max_ejection_percent: percent,
                always_eject_one,
                split_local,
                enforcing_gateway: 50,
                base_ejection: Duration::from_secs(base),
                max_ejection: Duration::from_secs(60),
                max_ejection_jitter: Duration::from_secs(jitter),
                success_rate: SuccessRate {
                    minimum_hosts: 2,
                    request_volume: 2,
                    stdev_factor: 0.5,
                    enforcing: [100, 50],
                },
                failure_percentage: FailurePercentage {
                    threshold: 60,
                    minimum_hosts: 1,
                    request_volume: 2,
                    enforcing: [100, 100],
                },
                ..OutlierConfig::default()
            },
        )
}

proptest! {
    /// For any input: never more are ejected than allowed, the count is right, and no endpoint is
    /// ejected for longer than the longest ejection.
    #[test]
    fn ejections_are_bounded_in_number_and_time(
        config in config(), hosts in 1usize..12, steps in prop::collection::vec(step(), 0..300),
    ) {
        let most = hosts * config.max_ejection_percent as usize / 100;
        let most = most.max(usize::from(config.always_eject_one));
        let longest = config.longest_ejection() + config.max_ejection_jitter;
        let mut bench = Bench::new(hosts, config);
        for step in steps {
            match step {
                Step::Record(host, outcome) => drop(bench.found(host % hosts, outcome)),
                Step::Advance(seconds) => {
                    bench.now += Duration::from_secs(seconds);
                    bench.sweep();
                    // An endpoint that is still ejected has not been so for too long.
                    let since = |host: usize| bench.hosts[host].ejection.lock().unwrap().since;
                    let mut out = bench.ejected().into_iter().filter_map(since);
                    prop_assert!(out.all(|since| bench.now - since < longest));
                }
            }
            let ejected = bench.ejected();
            prop_assert!(ejected.len() <= most, "{ejected:?} of {hosts}");
            prop_assert_eq!(ejected.len(), bench.detector.ejected() as usize);
        }
        // Left alone for that long, all come back.
        bench.now += longest;
        bench.sweep();
        let again = bench.ejected();
        let fresh = |host: &usize| bench.hosts[*host].ejection.lock().unwrap().since == Some(bench.now);
        prop_assert!(again.iter().all(fresh), "{again:?}");
    }

    /// Exactly the endpoints below the threshold are ejected for a low success rate.
    #[test]
    fn success_rates_are_evaluated_as_documented(shares in prop::collection::vec(0u32..=100, 5..20)) {
        let mut bench = Bench::new(shares.len(), rates_only());
        for (host, good) in shares.iter().enumerate() {
            bench.results(host, *good, 100 - good, AttemptResult::Status(500));
        }
        let found = bench.sweep().detections;
        let count = shares.len() as f64;
        let mean = shares.iter().map(|s| f64::from(*s)).sum::<f64>() / count;
        let spread = shares.iter().map(|s| (f64::from(*s) - mean).powi(2)).sum::<f64>() / count;
        let threshold = mean - 1.9 * spread.sqrt();
        let below = shares.iter().filter(|s| f64::from(**s) < threshold).count();
        let kind = EjectionType::SuccessRate(FailureOrigin::External);
        prop_assert_eq!(found.iter().filter(|d| d.kind == kind).count(), below);
        prop_assert_eq!(bench.ejected().len(), below);
    }
}
