//! Writes metric families as OpenMetrics 1.0, without the `# EOF` at the end.
//! <https://prometheus.io/docs/specs/om/open_metrics_spec/>

use std::fmt::Write;

use prometheus::proto::{LabelPair, Metric, MetricFamily, MetricType};

/// The content type of the format.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Writes the values of `families`: only counters, gauges and histograms occur.
pub fn open_metrics(families: &[MetricFamily]) -> String {
    let mut out = String::with_capacity(16 << 10);
    for family in families {
        let kind = family.get_field_type();
        // The name of a counter's family lacks the suffix that its samples must have.
        let name = match kind {
            MetricType::COUNTER => family
                .name()
                .strip_suffix("_total")
                .unwrap_or(family.name()),
            _ => family.name(),
        };
        let kind_name = match kind {
            MetricType::COUNTER => "counter",
            MetricType::GAUGE => "gauge",
            MetricType::HISTOGRAM => "histogram",
            MetricType::SUMMARY | MetricType::UNTYPED => "unknown",
        };
        // Writing to a String cannot fail.
        let _ = writeln!(out, "# TYPE {name} {kind_name}");
        let _ = writeln!(out, "# HELP {name} {}", escaped(family.help()));
        for metric in family.get_metric() {
            sample(&mut out, name, kind, metric);
        }
    }
    out
}

fn sample(out: &mut String, name: &str, kind: MetricType, metric: &Metric) {
    let labels = metric.get_label();
    match kind {
        MetricType::COUNTER => {
            let value = metric.get_counter().get_value();
            line(out, &format!("{name}_total"), labels, None, value);
        }
        MetricType::GAUGE => line(out, name, labels, None, metric.get_gauge().get_value()),
        MetricType::SUMMARY | MetricType::UNTYPED => {}
        MetricType::HISTOGRAM => {
            let histogram = metric.get_histogram();
            let bucket = format!("{name}_bucket");
            let count = histogram.get_sample_count() as f64;
            for held in histogram
                .get_bucket()
                .iter()
                .filter(|b| b.upper_bound().is_finite())
            {
                let bound = format!("{:?}", held.upper_bound());
                line(
                    out,
                    &bucket,
                    labels,
                    Some(&bound),
                    held.cumulative_count() as f64,
                );
            }
            line(out, &bucket, labels, Some("+Inf"), count);
            line(
                out,
                &format!("{name}_sum"),
                labels,
                None,
                histogram.get_sample_sum(),
            );
            line(out, &format!("{name}_count"), labels, None, count);
        }
    }
}

fn line(out: &mut String, name: &str, labels: &[LabelPair], bound: Option<&str>, value: f64) {
    out.push_str(name);
    let labels = labels
        .iter()
        .map(|label| (label.name(), escaped(label.value())));
    let bound = bound.map(|bound| ("le", bound.to_owned()));
    let mut open = false;
    for (name, value) in labels.chain(bound) {
        let before = if open { ',' } else { '{' };
        let _ = write!(out, "{before}{name}=\"{value}\"");
        open = true;
    }
    if open {
        out.push('}');
    }
    let _ = writeln!(out, " {value}");
}

fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\")
        .replace('\n', "\\n")
        .replace('"', "\\\"")
}

#[cfg(test)]
mod tests {
    use super::*;
    use prometheus::{Histogram, HistogramOpts, IntCounterVec, IntGauge, Opts, Registry};

    #[test]
    fn families_are_written_as_the_specification_has_them() {
        let registry = Registry::new();
        let counter = IntCounterVec::new(Opts::new("a_total", "Of \"a\"."), &["who"]).unwrap();
        counter.with_label_values(&["x\\\"\ny"]).inc_by(3);
        let gauge = IntGauge::new("b", "B.").unwrap();
        gauge.set(-1);
        let options = HistogramOpts::new("c", "C.").buckets(vec![0.5, 10.0]);
        let histogram = Histogram::with_opts(options).unwrap();
        histogram.observe(0.25);
        histogram.observe(99.0);
        registry.register(Box::new(counter)).unwrap();
        registry.register(Box::new(gauge)).unwrap();
        registry.register(Box::new(histogram)).unwrap();
        let expected = r#"# TYPE a counter
# HELP a Of \"a\".
a_total{who="x\\\"\ny"} 3
# TYPE b gauge
# HELP b B.
b -1
# TYPE c histogram
# HELP c C.
c_bucket{le="0.5"} 1
c_bucket{le="10.0"} 1
c_bucket{le="+Inf"} 2
c_sum 99.25
c_count 2
"#;
        assert_eq!(open_metrics(&registry.gather()), expected);
    }
}
