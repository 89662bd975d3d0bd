//! Process drain: Serving → DrainingInbound → Draining → Closing, and the readiness reported
//! meanwhile; and the drain of listeners that were removed ([`RemovedListeners`]).
//!
//! `app` advances it on SIGTERM, the admin server on request; every worker watches the phase. A
//! signal drains inbound connections only: the app's own calls must work until the app has ended,
//! and closing an idle connection may fail a request of the app.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{Notify, watch};

use crate::config::Name;
use crate::config::filter::HealthSwitch;
use crate::config::listener::Direction;

/// The phase of the process's drain.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    #[default]
    Serving,
    /// New connections and requests are still accepted, but every connection of a listener that is
    /// not outbound is ended gracefully: `Connection: close`, GOAWAY, idle ones closed.
    DrainingInbound,
    /// Outbound connections are ended gracefully too.
    Draining,
    /// The drain time is over: the remaining connections are cut.
    Closing,
}

impl Phase {
    /// Whether connections of a listener of this direction are to end.
    pub fn drains(self, direction: Direction) -> bool {
        match self {
            Self::Serving => false,
            Self::DrainingInbound => direction != Direction::Outbound,
            Self::Draining | Self::Closing => true,
        }
    }
}

/// Shared by admin, signals and workers.
pub struct Drain {
    phase: watch::Sender<Phase>,
    health: Arc<HealthSwitch>,
    quit: Notify,
}

impl Default for Drain {
    fn default() -> Self {
        Drain {
            phase: watch::channel(Phase::Serving).0,
            health: Arc::default(),
            quit: Notify::new(),
        }
    }
}

impl Drain {
    pub fn subscribe(&self) -> watch::Receiver<Phase> {
        self.phase.subscribe()
    }

    pub fn phase(&self) -> Phase {
        *self.phase.borrow()
    }

    /// Starts the drain of all but outbound connections.
    pub fn begin_inbound(&self) {
        self.advance(Phase::DrainingInbound);
    }

    /// Starts the drain of all connections.
    pub fn begin(&self) {
        self.advance(Phase::Draining);
    }

    /// Ends the drain: open connections are cut.
    pub fn close(&self) {
        self.advance(Phase::Closing);
    }

    /// Phases only go forward.
    fn advance(&self, next: Phase) {
        self.phase.send_if_modified(|phase| {
            let later = next > *phase;
            *phase = next.max(*phase);
            later
        });
    }

    /// What `/healthcheck/fail` and `/healthcheck/ok` set.
    pub fn health(&self) -> &Arc<HealthSwitch> {
        &self.health
    }

    /// `/healthcheck/fail` and `/healthcheck/ok`: what readiness, and the health check filter, say
    /// while traffic still flows.
    pub fn set_failed(&self, failed: bool) {
        self.health.set_failed(failed);
    }

    /// Whether readiness reports healthy.
    pub fn is_healthy(&self) -> bool {
        self.phase() == Phase::Serving && !self.health.is_failed()
    }

    /// `/quitquitquit`.
    pub fn quit(&self) {
        self.quit.notify_one();
    }

    pub async fn quit_asked(&self) {
        self.quit.notified().await;
    }
}

/// Listeners that were removed, and when their drain is over; `None`: beyond the clock's range. A
/// policy for a listener that is gone cannot reach its connections, so they are closed then. One
/// that is configured again is not among them: its connections are its own again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RemovedListeners(HashMap<Name, Option<Instant>>);

impl RemovedListeners {
    /// As it is once the listeners `gone` were removed, and those that `is_served` accepts are served;
    /// what is over already is left out.
    pub fn after<'a>(
        &'a self,
        gone: impl Iterator<Item = &'a Name>,
        is_served: impl Fn(&Name) -> bool,
        now: Instant,
        drain_time: Duration,
    ) -> Self {
        let until = now.checked_add(drain_time);
        let draining = self.0.iter().map(|(name, until)| (name, *until));
        let all = draining.chain(gone.map(|name| (name, until)));
        let left =
            all.filter(|(name, until)| !is_served(name) && until.is_none_or(|until| until > now));
        Self(left.map(|(name, until)| (name.clone(), until)).collect())
    }

    /// When the listener's drain is over; the outer `None`: it is not draining.
    pub fn until(&self, name: &Name) -> Option<Option<Instant>> {
        self.0.get(name).copied()
    }

    /// The next end of a drain after `now`.
    pub fn next_end(&self, now: Instant) -> Option<Instant> {
        let ends = self.0.values().flatten().copied();
        ends.filter(|end| *end > now).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn removed_listeners_drain_until_they_are_back_or_the_time_is_over() {
        let (start, time) = (Instant::now(), Duration::from_secs(10));
        let (a, b) = (Name::from("a"), Name::from("b"));
        let none = RemovedListeners::default();
        let later = start + Duration::from_secs(4);
        let first = none.after([&a].into_iter(), |name| *name == b, start, time);
        let second = first.after([&b].into_iter(), |_| false, later, time);
        assert_eq!(second.until(&a), Some(Some(start + time)));
        assert_eq!(second.until(&b), Some(Some(later + time)));
        assert_eq!(second.next_end(start), Some(start + time));
        assert_eq!(second.next_end(start + time), Some(later + time));
        let back = second.after([].into_iter(), |name| *name == a, later, time);
        assert_eq!(back.until(&a), None);
        let third = second.after([].into_iter(), |_| false, start + time, time);
        assert_eq!(third.until(&a), None);
        assert!(third.until(&b).is_some());
        let endless = none.after([&a, &b].into_iter(), |_| false, start, Duration::MAX);
        assert_eq!(endless.until(&a), Some(None));
    }

    #[test]
    fn phases_go_forward_only() {
        let drain = Drain::default();
        assert!(drain.is_healthy());
        drain.set_failed(true);
        assert!(!drain.is_healthy());
        drain.set_failed(false);
        drain.begin_inbound();
        assert!(!drain.is_healthy());
        drain.close();
        drain.begin();
        drain.begin_inbound();
        assert_eq!(drain.phase(), Phase::Closing);
        assert!(!drain.is_healthy());
    }

    #[test]
    fn a_phase_drains_what_those_before_it_do() {
        use Direction::{Inbound, Outbound, Unspecified};
        let drained = |phase: Phase| [Inbound, Unspecified, Outbound].map(|way| phase.drains(way));
        assert_eq!(drained(Phase::Serving), [false; 3]);
        assert_eq!(drained(Phase::DrainingInbound), [true, true, false]);
        assert_eq!(drained(Phase::Draining), [true; 3]);
        assert_eq!(drained(Phase::Closing), [true; 3]);
    }
}
