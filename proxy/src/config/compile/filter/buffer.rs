//! The buffer filter.

use xds_proto::envoy::extensions::filters::http::buffer::v3 as pb;

use crate::config::compile::support::{At, CompileError, required};
use crate::config::filter::{FilterConfig, FilterOverride};

pub fn filter(at: At<'_>, m: &pb::Buffer) -> Result<FilterConfig, CompileError> {
    let pb::Buffer { max_request_bytes } = m;
    let most = required!(at, max_request_bytes).value;
    match usize::try_from(most) {
        Ok(most @ 1..) => Ok(FilterConfig::Buffer(most)),
        _ => at.field("max_request_bytes").fail("must be above zero"),
    }
}

pub fn per_route(at: At<'_>, m: &pb::BufferPerRoute) -> Result<FilterOverride, CompileError> {
    use pb::buffer_per_route::Override;
    let pb::BufferPerRoute { r#override } = m;
    match required!(at, r#override) {
        Override::Disabled(true) => Ok(FilterOverride::Disabled),
        Override::Disabled(false) => at.field("disabled").fail("must be true"),
        Override::Buffer(m) => filter(at.field("buffer"), m).map(FilterOverride::Config),
    }
}
