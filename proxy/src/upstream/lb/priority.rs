//! The health of one priority.

use crate::config::endpoint::HealthStatus;

/// Health of one priority. `healthy` and `degraded` in percent, overprovisioned.
pub(super) struct Tally {
    total: u64,
    usable: u64,
    pub healthy: u32,
    pub degraded: u32,
}

impl Tally {
    /// `uncounted`: how many of them the total is without.
    pub fn new(statuses: &[HealthStatus], uncounted: usize, overprovisioning: u32) -> Self {
        let count = |kind| statuses.iter().filter(|status| **status == kind).count() as u64;
        let total = statuses.len().saturating_sub(uncounted) as u64;
        let (healthy, degraded) = (count(HealthStatus::Healthy), count(HealthStatus::Degraded));
        let percent = |count: u64| {
            let share = count.saturating_mul(overprovisioning.into());
            let share = share.checked_div(total).unwrap_or(0);
            u32::try_from(share.min(100)).unwrap_or(100)
        };
        Self {
            total,
            usable: healthy.saturating_add(degraded),
            healthy: percent(healthy),
            degraded: percent(degraded),
        }
    }

    /// Percent that is healthy or degraded.
    pub fn share_available(&self) -> u64 {
        let share = self.usable.saturating_mul(100).checked_div(self.total);
        share.unwrap_or(0)
    }
}
