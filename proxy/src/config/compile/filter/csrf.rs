//! The filter against cross-site request forgery.

use std::sync::Arc;

use xds_proto::envoy::extensions::filters::http::csrf::v3 as pb;

use super::{FilterScope, runtime_percent};
use crate::config::compile::matcher::string;
use crate::config::compile::support::{At, CompileError, each, required};
use crate::config::filter::{Csrf, CsrfPolicy, FilterConfig, Percent};

pub fn filter(
    at: At<'_>,
    m: &pb::CsrfPolicy,
    scope: FilterScope<'_>,
) -> Result<FilterConfig, CompileError> {
    Ok(FilterConfig::Csrf(Csrf {
        policy: policy(at, m)?,
        metrics: Arc::new(scope.csrf.handles(scope.stat_prefix)),
    }))
}

pub fn per_route(at: At<'_>, m: &pb::CsrfPolicy) -> Result<FilterConfig, CompileError> {
    policy(at, m).map(FilterConfig::CsrfOfRoute)
}

fn policy(at: At<'_>, m: &pb::CsrfPolicy) -> Result<Arc<CsrfPolicy>, CompileError> {
    let pb::CsrfPolicy {
        filter_enabled,
        shadow_enabled,
        additional_origins,
    } = m;
    let enabled = required!(at, filter_enabled);
    Ok(Arc::new(CsrfPolicy {
        enabled: runtime_percent(at.field("filter_enabled"), enabled)?,
        shadow: match shadow_enabled {
            Some(share) => runtime_percent(at.field("shadow_enabled"), share)?,
            None => Percent::ZERO,
        },
        additional_origins: each(at, "additional_origins", additional_origins, string)?,
    }))
}
