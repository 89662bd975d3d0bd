//! Outlier detection: endpoints that keep failing leave the balancing for a while.
//!
//! Failures in a row and shares of success are counted in the endpoint's own atomics; only an
//! ejection and its end take a lock. Time and randomness are injected. Source: Envoy's outlier
//! detection documentation.
//!
//! [`OutlierConfig`] → [`Detector`] (per cluster): [`Detector::record`] on every result (hot path),
//! [`Detector::sweep`] every `interval`.
//!
//! - `rate`: success rates, and the outliers among them

mod rate;
#[cfg(test)]
mod tests;

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use smallvec::SmallVec;

use self::rate::Sample;
pub use self::rate::{Baseline, Rates};
use super::host::HostState;
use crate::config::outlier::OutlierConfig;

/// The outcome of one attempt, for its endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttemptResult {
    /// A response with this status arrived.
    Status(u16),
    /// A connection was made (TCP), or another success without a status.
    Alive,
    /// Refused, unreachable, failed handshake.
    ConnectFailed,
    /// No answer in time.
    TimedOut,
    /// The connection or stream was reset while in use.
    Reset,
}

/// The origin of a failure: the upstream's response, or the connection to it, where they are split.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailureOrigin {
    External,
    Local,
}

impl FailureOrigin {
    pub const BOTH: [FailureOrigin; 2] = [FailureOrigin::External, FailureOrigin::Local];

    /// Its one of two values, in the order of [`Self::BOTH`].
    fn of<T>(self, values: &[T; 2]) -> &T {
        let [external, local] = values;
        match self {
            FailureOrigin::External => external,
            FailureOrigin::Local => local,
        }
    }
}

/// Why a host is ejected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EjectionType {
    Consecutive5xx,
    ConsecutiveGateway,
    ConsecutiveLocal,
    SuccessRate(FailureOrigin),
    FailurePercentage(FailureOrigin),
}

impl EjectionType {
    /// How many there are.
    pub const COUNT: usize = crate::metrics::resource::MAX_TYPES;

    /// As Envoy's statistics name it, and a number below [`EjectionType::COUNT`].
    pub fn label(self) -> (usize, &'static str) {
        match self {
            EjectionType::Consecutive5xx => (0, "consecutive_5xx"),
            EjectionType::ConsecutiveGateway => (1, "consecutive_gateway_failure"),
            EjectionType::ConsecutiveLocal => (2, "consecutive_local_origin_failure"),
            EjectionType::SuccessRate(FailureOrigin::External) => (3, "success_rate"),
            EjectionType::SuccessRate(FailureOrigin::Local) => (4, "local_origin_success_rate"),
            EjectionType::FailurePercentage(FailureOrigin::External) => (5, "failure_percentage"),
            EjectionType::FailurePercentage(FailureOrigin::Local) => {
                (6, "local_origin_failure_percentage")
            }
        }
    }
}

impl OutlierConfig {
    /// The probability in percent that a detection of this kind ejects.
    pub fn enforcing(&self, kind: EjectionType) -> u32 {
        match kind {
            EjectionType::Consecutive5xx => self.enforcing_5xx,
            EjectionType::ConsecutiveGateway => self.enforcing_gateway,
            EjectionType::ConsecutiveLocal => self.enforcing_local,
            EjectionType::SuccessRate(origin) => *origin.of(&self.success_rate.enforcing),
            EjectionType::FailurePercentage(origin) => {
                *origin.of(&self.failure_percentage.enforcing)
            }
        }
    }
}

/// An outlier was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Detection {
    pub kind: EjectionType,
    pub result: DetectionResult,
}

/// The result of a detection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DetectionResult {
    Ejected,
    /// Only counted: `enforcing_…` did not choose to eject.
    NotEnforced,
    /// `max_ejection_percent` is reached.
    Overflow,
}

/// Those of one result.
pub type Detections = SmallVec<[Detection; 2]>;

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
    baselines: [Baseline; 2],
}

/// What a sweep did.
#[derive(Debug, Default)]
pub struct Sweep {
    /// The set of ejected endpoints changed: the caller refreshes the cluster's balancing.
    pub changed: bool,
    pub detections: Vec<Detection>,
}

impl Detector {
    /// Endpoints out of balancing now.
    pub fn ejected(&self) -> u32 {
        self.ejected.load(Relaxed)
    }

    /// What success rates were compared with in the last sweep.
    pub fn baseline(&self, origin: FailureOrigin) -> &Baseline {
        origin.of(&self.baselines)
    }

    /// Takes an attempt's outcome into account. After an ejection the caller refreshes the
    /// cluster's balancing. `hosts`: how many the cluster has.
    pub fn record(
        &self,
        config: &OutlierConfig,
        host: &HostState,
        outcome: AttemptResult,
        hosts: usize,
        now: Instant,
        random: &mut fastrand::Rng,
    ) -> Detections {
        let found = count(config, host, outcome);
        let eject = |kind| self.eject(config, kind, host, hosts, now, random);
        found.into_iter().flatten().filter_map(eject).collect()
    }

    /// Ends ejections that are over, lowers the ejection count of the others, and compares shares
    /// of success since the last sweep.
    pub fn sweep<'a>(
        &self,
        config: &OutlierConfig,
        hosts: impl IntoIterator<Item = &'a HostState>,
        now: Instant,
        random: &mut fastrand::Rng,
    ) -> Sweep {
        let hosts: Vec<&HostState> = hosts.into_iter().collect();
        let mut sweep = Sweep::default();
        let before = self.ejected();
        let mut ejected: u32 = 0;
        for host in &hosts {
            match pass(config, host, now) {
                SweepResult::Free => {}
                SweepResult::Released => sweep.changed = true,
                SweepResult::Serving => ejected = ejected.saturating_add(1),
            }
        }
        // Recounted, because ejections of removed endpoints no longer count. Hosts that workers
        // ejected meanwhile stay counted, so that the limit is never exceeded.
        self.ejected
            .fetch_add(ejected.wrapping_sub(before), Relaxed);
        for origin in FailureOrigin::BOTH {
            let samples: Vec<Sample<'_>> = rate::collect(&hosts, origin);
            for (kind, host) in rate::outliers(config, origin, &samples, self.baseline(origin)) {
                sweep
                    .detections
                    .extend(self.eject(config, kind, host, hosts.len(), now, random));
            }
        }
        sweep.changed |= sweep
            .detections
            .iter()
            .any(|d| d.result == DetectionResult::Ejected);
        sweep
    }

    /// Ends a host's ejection, if it has one, because it passed an active health check. True: the
    /// caller refreshes the cluster's balancing.
    pub fn uneject(&self, host: &HostState) -> bool {
        if !host.is_ejected() {
            return false;
        }
        let mut ejection = lock(host);
        if ejection.since.take().is_none() {
            return false;
        }
        host.reset_failures();
        host.set_ejected(false);
        let next = |ejected: u32| ejected.checked_sub(1);
        // None is left when a sweep has just counted anew, without this host.
        let _ = self.ejected.fetch_update(Relaxed, Relaxed, next);
        true
    }

    /// `None`: it is ejected already. Ejected endpoints are still used in panic; failures do not
    /// extend their ejection.
    fn eject(
        &self,
        config: &OutlierConfig,
        kind: EjectionType,
        host: &HostState,
        hosts: usize,
        now: Instant,
        random: &mut fastrand::Rng,
    ) -> Option<Detection> {
        if host.is_ejected() {
            return None;
        }
        let found = |result| Some(Detection { kind, result });
        let allowed = |ejected: u32| {
            let after = f64::from(ejected.saturating_add(1)) * 100.0 / hosts.max(1) as f64;
            let first = config.always_eject_one && ejected == 0;
            first || after <= f64::from(config.max_ejection_percent)
        };
        if !allowed(self.ejected()) {
            return found(DetectionResult::Overflow);
        }
        if random.u32(0..100) >= config.enforcing(kind) {
            return found(DetectionResult::NotEnforced);
        }
        let mut ejection = lock(host);
        if host.is_ejected() {
            return None;
        }
        // Workers eject at once: a place is taken before it is used.
        let next = |ejected| allowed(ejected).then_some(ejected.saturating_add(1));
        if self.ejected.fetch_update(Relaxed, Relaxed, next).is_err() {
            return found(DetectionResult::Overflow);
        }
        ejection.since = Some(now);
        // No higher than the longest ejection needs, so that it can fall again.
        if config.base_ejection.saturating_mul(ejection.times) < config.longest_ejection() {
            ejection.times = ejection.times.saturating_add(1);
        }
        ejection.jitter = config.max_ejection_jitter.mul_f64(random.f64());
        host.set_ejected(true);
        found(DetectionResult::Ejected)
    }
}

enum SweepResult {
    Free,
    /// The host's ejection has ended.
    Released,
    /// It is still ejected.
    Serving,
}

/// An interval has passed for `host`.
fn pass(config: &OutlierConfig, host: &HostState, now: Instant) -> SweepResult {
    let mut ejection = lock(host);
    let Some(since) = ejection.since else {
        ejection.times = ejection.times.saturating_sub(1);
        return SweepResult::Free;
    };
    let time = config.base_ejection.saturating_mul(ejection.times);
    let time = time.min(config.longest_ejection());
    let time = time.saturating_add(ejection.jitter);
    if now.saturating_duration_since(since) < time {
        return SweepResult::Serving;
    }
    ejection.since = None;
    host.reset_failures();
    host.set_ejected(false);
    SweepResult::Released
}

fn lock(host: &HostState) -> MutexGuard<'_, Ejection> {
    let ejection: &Mutex<Ejection> = &host.ejection;
    ejection.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Counts the outcome; the detectors whose bound was met.
fn count(
    config: &OutlierConfig,
    host: &HostState,
    outcome: AttemptResult,
) -> [Option<EjectionType>; 2] {
    let local = matches!(
        outcome,
        AttemptResult::ConnectFailed | AttemptResult::TimedOut | AttemptResult::Reset
    );
    if config.split_local {
        host.rates.count(FailureOrigin::Local, !local);
        if local {
            let over = over(&host.consecutive_local, config.consecutive_local);
            return [over.then_some(EjectionType::ConsecutiveLocal), None];
        }
        reset(&host.consecutive_local);
        if outcome == AttemptResult::Alive {
            return [None, None];
        }
    }
    let status = match outcome {
        AttemptResult::Status(status) => status,
        AttemptResult::Alive => 200,
        AttemptResult::ConnectFailed | AttemptResult::Reset => 503,
        AttemptResult::TimedOut => 504,
    };
    let (failed, gateway) = ((500..600).contains(&status), matches!(status, 502..=504));
    host.rates.count(FailureOrigin::External, !failed);
    [
        streak(
            &host.consecutive_gateway,
            gateway,
            config.consecutive_gateway,
        )
        .then_some(EjectionType::ConsecutiveGateway),
        streak(&host.consecutive_5xx, failed, config.consecutive_5xx)
            .then_some(EjectionType::Consecutive5xx),
    ]
}

/// Whether another failure completes the configured number in a row.
fn streak(counter: &AtomicU32, failed: bool, bound: Option<u32>) -> bool {
    if failed {
        return over(counter, bound);
    }
    reset(counter);
    false
}

/// A store only when needed: the common case leaves the cache line shared.
fn reset(counter: &AtomicU32) {
    if counter.load(Relaxed) != 0 {
        counter.store(0, Relaxed);
    }
}

fn over(counter: &AtomicU32, bound: Option<u32>) -> bool {
    let Some(bound) = bound else {
        return false;
    };
    let seen = counter.fetch_add(1, Relaxed).saturating_add(1);
    if seen >= bound {
        counter.store(0, Relaxed);
    }
    seen >= bound
}
