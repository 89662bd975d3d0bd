//! The health check filter: answers health checks of this proxy, or marks them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use crate::config::Name;
use crate::matcher::HeaderMatch;

/// envoy.extensions.filters.http.health_check.v3.HealthCheck.
pub struct HealthCheckFilter {
    /// Requests that satisfy all of these are health checks.
    pub headers: Vec<HeaderMatch>,
    pub mode: HealthCheckMode,
    /// `/healthcheck/fail`.
    pub switch: Arc<HealthSwitch>,
    /// The name of the node's cluster, which answers to health checks carry.
    pub local_cluster: Arc<str>,
}

pub enum HealthCheckMode {
    /// The upstream answers; its answers may be kept for a while.
    PassThrough(Option<KeptHealth>),
    /// This proxy answers: by the clusters of which so many percent have to be healthy or degraded.
    Answer(Vec<(Name, u8)>),
}

/// Whether health checks of this proxy are to fail.
#[derive(Debug, Default)]
pub struct HealthSwitch(AtomicBool);

impl HealthSwitch {
    pub fn set_failed(&self, failed: bool) {
        self.0.store(failed, Relaxed);
    }

    pub fn is_failed(&self) -> bool {
        self.0.load(Relaxed)
    }
}

/// The upstream's last answer to a health check.
pub struct KeptHealth {
    time: Duration,
    since: Instant,
    /// Milliseconds since `since` until which it is kept, whether the upstream was degraded, and its
    /// status.
    answer: AtomicU64,
}

const STATUS_BITS: u32 = 10;
const DEGRADED: u64 = 1 << STATUS_BITS;
const TIME_BITS: u32 = STATUS_BITS + 1;

impl KeptHealth {
    pub fn new(time: Duration, now: Instant) -> Self {
        Self {
            time,
            since: now,
            answer: AtomicU64::new(0),
        }
    }

    /// The status of the last answer, and whether it was of a degraded upstream; `None`: there is
    /// none, or it is too old.
    pub fn get(&self, now: Instant) -> Option<(u16, bool)> {
        let answer = self.answer.load(Relaxed);
        let until = answer >> TIME_BITS;
        let status = u16::try_from(answer & (DEGRADED - 1)).ok()?;
        (self.millis(now) < until).then_some((status, answer & DEGRADED != 0))
    }

    pub fn set(&self, status: u16, degraded: bool, now: Instant) {
        let time = u64::try_from(self.time.as_millis()).unwrap_or(u64::MAX);
        let until = self.millis(now).saturating_add(time);
        let until = until.min(u64::MAX >> TIME_BITS) << TIME_BITS;
        let degraded = if degraded { DEGRADED } else { 0 };
        let status = u64::from(status) & (DEGRADED - 1);
        self.answer.store(until | degraded | status, Relaxed);
    }

    fn millis(&self, now: Instant) -> u64 {
        let passed = now.saturating_duration_since(self.since).as_millis();
        u64::try_from(passed).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_kept_for_its_time() {
        let now = Instant::now();
        let kept = KeptHealth::new(Duration::from_millis(500), now);
        let after = |millis| now + Duration::from_millis(millis);
        assert_eq!(kept.get(now), None);
        kept.set(503, true, after(1000));
        assert_eq!(kept.get(after(1499)), Some((503, true)));
        assert_eq!(kept.get(after(1500)), None);
        kept.set(200, false, after(2000));
        assert_eq!(kept.get(after(2001)), Some((200, false)));
        let forever = KeptHealth::new(Duration::MAX, now);
        forever.set(200, false, now);
        assert_eq!(forever.get(after(1 << 40)), Some((200, false)));
    }
}
