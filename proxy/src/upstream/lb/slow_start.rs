//! Slow start: the share of its weight that an endpoint has while it is new. Source: Envoy's
//! documentation of slow start mode.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::config::balancing::SlowStart;
use crate::config::endpoint::HealthStatus;
use crate::upstream::endpoint::Endpoint;

/// Shares are reckoned in units of this.
const UNITS: f64 = 1000.0;

/// Slow start at one moment.
#[derive(Clone, Copy)]
pub(super) struct Ramp {
    pub settings: SlowStart,
    pub now: Instant,
}

impl Ramp {
    /// The share of its weight that an endpoint has, of one.
    pub fn share(&self, endpoint: &Endpoint) -> f64 {
        let Some(elapsed) = self.elapsed(endpoint) else {
            return 1.0;
        };
        let time = elapsed.max(Duration::from_millis(1));
        let time = time.as_secs_f64() / self.settings.window.as_secs_f64();
        let share = match self.settings.aggression {
            1.0 => time,
            aggression => time.powf(1.0 / aggression),
        };
        share.max(self.settings.min_weight).min(1.0)
    }

    /// Weights by these shares; `None`: no endpoint is new.
    pub fn weights(&self, endpoints: &[Arc<Endpoint>]) -> Option<Vec<u64>> {
        if !endpoints.iter().any(|e| self.elapsed(e).is_some()) {
            return None;
        }
        let weight = |endpoint: &Arc<Endpoint>| {
            let weight = f64::from(endpoint.weight) * self.share(endpoint) * UNITS;
            // As a u64 it saturates.
            (weight.round() as u64).max(1)
        };
        Some(endpoints.iter().map(weight).collect())
    }

    /// When the last of them is no longer new; `None`: none is.
    pub fn end<'e>(&self, endpoints: impl Iterator<Item = &'e Arc<Endpoint>>) -> Option<Instant> {
        let left = endpoints
            .filter_map(|endpoint| self.settings.window.checked_sub(self.elapsed(endpoint)?));
        self.now.checked_add(left.max()?)
    }

    /// For how long a new endpoint has been healthy; `None`: it is not new, or not healthy.
    fn elapsed(&self, endpoint: &Endpoint) -> Option<Duration> {
        if endpoint.health != HealthStatus::Healthy {
            return None;
        }
        let since = endpoint.state.healthy_since()?;
        let elapsed = self.now.saturating_duration_since(since);
        (elapsed < self.settings.window).then_some(elapsed)
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use proptest::prelude::*;

    use super::*;

    const WINDOW: Duration = Duration::from_secs(60);

    fn settings(aggression: f64, min_weight: f64) -> SlowStart {
        SlowStart {
            window: WINDOW,
            aggression,
            min_weight,
        }
    }

    fn endpoint(since: Option<Instant>, health: HealthStatus) -> Arc<Endpoint> {
        let endpoint = Endpoint {
            weight: 4,
            health,
            ..Endpoint::at(SocketAddr::from(([10, 0, 0, 1], 80)))
        };
        if let Some(since) = since {
            endpoint.state.begin_slow_start(since);
        }
        Arc::new(endpoint)
    }

    #[test]
    fn a_new_endpoints_share_grows_to_the_whole() {
        let began = Instant::now();
        let new = endpoint(Some(began), HealthStatus::Healthy);
        let share = |aggression, seconds| {
            let now = began + Duration::from_secs(seconds);
            let settings = settings(aggression, 0.1);
            Ramp { settings, now }.share(&new)
        };
        for (aggression, seconds, expected) in [
            (1.0, 0, 0.1),
            (1.0, 3, 0.1),
            (1.0, 15, 0.25),
            (1.0, 30, 0.5),
            (1.0, 59, 59.0 / 60.0),
            (1.0, 60, 1.0),
            (1.0, 600, 1.0),
            // Envoy: time to the power of 1 / aggression.
            (2.0, 15, 0.5),
            (0.5, 30, 0.25),
        ] {
            let share = share(aggression, seconds);
            assert!(
                (share - expected).abs() < 1e-9,
                "{aggression}, {seconds} s: {share}"
            );
        }
    }

    #[test]
    fn only_healthy_ones_are_new() {
        let now = Instant::now();
        let ramp = Ramp {
            settings: settings(1.0, 0.1),
            now,
        };
        let old = now.checked_sub(WINDOW);
        let none = [
            endpoint(None, HealthStatus::Healthy),
            endpoint(old, HealthStatus::Healthy),
            endpoint(Some(now), HealthStatus::Degraded),
        ];
        assert_eq!(ramp.weights(&none), None);
        assert_eq!(ramp.end(none.iter()), None);
        let [a, b, _] = none;
        let half = now.checked_sub(WINDOW / 2);
        let some = [a, b, endpoint(half, HealthStatus::Healthy)];
        assert_eq!(ramp.weights(&some), Some(vec![4000, 4000, 2000]));
        assert_eq!(ramp.end(some.iter()), Some(now + WINDOW / 2));
    }

    proptest! {
        #[test]
        fn shares_never_fall_and_never_leave_their_bounds(
            aggression in 0.1f64..10.0, least in 0.0f64..=1.0, times in prop::collection::vec(0u64..70_000, 2..20),
        ) {
            let began = Instant::now();
            let new = endpoint(Some(began), HealthStatus::Healthy);
            let mut times = times;
            times.sort_unstable();
            let mut before = 0.0;
            for time in times {
                let now = began + Duration::from_millis(time);
                let share = Ramp { settings: settings(aggression, least), now }.share(&new);
                prop_assert!((least.min(1.0)..=1.0).contains(&share) && share >= before);
                before = share;
            }
        }
    }
}
