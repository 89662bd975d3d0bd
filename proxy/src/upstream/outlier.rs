//! Outlier detection: endpoints that keep failing leave the balancing for a while.
//!
//! Failures in a row are counted in the endpoint's own atomics; only an ejection and its end take
//! a lock. Time is injected. Source: Envoy's outlier detection documentation.
//!
//! `Config` → [`Detector`] (per cluster): [`Detector::record`] on every result (hot path),
//! [`Detector::sweep`] every `interval`.

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::host::HostState;

/// envoy.config.cluster.v3.OutlierDetection, the supported part. Percentages are whole percent.
#[derive(Clone, Debug, PartialEq)]
pub struct OutlierConfig {
    /// Failures in a row; `None`: this detector is off.
    pub consecutive_5xx: Option<u32>,
    pub consecutive_gateway: Option<u32>,
    pub consecutive_local: Option<u32>,
    /// Chance that a detection ejects.
    pub enforcing_5xx: u32,
    pub enforcing_gateway: u32,
    pub enforcing_local: u32,
    /// Failures to connect and time-outs count on their own instead of as 5xx.
    pub split_local: bool,
    pub interval: Duration,
    pub base_ejection: Duration,
    pub max_ejection: Duration,
    pub max_ejection_jitter: Duration,
    pub max_ejection_percent: u32,
    pub always_eject_one: bool,
}

/// Envoy's defaults.
impl Default for OutlierConfig {
    fn default() -> Self {
        Self {
            consecutive_5xx: Some(5),
            consecutive_gateway: Some(5),
            consecutive_local: Some(5),
            enforcing_5xx: 100,
            enforcing_gateway: 0,
            enforcing_local: 100,
            split_local: false,
            interval: Duration::from_secs(10),
            base_ejection: Duration::from_secs(30),
            max_ejection: Duration::from_secs(300),
            max_ejection_jitter: Duration::ZERO,
            max_ejection_percent: 10,
            always_eject_one: false,
        }
    }
}

/// What one attempt told about its endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// A response with this status arrived.
    Status(u16),
    /// A connection was made (TCP), or anything else that shows life without a status.
    Alive,
    /// Refused, unreachable, failed handshake.
    ConnectFailed,
    /// No answer in time.
    TimedOut,
    /// The connection or stream was reset while in use.
    Reset,
}

/// An endpoint's ejection, if any.
#[derive(Debug, Default)]
pub struct Ejection {
    since: Option<Instant>,
    jitter: Duration,
    /// How often in a row; the ejection time is this many times the base.
    times: u32,
}

/// Outlier detection of one cluster. Carried over while the cluster's name stays.
#[derive(Debug, Default)]
pub struct Detector {
    ejected: AtomicU32,
}

impl Detector {
    /// Endpoints out of balancing now.
    pub fn ejected(&self) -> u32 {
        self.ejected.load(Relaxed)
    }

    /// Takes an attempt's outcome into account; true: the endpoint was ejected just now, so the
    /// caller refreshes the cluster's balancing. `hosts`: how many the cluster has.
    pub fn record(
        &self,
        config: &OutlierConfig,
        host: &HostState,
        outcome: Outcome,
        hosts: usize,
        now: Instant,
        random: &mut fastrand::Rng,
    ) -> bool {
        let Some(enforcing) = count(config, host, outcome) else {
            return false;
        };
        // Ejected ones are still used in panic; they serve their time, no more.
        if host.is_ejected() || random.u32(0..100) >= enforcing {
            return false;
        }
        let after = f64::from(self.ejected() + 1) * 100.0 / hosts.max(1) as f64;
        let first = config.always_eject_one && self.ejected() == 0;
        if !first && after > f64::from(config.max_ejection_percent) {
            return false;
        }
        let mut ejection = lock(host);
        if host.is_ejected() {
            return false;
        }
        ejection.since = Some(now);
        ejection.times = ejection.times.saturating_add(1);
        ejection.jitter = config.max_ejection_jitter.mul_f64(random.f64());
        host.set_ejected(true);
        self.ejected.fetch_add(1, Relaxed);
        true
    }

    /// Ends ejections whose time has come and lets the others' record fade; true: something
    /// changed, so the caller refreshes the cluster's balancing.
    pub fn sweep<'a>(
        &self,
        config: &OutlierConfig,
        hosts: impl IntoIterator<Item = &'a HostState>,
        now: Instant,
    ) -> bool {
        let mut ejected = 0;
        let mut changed = false;
        for host in hosts {
            let mut ejection = lock(host);
            let Some(since) = ejection.since else {
                ejection.times = ejection.times.saturating_sub(1);
                continue;
            };
            let time = config
                .base_ejection
                .saturating_mul(ejection.times)
                .min(config.max_ejection.max(config.base_ejection))
                + ejection.jitter;
            if now.saturating_duration_since(since) >= time {
                ejection.since = None;
                host.reset_failures();
                host.set_ejected(false);
                changed = true;
            } else {
                ejected += 1;
            }
        }
        // Counted anew: endpoints that left the cluster take their ejection with them.
        self.ejected.store(ejected, Relaxed);
        changed
    }
}

fn lock(host: &HostState) -> MutexGuard<'_, Ejection> {
    let ejection: &Mutex<Ejection> = &host.ejection;
    ejection.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Counts the outcome; the chance of ejection in percent when a bound was met.
fn count(config: &OutlierConfig, host: &HostState, outcome: Outcome) -> Option<u32> {
    let local = matches!(
        outcome,
        Outcome::ConnectFailed | Outcome::TimedOut | Outcome::Reset
    );
    if config.split_local {
        if local {
            return over(
                &host.consecutive_local,
                config.consecutive_local,
                config.enforcing_local,
            );
        }
        host.consecutive_local.store(0, Relaxed);
        if outcome == Outcome::Alive {
            return None;
        }
    }
    let status = match outcome {
        Outcome::Status(status) => status,
        Outcome::Alive => 200,
        Outcome::ConnectFailed => 503,
        Outcome::TimedOut => 504,
        Outcome::Reset => 500,
    };
    let gateway = if matches!(status, 502..=504) {
        over(
            &host.consecutive_gateway,
            config.consecutive_gateway,
            config.enforcing_gateway,
        )
    } else {
        host.consecutive_gateway.store(0, Relaxed);
        None
    };
    let any = if status >= 500 {
        over(
            &host.consecutive_5xx,
            config.consecutive_5xx,
            config.enforcing_5xx,
        )
    } else {
        // A store only when needed: the common case leaves the cache line shared.
        if host.consecutive_5xx.load(Relaxed) != 0 {
            host.consecutive_5xx.store(0, Relaxed);
        }
        None
    };
    any.max(gateway)
}

fn over(counter: &AtomicU32, bound: Option<u32>, enforcing: u32) -> Option<u32> {
    let bound = bound?;
    let seen = counter.fetch_add(1, Relaxed) + 1;
    if seen < bound {
        return None;
    }
    counter.store(0, Relaxed);
    Some(enforcing)
}

#[cfg(test)]
mod tests {
    use super::*;

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

        fn record(&mut self, host: usize, outcome: Outcome) -> bool {
            self.detector.record(
                &self.config,
                &self.hosts[host],
                outcome,
                self.hosts.len(),
                self.now,
                &mut self.random,
            )
        }

        fn repeat(&mut self, host: usize, outcome: Outcome, times: u32) -> bool {
            (0..times).fold(false, |any, _| self.record(host, outcome) || any)
        }

        fn sweep_after(&mut self, time: Duration) -> bool {
            self.now += time;
            self.detector.sweep(&self.config, &self.hosts, self.now)
        }
    }

    #[test]
    fn five_failures_in_a_row_eject_and_a_success_between_does_not() {
        let mut bench = Bench::new(10, OutlierConfig::default());
        assert!(!bench.repeat(0, Outcome::Status(500), 4));
        assert!(!bench.record(0, Outcome::Status(200)));
        assert!(!bench.repeat(0, Outcome::Status(500), 4));
        assert!(bench.record(0, Outcome::Status(500)));
        assert!(bench.hosts[0].is_ejected());
    }

    #[test]
    fn ejections_grow_and_fade() {
        let mut bench = Bench::new(10, OutlierConfig::default());
        bench.repeat(0, Outcome::Status(503), 5);
        assert!(!bench.sweep_after(Duration::from_secs(29)));
        assert!(bench.sweep_after(Duration::from_secs(1)));
        assert!(!bench.hosts[0].is_ejected());
        // The second time lasts twice the base.
        assert!(bench.repeat(0, Outcome::Status(503), 5));
        assert!(!bench.sweep_after(Duration::from_secs(59)));
        assert!(bench.sweep_after(Duration::from_secs(1)));
        // Two quiet intervals, and the record is clean.
        bench.sweep_after(STEP);
        bench.sweep_after(STEP);
        assert!(bench.repeat(0, Outcome::Status(503), 5));
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
            assert!(bench.repeat(0, Outcome::Status(500), 5));
            assert!(bench.sweep_after(Duration::from_secs(40)));
        }
    }

    #[test]
    fn the_share_of_ejected_hosts_is_bounded() {
        let mut bench = Bench::new(20, OutlierConfig::default());
        for host in 0..20 {
            bench.repeat(host, Outcome::Status(500), 5);
        }
        assert_eq!(bench.hosts.iter().filter(|h| h.is_ejected()).count(), 2);

        let mut few = Bench::new(3, OutlierConfig::default());
        assert!(!few.repeat(0, Outcome::Status(500), 5));
        few.config.always_eject_one = true;
        assert!(few.repeat(0, Outcome::Status(500), 5));
        assert!(!few.repeat(1, Outcome::Status(500), 5));
    }

    #[test]
    fn gateway_errors_are_detected_but_not_enforced_unless_told() {
        let off = OutlierConfig {
            consecutive_5xx: None,
            ..OutlierConfig::default()
        };
        let mut bench = Bench::new(10, off.clone());
        assert!(!bench.repeat(0, Outcome::Status(502), 50));
        let mut bench = Bench::new(
            10,
            OutlierConfig {
                enforcing_gateway: 100,
                ..off
            },
        );
        assert!(!bench.repeat(0, Outcome::Status(500), 50));
        assert!(bench.repeat(0, Outcome::Status(504), 5));
    }

    #[test]
    fn local_failures_count_apart_when_split() {
        let mut joint = Bench::new(10, OutlierConfig::default());
        joint.repeat(0, Outcome::ConnectFailed, 3);
        assert!(joint.repeat(0, Outcome::Status(500), 2));

        let mut split = Bench::new(
            10,
            OutlierConfig {
                split_local: true,
                ..OutlierConfig::default()
            },
        );
        split.repeat(0, Outcome::TimedOut, 3);
        assert!(!split.repeat(0, Outcome::Status(500), 2));
        assert!(!split.repeat(0, Outcome::ConnectFailed, 4));
        assert!(split.record(0, Outcome::ConnectFailed));
    }
}
