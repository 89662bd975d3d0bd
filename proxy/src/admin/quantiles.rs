//! Histograms as `/stats?format=json` shows them: Envoy's object of computed quantiles.

use prometheus::proto::{Histogram, MetricFamily};
use serde_json::{Value, json};

use super::stats::series;

/// The percentiles that Envoy computes.
const SUPPORTED: [f64; 10] = [0.0, 25.0, 50.0, 75.0, 90.0, 95.0, 99.0, 99.5, 99.9, 100.0];

/// `interval`, which is Envoy's since the last flush to a sink, is always null: there are no sinks.
pub(super) fn histograms(families: &[MetricFamily]) -> Value {
    let computed: Vec<Value> = families
        .iter()
        .flat_map(|family| family.get_metric().iter().map(move |m| (family.name(), m)))
        .map(|(name, metric)| {
            let histogram = metric.get_histogram();
            let values = SUPPORTED.map(
                |percent| json!({"interval": null, "cumulative": percentile(histogram, percent)}),
            );
            json!({"name": series(name, metric), "values": values})
        })
        .collect();
    json!({"supported_quantiles": SUPPORTED, "computed_quantiles": computed})
}

/// By linear interpolation within a bucket, of which the first begins at 0; what lies above the last
/// bucket counts as its bound. `None`: nothing was recorded.
fn percentile(histogram: &Histogram, percent: f64) -> Option<f64> {
    let recorded = histogram.get_sample_count();
    if recorded == 0 {
        return None;
    }
    let rank = recorded as f64 * percent / 100.0;
    let (mut lower, mut below) = (0.0, 0.0);
    for bucket in histogram.get_bucket() {
        let (upper, up_to) = (bucket.upper_bound(), bucket.cumulative_count() as f64);
        if !upper.is_finite() {
            break;
        }
        if up_to > below && rank <= up_to {
            return Some(lower + (upper - lower) * (rank - below) / (up_to - below));
        }
        (lower, below) = (upper, up_to);
    }
    Some(lower)
}

#[cfg(test)]
mod tests {
    use prometheus::core::Metric;
    use prometheus::{Histogram, HistogramOpts};

    use super::*;

    #[test]
    fn percentiles_are_interpolated() {
        let options = HistogramOpts::new("h", "Test.").buckets(vec![10.0, 20.0, 40.0]);
        let histogram = Histogram::with_opts(options).unwrap();
        let at = |percent| percentile(histogram.metric().get_histogram(), percent);
        assert_eq!(at(50.0), None);
        for value in [12.0, 14.0, 16.0, 18.0] {
            histogram.observe(value);
        }
        assert_eq!(at(0.0), Some(10.0));
        assert_eq!(at(25.0), Some(12.5));
        assert_eq!(at(100.0), Some(20.0));
        // Above the last bucket.
        (0..4).for_each(|_| histogram.observe(1000.0));
        assert_eq!(at(50.0), Some(20.0));
        assert_eq!(at(99.0), Some(40.0));
    }
}
