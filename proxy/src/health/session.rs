//! The state machine of one host's checks, without I/O: results in; flags, events and the time to the
//! next check out. Source: Envoy's health checking documentation.

use std::time::Duration;

use smallvec::SmallVec;

use crate::config::health::HealthCheck;
use crate::upstream::health::ActiveHealth;

/// The result of one check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CheckResult {
    Passed {
        /// The host says that it is degraded.
        degraded: bool,
    },
    Failed(CheckFailure),
}

/// Why a host failed a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CheckFailure {
    pub kind: FailureKind,
    /// It takes `unhealthy_threshold` of them to make a host unhealthy, as of those of the network.
    pub retriable: bool,
    /// Of an HTTP response.
    pub status: Option<u16>,
    /// The host asks for no more requests.
    pub excludes: bool,
}

impl CheckFailure {
    pub fn of(kind: FailureKind) -> Self {
        Self {
            kind,
            retriable: false,
            status: None,
            excludes: false,
        }
    }
}

/// envoy.data.core.v3.HealthCheckFailureType.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailureKind {
    /// It answered a check, and not as it should.
    Active,
    /// It said so in an answer to a request.
    Passive,
    /// There was no connection, or no answer on it.
    Network,
    /// There was no answer in time.
    NetworkTimeout,
}

impl FailureKind {
    /// As events name it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Active => "ACTIVE",
            Self::Passive => "PASSIVE",
            Self::Network => "NETWORK",
            Self::NetworkTimeout => "NETWORK_TIMEOUT",
        }
    }

    pub fn is_of_network(self) -> bool {
        matches!(self, Self::Network | Self::NetworkTimeout)
    }
}

/// What a result did to its host's health.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HealthTransition {
    Unchanged,
    /// It takes more such results to change it.
    Pending,
    /// The cluster's balance is to be worked out again.
    Changed,
}

/// What is logged: envoy.data.core.v3.HealthCheckEvent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HealthEvent {
    EjectUnhealthy {
        kind: FailureKind,
        status: Option<u16>,
    },
    AddHealthy {
        first: bool,
    },
    Success,
    Failure {
        kind: FailureKind,
        first: bool,
        status: Option<u16>,
    },
    Degraded,
    NoLongerDegraded,
}

/// What came of a result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckOutcome {
    pub transition: HealthTransition,
    pub events: SmallVec<[HealthEvent; 3]>,
}

/// How often in a row a host has passed or failed.
#[derive(Clone, Copy, Debug, Default)]
pub struct CheckSession {
    passed: u32,
    failed: u32,
}

impl CheckSession {
    /// Takes a result into account. The first one decides alone.
    pub fn take(
        &mut self,
        config: &HealthCheck,
        health: &ActiveHealth,
        result: CheckResult,
    ) -> CheckOutcome {
        let pending = health.get().is_pending();
        let mut outcome = match result {
            CheckResult::Passed { degraded } => self.pass(config, health, degraded),
            CheckResult::Failed(failure) => self.fail(config, health, failure),
        };
        // It is counted among the cluster's endpoints from here on.
        if pending {
            outcome.transition = HealthTransition::Changed;
        }
        health.set_known();
        outcome
    }

    fn pass(
        &mut self,
        config: &HealthCheck,
        health: &ActiveHealth,
        degraded: bool,
    ) -> CheckOutcome {
        self.failed = 0;
        let mut outcome = CheckOutcome::unchanged();
        let before = health.get();
        let first = before.is_awaited();
        if before.is_failed() {
            self.passed = self.passed.saturating_add(u32::from(!first));
            if first || self.passed == config.healthy_threshold {
                health.set_passed();
                outcome.changed_by(HealthEvent::AddHealthy { first });
            } else {
                outcome.transition = HealthTransition::Pending;
            }
        }
        if outcome.transition != HealthTransition::Changed && config.events.all_successes {
            outcome.events.push(HealthEvent::Success);
        }
        if degraded != before.is_degraded() {
            health.set_degraded(degraded);
            outcome.events.push(match degraded {
                true => HealthEvent::Degraded,
                false => HealthEvent::NoLongerDegraded,
            });
            if outcome.transition == HealthTransition::Unchanged {
                outcome.transition = HealthTransition::Changed;
            }
        }
        outcome
    }

    fn fail(
        &mut self,
        config: &HealthCheck,
        health: &ActiveHealth,
        failure: CheckFailure,
    ) -> CheckOutcome {
        let CheckFailure {
            kind,
            retriable,
            status,
            excludes,
        } = failure;
        self.passed = 0;
        let mut outcome = CheckOutcome::unchanged();
        let before = health.get();
        let first = before.is_awaited();
        if excludes {
            health.set_excluded();
        }
        if !before.is_failed() {
            let counts = kind.is_of_network() || retriable;
            self.failed = self.failed.saturating_add(u32::from(counts));
            if first || !counts || self.failed == config.unhealthy_threshold {
                health.set_failed();
                outcome.changed_by(HealthEvent::EjectUnhealthy { kind, status });
            } else {
                outcome.transition = HealthTransition::Pending;
            }
        }
        let timed_out = kind == FailureKind::NetworkTimeout && health.get().is_failed();
        health.set_timed_out(timed_out);
        if first || config.events.all_failures {
            outcome.events.push(HealthEvent::Failure {
                kind,
                first,
                status,
            });
        }
        outcome
    }
}

impl CheckOutcome {
    fn unchanged() -> Self {
        Self {
            transition: HealthTransition::Unchanged,
            events: SmallVec::new(),
        }
    }

    fn changed_by(&mut self, event: HealthEvent) {
        self.transition = HealthTransition::Changed;
        self.events.push(event);
    }
}

/// How long to wait before the first check.
pub fn initial_wait(config: &HealthCheck, random: &mut fastrand::Rng) -> Duration {
    below(config.jitter.initial, random)
}

/// How long to wait after a result. `has_traffic`: the cluster has had a connection.
pub fn wait_after(
    config: &HealthCheck,
    result: CheckResult,
    transition: HealthTransition,
    has_traffic: bool,
    random: &mut fastrand::Rng,
) -> Duration {
    let intervals = &config.intervals;
    let passed = matches!(result, CheckResult::Passed { .. });
    let edge = transition == HealthTransition::Pending;
    let base = match (has_traffic, passed, edge) {
        (false, true, false) => intervals.no_traffic_healthy,
        (false, _, _) => intervals.no_traffic,
        (true, true, false) => intervals.healthy,
        (true, true, true) => intervals.healthy_edge,
        (true, false, false) => intervals.unhealthy,
        (true, false, true) => intervals.unhealthy_edge,
    };
    let share = base.saturating_mul(config.jitter.percent).checked_div(100);
    let wait = base
        .saturating_add(below(share.unwrap_or_default(), random))
        .saturating_add(below(config.jitter.interval, random));
    wait.max(SHORTEST)
}

/// Between two checks of a host, whatever is configured.
const SHORTEST: Duration = Duration::from_millis(1);

/// A random duration below `most`; zero for zero.
fn below(most: Duration, random: &mut fastrand::Rng) -> Duration {
    // Durations of configuration are far below the 1e18 ns at which a nanosecond is lost.
    most.mul_f64(random.f64())
}

#[cfg(test)]
mod tests;
