//! What active health checks found of one endpoint: flags that the control thread sets and every
//! worker may read. The state machine that sets them is in [`crate::health`].

use std::sync::atomic::{AtomicU8, Ordering::Relaxed};

/// The flags of one endpoint. All unset: it is not checked.
#[derive(Debug, Default)]
pub struct ActiveHealth(AtomicU8);

/// A reading of [`ActiveHealth`].
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct HealthFlags(u8);

/// It is checked.
const CHECKED: u8 = 1;
/// No check has had a result yet.
const AWAITED: u8 = 1 << 1;
/// It fails its checks, or has not passed one yet.
const FAILED: u8 = 1 << 2;
const DEGRADED: u8 = 1 << 3;
/// Not counted among the cluster's endpoints before its first result.
const PENDING: u8 = 1 << 4;
/// The last check had no answer in time.
const TIMED_OUT: u8 = 1 << 5;
/// It has asked for no more requests: not counted among the cluster's endpoints.
const EXCLUDED: u8 = 1 << 6;
/// A worker saw it ask, and the control thread has not taken note yet.
const REPORTED: u8 = 1 << 7;

/// How an endpoint that is not checked yet begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FirstHealth {
    /// It served before its cluster had health checks, and goes on until its first result.
    Healthy,
    /// Unhealthy until it passes a check.
    Unhealthy,
    /// As `Unhealthy`, and until then not counted among the cluster's endpoints.
    Ignored,
}

impl ActiveHealth {
    pub fn get(&self) -> HealthFlags {
        HealthFlags(self.0.load(Relaxed))
    }

    /// From here on it is checked, whatever was known of it.
    pub fn begin(&self, first: FirstHealth) {
        let more = match first {
            FirstHealth::Healthy => 0,
            FirstHealth::Unhealthy => FAILED,
            FirstHealth::Ignored => FAILED | PENDING,
        };
        self.0.store(CHECKED | AWAITED | more, Relaxed);
    }

    /// It is not checked any more.
    pub fn end(&self) {
        if self.0.load(Relaxed) != 0 {
            self.0.store(0, Relaxed);
        }
    }

    /// A response said that there are to be no more requests. True: for the first time since its
    /// last check.
    pub fn report(&self) -> bool {
        // A load first, and one change only: the checks may end meanwhile.
        let report = |known: u8| {
            let is_new = known & CHECKED != 0 && known & REPORTED == 0;
            is_new.then_some(known | EXCLUDED | REPORTED)
        };
        self.0.fetch_update(Relaxed, Relaxed, report).is_ok()
    }

    /// Whether a worker has reported since this was last asked.
    pub fn take_report(&self) -> bool {
        self.0.load(Relaxed) & REPORTED != 0 && self.0.fetch_and(!REPORTED, Relaxed) & REPORTED != 0
    }

    /// The first result is here.
    pub fn set_known(&self) {
        self.clear(AWAITED | PENDING);
    }

    pub fn set_failed(&self) {
        self.set(FAILED);
    }

    /// It passes its checks again.
    pub fn set_passed(&self) {
        self.clear(FAILED | TIMED_OUT | EXCLUDED);
    }

    pub fn set_degraded(&self, degraded: bool) {
        self.change(DEGRADED, degraded);
    }

    pub fn set_timed_out(&self, timed_out: bool) {
        self.change(TIMED_OUT, timed_out);
    }

    pub fn set_excluded(&self) {
        self.set(EXCLUDED);
    }

    fn change(&self, flag: u8, on: bool) {
        match on {
            true => self.set(flag),
            false => self.clear(flag),
        }
    }

    fn set(&self, flags: u8) {
        self.0.fetch_or(flags, Relaxed);
    }

    fn clear(&self, flags: u8) {
        self.0.fetch_and(!flags, Relaxed);
    }
}

impl HealthFlags {
    fn has(self, flag: u8) -> bool {
        self.0 & flag != 0
    }

    pub fn is_checked(self) -> bool {
        self.has(CHECKED)
    }

    /// It is checked, and no check has had a result yet.
    pub fn is_awaited(self) -> bool {
        self.has(AWAITED)
    }

    /// `/failed_active_hc`.
    pub fn is_failed(self) -> bool {
        self.has(FAILED)
    }

    /// `/degraded_active_hc`.
    pub fn is_degraded(self) -> bool {
        self.has(DEGRADED)
    }

    /// `/pending_active_hc`.
    pub fn is_pending(self) -> bool {
        self.has(PENDING)
    }

    /// `/active_hc_timeout`.
    pub fn is_timed_out(self) -> bool {
        self.has(TIMED_OUT)
    }

    /// `/excluded_via_immediate_hc_fail`.
    pub fn is_excluded(self) -> bool {
        self.has(EXCLUDED)
    }

    /// A worker's report waits to be taken.
    pub fn is_reported(self) -> bool {
        self.has(REPORTED)
    }

    /// Whether shares of healthy endpoints are counted without it.
    pub fn is_uncounted(self) -> bool {
        self.has(PENDING | EXCLUDED)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_counts_once_and_only_of_what_is_checked() {
        let health = ActiveHealth::default();
        assert!(!health.report());
        health.begin(FirstHealth::Ignored);
        assert!(health.get().is_pending() && health.get().is_uncounted());
        health.set_known();
        health.set_passed();
        assert!(health.report() && !health.report());
        assert!(health.get().is_excluded());
        assert!(health.take_report() && !health.take_report());
        health.end();
        assert!(health.get() == HealthFlags(0));
    }
}
