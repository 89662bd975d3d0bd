//! Which records an access log takes.

use crate::config::access_log::LogFilter;
use crate::matcher::{HeaderMatcher, Quantifier};
use crate::message::grpc;
use crate::telemetry::record::Record;

/// Whether a filter takes a record.
pub fn passes(filter: &LogFilter, record: &Record<'_>) -> bool {
    match filter {
        LogFilter::Status(comparison) => comparison.holds(record.code.into()),
        LogFilter::Duration(comparison) => comparison.holds(record.duration.as_millis()),
        LogFilter::NotHealthCheck => !record.is_health_check,
        LogFilter::Header(wanted) => {
            let mut values = HeaderMatcher::new(wanted);
            if let Some(headers) = record.request {
                headers.values(&wanted.name, &mut |value| values.value(value));
            }
            values.matches(Quantifier::Any)
        }
        // As Envoy takes it of an answer that has none.
        LogFilter::GrpcStatus { statuses, exclude } => {
            let of_http = i32::from(grpc::status_of_http(record.code));
            statuses.contains(&record.grpc_status.unwrap_or(of_http)) != *exclude
        }
        LogFilter::ResponseFlags(flags) if flags.is_empty() => !record.flags.is_empty(),
        LogFilter::ResponseFlags(flags) => record
            .flags
            .short_names()
            .any(|flag| flags.iter().any(|wanted| **wanted == *flag)),
        LogFilter::And(all) => all.iter().all(|filter| passes(filter, record)),
        LogFilter::Or(any) => any.iter().any(|filter| passes(filter, record)),
    }
}
