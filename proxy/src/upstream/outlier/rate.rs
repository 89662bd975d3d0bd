//! Shares of success within an interval, and the outliers among them.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::{EjectionType, FailureOrigin};
use crate::config::outlier::OutlierConfig;
use crate::upstream::host::HostState;

/// Results of an endpoint since the last sweep, by origin.
#[derive(Debug, Default)]
pub struct Rates {
    counts: [AtomicU64; 2],
    /// What the last sweep saw.
    last: [Share; 2],
}

/// Another result.
const RESULT: u64 = 1 << 32;
/// It was a success. Both counts are one number, so that a sweep takes both at once.
const SUCCESS: u64 = RESULT | 1;

impl Rates {
    pub(super) fn count(&self, origin: FailureOrigin, success: bool) {
        let added = if success { SUCCESS } else { RESULT };
        origin.of(&self.counts).fetch_add(added, Relaxed);
    }

    /// The share of success in the last interval, in percent; `None`: too few results.
    pub fn last(&self, origin: FailureOrigin) -> Option<f64> {
        origin.of(&self.last).get()
    }

    /// Resets the counts and returns them; `None`: there were no results.
    fn take(&self, origin: FailureOrigin) -> Option<(f64, u64)> {
        let counts = origin.of(&self.counts).swap(0, Relaxed);
        let (volume, good) = (counts >> 32, counts & (RESULT - 1));
        (volume > 0).then(|| (good as f64 * 100.0 / volume as f64, volume))
    }
}

/// What success rates were compared with; percent.
#[derive(Debug, Default)]
pub struct Baseline {
    average: Share,
    threshold: Share,
}

impl Baseline {
    /// `None`: too little happened to compare.
    pub fn average(&self) -> Option<f64> {
        self.average.get()
    }

    /// Below it an endpoint is an outlier.
    pub fn threshold(&self) -> Option<f64> {
        self.threshold.get()
    }

    fn set(&self, values: Option<(f64, f64)>) {
        self.average.set(values.map(|(average, _)| average));
        self.threshold.set(values.map(|(_, threshold)| threshold));
    }
}

/// A number that is written now and then, or none.
#[derive(Debug)]
struct Share(AtomicU64);

impl Default for Share {
    fn default() -> Self {
        Self(AtomicU64::new(f64::NAN.to_bits()))
    }
}

impl Share {
    fn get(&self) -> Option<f64> {
        let value = f64::from_bits(self.0.load(Relaxed));
        (!value.is_nan()).then_some(value)
    }

    fn set(&self, value: Option<f64>) {
        self.0.store(value.unwrap_or(f64::NAN).to_bits(), Relaxed);
    }
}

/// What one endpoint did in the interval.
pub(super) struct Sample<'a> {
    pub(super) host: &'a HostState,
    /// `None`: it has no results, or is ejected.
    pub(super) result: Option<(f64, u64)>,
}

/// The results of the interval; resets the counts for the next one.
pub(super) fn collect<'a>(hosts: &[&'a HostState], origin: FailureOrigin) -> Vec<Sample<'a>> {
    let sample = |host: &&'a HostState| {
        let result = host.rates.take(origin);
        Sample {
            host,
            result: result.filter(|_| !host.is_ejected()),
        }
    };
    hosts.iter().map(sample).collect()
}

/// Outliers among the endpoints, in the order in which they are compared.
pub(super) fn outliers<'a>(
    config: &OutlierConfig,
    origin: FailureOrigin,
    samples: &[Sample<'a>],
    baseline: &Baseline,
) -> Vec<(EjectionType, &'a HostState)> {
    let (success, failure) = (&config.success_rate, &config.failure_percentage);
    let least = success.request_volume.min(failure.request_volume);
    for sample in samples {
        let known = sample.result.filter(|(_, volume)| *volume >= least.into());
        let last = origin.of(&sample.host.rates.last);
        last.set(known.map(|(share, _)| share));
    }
    let mut found = Vec::new();
    let comparable = with_volume(samples, success.request_volume, success.minimum_hosts);
    baseline.set(standard(&comparable, success.stdev_factor));
    if let Some(threshold) = baseline.threshold() {
        let below = comparable.iter().filter(|(share, _)| *share < threshold);
        found.extend(below.map(|(_, host)| (EjectionType::SuccessRate(origin), *host)));
    }
    let comparable = with_volume(samples, failure.request_volume, failure.minimum_hosts);
    let bound = f64::from(failure.threshold);
    let above = comparable
        .iter()
        .filter(|(share, _)| 100.0 - share >= bound);
    found.extend(above.map(|(_, host)| (EjectionType::FailurePercentage(origin), *host)));
    found
}

/// Those with enough results, if there are enough of them.
fn with_volume<'a>(samples: &[Sample<'a>], volume: u32, hosts: u32) -> Vec<(f64, &'a HostState)> {
    let enough: Vec<_> = samples
        .iter()
        .filter_map(|sample| {
            let (share, count) = sample.result?;
            (count >= volume.into()).then_some((share, sample.host))
        })
        .collect();
    match enough.len() >= hosts as usize {
        true => enough,
        false => Vec::new(),
    }
}

/// Mean, and the mean less so many standard deviations; `None` without endpoints.
fn standard(shares: &[(f64, &HostState)], factor: f64) -> Option<(f64, f64)> {
    if shares.is_empty() {
        return None;
    }
    let count = shares.len() as f64;
    let mean = shares.iter().map(|(share, _)| share).sum::<f64>() / count;
    let square = |(share, _): &(f64, &HostState)| (share - mean) * (share - mean);
    let variance = shares.iter().map(square).sum::<f64>() / count;
    Some((mean, mean - factor * variance.sqrt()))
}
