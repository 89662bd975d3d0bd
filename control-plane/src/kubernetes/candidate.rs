//! Who leads, decided by a Lease as client-go decides it. No I/O, no clock of its own.
//!
//! A candidate leads for [`RENEW_DEADLINE`] from before its last successful write of the Lease. Others
//! take the Lease over [`LEASE_DURATION`], which is longer, after they saw it change last, so that clocks
//! need to run at the same pace but not show the same time. Of two that write at once the API server
//! refuses one, by `resourceVersion`.

use std::time::Duration;

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use k8s_openapi::jiff::Timestamp;
use tokio::time::Instant;

/// How long others wait after the leader has renewed last.
pub const LEASE_DURATION: Duration = Duration::from_secs(15);
/// How long a leader that cannot renew goes on.
pub const RENEW_DEADLINE: Duration = Duration::from_secs(10);
/// Between two attempts.
pub const RETRY_PERIOD: Duration = Duration::from_secs(2);

const LEASE_SECONDS: i32 = 15;
/// No holder's word counts for longer, whatever it wrote.
const MAX_LEASE_SECONDS: i32 = 3600;

/// What a candidate does next.
#[derive(Clone, Debug, PartialEq)]
pub enum LeaseStep {
    Create(Lease),
    /// With the `resourceVersion` that was read.
    Replace(Lease),
    /// Another leads.
    Wait,
}

/// A replica that takes part in the election.
#[derive(Debug)]
pub struct Candidate {
    name: String,
    identity: String,
    /// What the Lease said when it was read last, and when it was first read so.
    observed: Option<(LeaseSpec, Instant)>,
    leads_until: Option<Instant>,
}

impl Candidate {
    /// `name`: the Lease's. `identity`: unique to this process.
    pub fn new(name: &str, identity: String) -> Self {
        Candidate {
            name: name.to_owned(),
            identity,
            observed: None,
            leads_until: None,
        }
    }

    pub fn identity(&self) -> &str {
        &self.identity
    }

    /// `None`: it does not lead at `now`.
    pub fn leads_until(&self, now: Instant) -> Option<Instant> {
        self.leads_until.filter(|until| *until > now)
    }

    /// What to do about the Lease as it is; `None`: there is none. `time` is what is written down.
    pub fn step(&mut self, found: Option<&Lease>, now: Instant, time: Timestamp) -> LeaseStep {
        let time = Some(MicroTime(time));
        let Some(lease) = found else {
            return LeaseStep::Create(Lease {
                metadata: ObjectMeta {
                    name: Some(self.name.clone()),
                    ..ObjectMeta::default()
                },
                spec: Some(LeaseSpec {
                    holder_identity: Some(self.identity.clone()),
                    lease_duration_seconds: Some(LEASE_SECONDS),
                    lease_transitions: Some(0),
                    acquire_time: time.clone(),
                    renew_time: time,
                    ..LeaseSpec::default()
                }),
            });
        };
        let spec = lease.spec.clone().unwrap_or_default();
        let since = match &self.observed {
            Some((known, since)) if *known == spec => *since,
            _ => {
                self.observed = Some((spec.clone(), now));
                now
            }
        };
        let ours = self.holds(&spec);
        let held = spec
            .holder_identity
            .as_ref()
            .is_some_and(|it| !it.is_empty());
        let mut spec = spec;
        if !ours {
            self.leads_until = None;
            if held && now.saturating_duration_since(since) < duration(&spec) {
                return LeaseStep::Wait;
            }
            spec.acquire_time = time.clone();
            spec.lease_transitions = Some(spec.lease_transitions.unwrap_or(0).saturating_add(1));
        }
        spec.holder_identity = Some(self.identity.clone());
        spec.lease_duration_seconds = Some(LEASE_SECONDS);
        spec.renew_time = time;
        LeaseStep::Replace(Lease {
            metadata: lease.metadata.clone(),
            spec: Some(spec),
        })
    }

    /// The API server has taken what [`Self::step`] gave. `sent`: before it was sent.
    pub fn written(&mut self, lease: &Lease, sent: Instant) {
        let spec = lease.spec.clone().unwrap_or_default();
        if self.holds(&spec) {
            self.leads_until = sent.checked_add(RENEW_DEADLINE);
        }
        self.observed = Some((spec, sent));
    }

    /// Leads no more; the Lease by which others need not wait. `None`: it is not ours.
    pub fn release(&mut self, found: &Lease, time: Timestamp) -> Option<Lease> {
        self.leads_until = None;
        let mut spec = found.spec.clone()?;
        if !self.holds(&spec) {
            return None;
        }
        spec.holder_identity = Some(String::new());
        spec.lease_duration_seconds = Some(1);
        spec.renew_time = Some(MicroTime(time));
        Some(Lease {
            metadata: found.metadata.clone(),
            spec: Some(spec),
        })
    }

    fn holds(&self, spec: &LeaseSpec) -> bool {
        spec.holder_identity.as_ref() == Some(&self.identity)
    }
}

fn duration(spec: &LeaseSpec) -> Duration {
    let seconds = spec.lease_duration_seconds.unwrap_or(LEASE_SECONDS);
    let seconds = seconds.clamp(0, MAX_LEASE_SECONDS);
    Duration::from_secs(u64::try_from(seconds).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The API server's part: one object, optimistic concurrency.
    #[derive(Default)]
    struct Server {
        lease: Option<Lease>,
        version: u64,
    }

    impl Server {
        fn write(&mut self, step: LeaseStep) -> Option<Lease> {
            let mut lease = match (step, &self.lease) {
                (LeaseStep::Create(lease), None) => lease,
                (LeaseStep::Replace(lease), Some(now))
                    if lease.metadata.resource_version == now.metadata.resource_version =>
                {
                    lease
                }
                _ => return None,
            };
            self.version += 1;
            lease.metadata.resource_version = Some(self.version.to_string());
            self.lease = Some(lease.clone());
            Some(lease)
        }
    }

    fn time() -> Timestamp {
        Timestamp::UNIX_EPOCH
    }

    /// Reads, decides and writes at `now`.
    fn attempt(candidate: &mut Candidate, server: &mut Server, now: Instant, tick: i64) -> bool {
        let stamp = Timestamp::from_second(tick).unwrap();
        let step = candidate.step(server.lease.as_ref(), now, stamp);
        match server.write(step) {
            Some(lease) => {
                candidate.written(&lease, now);
                true
            }
            None => false,
        }
    }

    fn candidate(identity: &str) -> Candidate {
        Candidate::new("anyam-control", identity.to_owned())
    }

    fn holder(server: &Server) -> String {
        let spec = server.lease.clone().unwrap().spec.unwrap();
        spec.holder_identity.unwrap()
    }

    #[test]
    fn the_lease_passes_on_when_its_holder_is_silent_and_not_before() {
        let (mut a, mut b, mut server) = (candidate("a"), candidate("b"), Server::default());
        let now = Instant::now();
        assert!(attempt(&mut a, &mut server, now, 1));
        assert!(a.leads_until(now).is_some());
        assert!(!attempt(&mut b, &mut server, now, 2));
        let renewed = now + RENEW_DEADLINE / 2;
        assert!(attempt(&mut a, &mut server, renewed, 3));
        assert!(!attempt(&mut b, &mut server, renewed, 4));
        let late = renewed + LEASE_DURATION;
        assert!(!attempt(&mut b, &mut server, late - RETRY_PERIOD, 5));
        assert!(a.leads_until(late).is_none(), "it stepped down long before");
        assert!(attempt(&mut b, &mut server, late, 6));
        assert_eq!(holder(&server), "b");
        let spec = server.lease.clone().unwrap().spec.unwrap();
        assert_eq!(spec.lease_transitions, Some(1));
        assert!(!attempt(&mut a, &mut server, late, 7));
    }

    #[test]
    fn a_lease_that_was_released_is_taken_at_once() {
        let (mut a, mut b, mut server) = (candidate("a"), candidate("b"), Server::default());
        let now = Instant::now();
        assert!(attempt(&mut a, &mut server, now, 1));
        assert!(!attempt(&mut b, &mut server, now, 2));
        let released = a.release(server.lease.as_ref().unwrap(), time()).unwrap();
        server.write(LeaseStep::Replace(released)).unwrap();
        assert!(a.leads_until(now).is_none());
        assert!(attempt(&mut b, &mut server, now, 3));
        let lease = server.lease.clone().unwrap();
        assert!(a.release(&lease, time()).is_none(), "it is another's");
    }

    #[test]
    fn who_was_displaced_by_hand_steps_down() {
        let (mut a, mut server) = (candidate("a"), Server::default());
        let now = Instant::now();
        assert!(attempt(&mut a, &mut server, now, 1));
        let mut lease = server.lease.clone().unwrap();
        lease.spec.as_mut().unwrap().holder_identity = Some("by hand".into());
        server.write(LeaseStep::Replace(lease)).unwrap();
        assert!(!attempt(&mut a, &mut server, now, 2));
        assert!(a.leads_until(now).is_none());
    }

    /// What happens next to a candidate, and how many milliseconds later.
    #[derive(Clone, Copy, Debug)]
    enum Happens {
        /// It reads, and decides.
        Reads,
        /// What it decided reaches the API server.
        Writes,
        /// It learns that this was taken; else it never does.
        Learns,
        Releases,
    }

    fn happens() -> impl Strategy<Value = (usize, Happens, u64)> {
        let what = prop_oneof![
            4 => Just(Happens::Reads),
            4 => Just(Happens::Writes),
            4 => Just(Happens::Learns),
            1 => Just(Happens::Releases),
        ];
        (
            0..3usize,
            what,
            prop_oneof![0..100u64, 0..3_000u64, 0..20_000u64],
        )
    }

    #[derive(Default)]
    struct InFlight {
        decided: Option<(LeaseStep, Instant)>,
        taken: Option<(Lease, Instant)>,
    }

    proptest! {
        /// However slow calls are, and whichever answers get lost.
        #[test]
        fn never_do_two_lead(events in proptest::collection::vec(happens(), 1..200)) {
            let mut server = Server::default();
            let mut all = ["a", "b", "c"].map(|it| (candidate(it), InFlight::default()));
            let mut now = Instant::now();
            for (tick, (who, what, later)) in events.into_iter().enumerate() {
                now += Duration::from_millis(later);
                let stamp = Timestamp::from_second(i64::try_from(tick).unwrap()).unwrap();
                let (candidate, flight) = &mut all[who];
                match what {
                    Happens::Reads => {
                        let step = candidate.step(server.lease.as_ref(), now, stamp);
                        flight.decided = Some((step, now));
                    }
                    Happens::Writes => if let Some((step, sent)) = flight.decided.take() {
                        flight.taken = server.write(step).map(|lease| (lease, sent));
                    }
                    Happens::Learns => if let Some((lease, sent)) = flight.taken.take() {
                        candidate.written(&lease, sent);
                    }
                    Happens::Releases => if let Some(lease) = server.lease.clone()
                        && let Some(released) = candidate.release(&lease, stamp)
                    {
                        *flight = InFlight::default();
                        server.write(LeaseStep::Replace(released));
                    }
                }
                let leading: Vec<_> = all
                    .iter()
                    .filter(|(candidate, _)| candidate.leads_until(now).is_some())
                    .map(|(candidate, _)| candidate.identity().to_owned())
                    .collect();
                prop_assert!(leading.len() <= 1, "{leading:?} after {now:?}");
            }
        }
    }
}
