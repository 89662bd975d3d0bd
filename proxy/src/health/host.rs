//! The task of one host: waits, checks, takes the result into account, and again.

use std::cell::Cell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use tokio::sync::{Notify, Semaphore};

use super::check::Checked;
use super::connection::{CheckConnection, KeptConnection};
use super::event;
use super::session::{
    CheckFailure, CheckResult, CheckSession, FailureKind, HealthTransition, initial_wait,
    wait_after,
};
use crate::bug;
use crate::dispatcher::timer::Timers;

/// What the tasks of all hosts share with the driver.
pub struct Turns {
    /// Checks at once.
    pub checks: Semaphore,
    /// Wakes the driver: a cluster has changed.
    pub changed: Notify,
}

/// What the tasks of a cluster's hosts share with the driver.
#[derive(Default)]
pub struct ClusterState {
    /// Its balance is to be worked out again.
    pub changed: Cell<bool>,
}

/// See the module.
pub struct HostTask {
    pub checked: Checked,
    pub turns: Rc<Turns>,
    pub state: Rc<ClusterState>,
    /// Notified when the host reported that it is to have no more requests.
    pub reported: Rc<Notify>,
    /// It follows one that panicked.
    pub is_again: bool,
}

/// Why a wait is over.
enum WaitEnd {
    Due,
    /// The host ended a connection that was kept, which a TCP check takes for a failure.
    Lost,
    Reported,
}

impl HostTask {
    pub async fn run(self) {
        let random = &mut fastrand::Rng::new();
        let config = &self.checked.config;
        let mut session = CheckSession::default();
        let mut kept = None;
        let mut due = self.after(match self.is_again {
            true => config.intervals.unhealthy,
            false => initial_wait(config, random),
        });
        loop {
            let result = match self.wait(due, &mut kept).await {
                WaitEnd::Due => self.check(&mut kept).await,
                WaitEnd::Lost => CheckResult::Failed(CheckFailure::of(FailureKind::Network)),
                WaitEnd::Reported => {
                    self.take_report(&mut session);
                    continue;
                }
            };
            // What was reported while the check lasted came first.
            self.take_report(&mut session);
            let transition = self.take(&mut session, result);
            let has_traffic = self.has_traffic();
            due = self.after(wait_after(config, result, transition, has_traffic, random));
        }
    }

    fn after(&self, wait: Duration) -> Instant {
        let now = self.timers().now();
        now.checked_add(wait).unwrap_or(now)
    }

    fn timers(&self) -> &Timers {
        &self.checked.dialler.dialler.timers
    }

    async fn wait(&self, due: Instant, kept: &mut Option<KeptConnection>) -> WaitEnd {
        let timer = self.timers().timer();
        timer.set_at(due);
        loop {
            let lost = async {
                match kept.as_mut() {
                    Some(connection) => connection.ended().await,
                    None => std::future::pending().await,
                }
            };
            let ended = tokio::select! {
                biased;
                ended = lost => ended,
                () = self.reported.notified() => return WaitEnd::Reported,
                () = timer.expired() => return WaitEnd::Due,
            };
            let gone = kept.take().map(|kept| kept.connection);
            if ended && matches!(gone, Some(CheckConnection::Raw(_))) {
                return WaitEnd::Lost;
            }
        }
    }

    async fn check(&self, kept: &mut Option<KeptConnection>) -> CheckResult {
        // The semaphore is never closed.
        let _turn = self.turns.checks.acquire().await;
        bug::point("health_check");
        if let Some(checks) = &self.checked.cluster.checks {
            checks.metrics.attempts.inc();
        }
        // On the heap: while a host waits for its next check, its task is small.
        let checking = Box::pin(self.checked.check(kept));
        let limit = self.checked.config.timeout;
        let result = self.timers().timeout(limit, checking).await;
        result.unwrap_or(CheckResult::Failed(CheckFailure::of(
            FailureKind::NetworkTimeout,
        )))
    }

    fn take_report(&self, session: &mut CheckSession) {
        if self.checked.endpoint.state.health.take_report() {
            let failure = CheckFailure::of(FailureKind::Passive);
            self.take(session, CheckResult::Failed(failure));
        }
    }

    /// Takes a result into account: flags, counters, events.
    fn take(&self, session: &mut CheckSession, result: CheckResult) -> HealthTransition {
        let Checked {
            cluster,
            config,
            endpoint,
            ..
        } = &self.checked;
        let health = &endpoint.state.health;
        if !health.get().is_checked() {
            // A new version of the cluster has no checks, and this task will be ended.
            return HealthTransition::Unchanged;
        }
        let was_awaited = health.get().is_awaited();
        let outcome = session.take(config, health, result);
        event::log(config, &cluster.name, endpoint, &outcome.events);
        if let Some(checks) = &cluster.checks {
            let metrics = &checks.metrics;
            match result {
                CheckResult::Passed { .. } => metrics.successes.inc(),
                CheckResult::Failed(failure) => {
                    metrics.failures.inc();
                    if failure.kind.is_of_network() {
                        metrics.network_failures.inc();
                    } else if failure.kind == FailureKind::Passive {
                        metrics.passive_failures.inc();
                    }
                }
            }
        }
        let passes = matches!(result, CheckResult::Passed { .. }) && !health.get().is_failed();
        let unejected = passes && cluster.uneject(endpoint);
        if outcome.transition == HealthTransition::Changed || unejected || was_awaited {
            self.state.changed.set(true);
            self.turns.changed.notify_one();
        }
        outcome.transition
    }

    /// Whether the cluster has ever had a connection.
    fn has_traffic(&self) -> bool {
        let metrics = &self.checked.cluster.metrics;
        metrics.connections.get() > 0 || metrics.tunnels.get() > 0
    }
}
