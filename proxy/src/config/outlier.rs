//! envoy.config.cluster.v3.OutlierDetection.

use std::time::Duration;

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
    pub success_rate: SuccessRate,
    pub failure_percentage: FailurePercentage,
    /// Failures to connect and time-outs count on their own instead of as 5xx.
    pub split_local: bool,
    pub interval: Duration,
    pub base_ejection: Duration,
    pub max_ejection: Duration,
    pub max_ejection_jitter: Duration,
    pub max_ejection_percent: u32,
    pub always_eject_one: bool,
    /// A successful active health check ends an ejection.
    pub uneject_on_success: bool,
}

/// An endpoint whose share of success is far below that of the others.
#[derive(Clone, Debug, PartialEq)]
pub struct SuccessRate {
    /// With fewer endpoints that have enough requests nothing is compared.
    pub minimum_hosts: u32,
    /// Requests within an interval that make a share worth comparing.
    pub request_volume: u32,
    /// Standard deviations below the mean.
    pub stdev_factor: f64,
    /// Chance that a detection ejects, by origin.
    pub enforcing: [u32; 2],
}

/// An endpoint whose share of failures is above a bound.
#[derive(Clone, Debug, PartialEq)]
pub struct FailurePercentage {
    pub threshold: u32,
    pub minimum_hosts: u32,
    pub request_volume: u32,
    /// Chance that a detection ejects, by origin.
    pub enforcing: [u32; 2],
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
            success_rate: SuccessRate {
                minimum_hosts: 5,
                request_volume: 100,
                stdev_factor: 1.9,
                enforcing: [100, 100],
            },
            failure_percentage: FailurePercentage {
                threshold: 85,
                minimum_hosts: 5,
                request_volume: 50,
                enforcing: [0, 0],
            },
            split_local: false,
            interval: Duration::from_secs(10),
            base_ejection: Duration::from_secs(30),
            max_ejection: Duration::from_secs(300),
            max_ejection_jitter: Duration::ZERO,
            max_ejection_percent: 10,
            always_eject_one: false,
            uneject_on_success: true,
        }
    }
}

impl OutlierConfig {
    /// Without jitter.
    pub fn longest_ejection(&self) -> Duration {
        self.max_ejection.max(self.base_ejection)
    }
}
