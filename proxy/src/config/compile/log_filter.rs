//! Which requests an access log takes.

use xds_proto::envoy::config::accesslog::v3 as log;
use xds_proto::envoy::config::core::v3 as core;

use super::access_log::MAX_DEPTH;
use super::support::{At, CompileError, each, ignored, known, required};
use crate::config::access_log::LogFilter;
use crate::metrics::flags::ResponseFlags;

pub fn filter(at: At<'_>, m: &log::AccessLogFilter, depth: u32) -> Result<LogFilter, CompileError> {
    use log::access_log_filter::FilterSpecifier as Spec;
    if depth > MAX_DEPTH {
        return at.fail("is nested too deep");
    }
    let log::AccessLogFilter { filter_specifier } = m;
    let inner = |at: At<'_>, m: &_| filter(at, m, depth + 1);
    match required!(at, filter_specifier) {
        Spec::StatusCodeFilter(m) => status_filter(at.field("status_code_filter"), m),
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
        _ => at.fail(
            "only status_code, response_flag, not_health_check, and, or filters are supported",
        ),
    }
}

fn status_filter(at: At<'_>, m: &log::StatusCodeFilter) -> Result<LogFilter, CompileError> {
    use log::comparison_filter::Op;
    let log::StatusCodeFilter { comparison } = m;
    let log::ComparisonFilter { op, value } = required!(at, comparison);
    let core::RuntimeUInt32 {
        default_value,
        runtime_key,
    } = required!(at, value);
    ignored!("there is no runtime layer; the default holds", runtime_key);
    let value = u16::try_from(*default_value)
        .or_else(|_| at.field("value").fail("is not a status code"))?;
    match known(at.field("op"), *op)? {
        Op::Ge => Ok(LogFilter::StatusAtLeast(value)),
        Op::Eq | Op::Le | Op::Ne => at.field("op").fail("only GE is supported"),
    }
}
