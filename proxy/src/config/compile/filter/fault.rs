//! Fault injection.

use std::sync::Arc;
use std::time::Duration;

use xds_proto::envoy::extensions::filters::common::fault::v3 as common;
use xds_proto::envoy::extensions::filters::http::fault::v3 as pb;

use super::percent;
use crate::config::compile::matcher::header;
use crate::config::compile::support::{
    At, CompileError, duration, each, ignored, required, u32_opt,
};
use crate::config::compile::values::object;
use crate::config::filter::{Abort, AbortStatus, FaultInjection, FaultPart, FilterConfig};

pub fn fault(at: At<'_>, m: &pb::HttpFault) -> Result<FilterConfig, CompileError> {
    let pb::HttpFault {
        delay,
        abort,
        upstream_cluster,
        headers,
        downstream_nodes,
        max_active_faults,
        response_rate_limit,
        delay_percent_runtime,
        abort_percent_runtime,
        delay_duration_runtime,
        abort_http_status_runtime,
        max_active_faults_runtime,
        response_rate_limit_percent_runtime,
        abort_grpc_status_runtime,
        disable_downstream_cluster_stats,
        filter_metadata,
    } = m;
    ignored!(
        "there is no runtime layer; what is configured holds",
        delay_percent_runtime,
        abort_percent_runtime,
        delay_duration_runtime,
        abort_http_status_runtime,
        max_active_faults_runtime,
        response_rate_limit_percent_runtime,
        abort_grpc_status_runtime
    );
    ignored!(
        "statistics are kept per edge; faults have a response flag",
        disable_downstream_cluster_stats
    );
    Ok(FilterConfig::Fault(Arc::new(FaultInjection {
        delay: match delay {
            Some(m) => Some(delay_of(at.field("delay"), m)?),
            None => None,
        },
        abort: match abort {
            Some(m) => Some(abort_of(at.field("abort"), m)?),
            None => None,
        },
        response_rate: match response_rate_limit {
            Some(m) => Some(rate_of(at.field("response_rate_limit"), m)?),
            None => None,
        },
        upstream_cluster: (!upstream_cluster.is_empty()).then(|| upstream_cluster.as_str().into()),
        headers: each(at, "headers", headers, header)?,
        downstream_nodes: downstream_nodes.iter().map(|n| n.as_str().into()).collect(),
        max_active: u32_opt(max_active_faults),
        metadata: match filter_metadata {
            Some(m) => object(at.field("filter_metadata"), m)?,
            None => Default::default(),
        },
        active: Arc::default(),
    })))
}

fn delay_of(at: At<'_>, m: &common::FaultDelay) -> Result<FaultPart<Duration>, CompileError> {
    use common::fault_delay::{FaultDelaySecifier as Kind, HeaderDelay};
    let common::FaultDelay {
        percentage,
        fault_delay_secifier,
    } = m;
    Ok(FaultPart {
        percent: percent(at.field("percentage"), percentage)?,
        fixed: match required!(at, fault_delay_secifier) {
            Kind::HeaderDelay(HeaderDelay {}) => None,
            Kind::FixedDelay(fixed) => {
                let at = at.field("fixed_delay");
                match duration(at, &Some(*fixed))? {
                    Some(Duration::ZERO) => return at.fail("must be above zero"),
                    fixed => fixed,
                }
            }
        },
    })
}

fn abort_of(at: At<'_>, m: &pb::FaultAbort) -> Result<Abort, CompileError> {
    use pb::fault_abort::{ErrorType, HeaderAbort};
    let pb::FaultAbort {
        percentage,
        response_body,
        error_type,
    } = m;
    Ok(Abort {
        percent: percent(at.field("percentage"), percentage)?,
        status: match required!(at, error_type) {
            ErrorType::HeaderAbort(HeaderAbort {}) => None,
            ErrorType::GrpcStatus(code) => Some(AbortStatus::Grpc(*code)),
            ErrorType::HttpStatus(code) => match u16::try_from(*code) {
                Ok(code @ 200..=599) => Some(AbortStatus::Http(code)),
                _ => return at.field("http_status").fail("is not between 200 and 599"),
            },
        },
        body: match response_body.as_str() {
            "" => "fault filter abort".into(),
            body => body.to_owned().into(),
        },
    })
}

fn rate_of(at: At<'_>, m: &common::FaultRateLimit) -> Result<FaultPart<u64>, CompileError> {
    use common::fault_rate_limit::{FixedLimit, HeaderLimit, LimitType};
    let common::FaultRateLimit {
        percentage,
        limit_type,
    } = m;
    Ok(FaultPart {
        percent: percent(at.field("percentage"), percentage)?,
        fixed: match required!(at, limit_type) {
            LimitType::HeaderLimit(HeaderLimit {}) => None,
            LimitType::FixedLimit(FixedLimit { limit_kbps: 0 }) => {
                let at = at.field("fixed_limit");
                return at.field("limit_kbps").fail("must be above zero");
            }
            LimitType::FixedLimit(FixedLimit { limit_kbps }) => Some(*limit_kbps),
        },
    })
}
