//! Which requests an access log takes.

use xds_proto::envoy::config::accesslog::v3 as log;
use xds_proto::envoy::config::core::v3 as core;

use super::access_log::MAX_DEPTH;
use super::matcher;
use super::support::{At, CompileError, each, ignored, known, required};
use crate::config::access_log::{Comparison, ComparisonOp, LogFilter};
use crate::metrics::flags::ResponseFlags;

pub fn filter(at: At<'_>, m: &log::AccessLogFilter, depth: u32) -> Result<LogFilter, CompileError> {
    use log::access_log_filter::FilterSpecifier as Spec;
    if depth > MAX_DEPTH {
        return at.fail("is nested too deep");
    }
    let log::AccessLogFilter { filter_specifier } = m;
    let inner = |at: At<'_>, m: &_| filter(at, m, depth + 1);
    match required!(at, filter_specifier) {
        Spec::StatusCodeFilter(m) => {
            let log::StatusCodeFilter { comparison: m } = m;
            let at = at.field("status_code_filter");
            Ok(LogFilter::Status(comparison(at, m.as_ref())?))
        }
        Spec::DurationFilter(m) => {
            let log::DurationFilter { comparison: m } = m;
            let at = at.field("duration_filter");
            Ok(LogFilter::Duration(comparison(at, m.as_ref())?))
        }
        Spec::HeaderFilter(m) => {
            let log::HeaderFilter { header } = m;
            let at = at.field("header_filter");
            let header = required!(at, header);
            let wanted = matcher::header(at.field("header"), header)?;
            Ok(LogFilter::Header(Box::new(wanted)))
        }
        Spec::GrpcStatusFilter(m) => {
            let log::GrpcStatusFilter { statuses, exclude } = m;
            let at = at.field("grpc_status_filter");
            let status = |at: At<'_>, status: &i32| {
                known::<log::grpc_status_filter::Status>(at, *status).map(|status| status as i32)
            };
            Ok(LogFilter::GrpcStatus {
                statuses: each(at, "statuses", statuses, status)?,
                exclude: *exclude,
            })
        }
        Spec::AndFilter(log::AndFilter { filters }) => Ok(LogFilter::And(each(
            at.field("and_filter"),
            "filters",
            filters,
            inner,
        )?)),
        Spec::OrFilter(log::OrFilter { filters }) => Ok(LogFilter::Or(each(
            at.field("or_filter"),
            "filters",
            filters,
            inner,
        )?)),
        Spec::ResponseFlagFilter(log::ResponseFlagFilter { flags }) => {
            let flag = |at: At<'_>, flag: &String| match ResponseFlags::parse(flag) {
                Some(_) => Ok(flag.as_str().into()),
                None => at.fail(format_args!("`{flag}` is not a response flag")),
            };
            let at = at.field("response_flag_filter");
            Ok(LogFilter::ResponseFlags(each(at, "flags", flags, flag)?))
        }
        Spec::NotHealthCheckFilter(log::NotHealthCheckFilter {}) => Ok(LogFilter::NotHealthCheck),
        _ => at.fail("this filter is not supported"),
    }
}

fn comparison(at: At<'_>, m: Option<&log::ComparisonFilter>) -> Result<Comparison, CompileError> {
    use log::comparison_filter::Op;
    let at = at.field("comparison");
    let Some(log::ComparisonFilter { op, value }) = m else {
        return at.fail("is required");
    };
    let core::RuntimeUInt32 {
        default_value,
        runtime_key,
    } = required!(at, value);
    ignored!("there is no runtime layer; the default holds", runtime_key);
    Ok(Comparison {
        op: match known(at.field("op"), *op)? {
            Op::Eq => ComparisonOp::Equal,
            Op::Ge => ComparisonOp::AtLeast,
            Op::Le => ComparisonOp::AtMost,
            Op::Ne => ComparisonOp::NotEqual,
        },
        value: *default_value,
    })
}
