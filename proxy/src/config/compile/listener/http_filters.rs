//! HTTP filters before the router, and the router itself.

use xds_proto::envoy::extensions::filters::http::router::v3::Router;
use xds_proto::envoy::extensions::filters::network::http_connection_manager::v3 as pb;

use crate::config::compile::filter::{self, FilterScope};
use crate::config::compile::support::{
    At, CompileError, decode, ignored, required, type_name, unknown_type, unsupported,
};
use crate::config::filter::HttpFilter;

/// The filters before the router, which has to be the last.
pub fn filters(
    at: At<'_>,
    filters: &[pb::HttpFilter],
    scope: FilterScope<'_>,
) -> Result<Vec<HttpFilter>, CompileError> {
    let mut compiled = Vec::new();
    let mut router = false;
    for (index, m) in filters.iter().enumerate() {
        let at = at.index("http_filters", index);
        if router {
            return at.fail("stands after the router, which has to be the last filter");
        }
        let pb::HttpFilter {
            name,
            is_optional,
            disabled,
            config_type,
        } = m;
        let any = match required!(at, config_type) {
            pb::http_filter::ConfigType::TypedConfig(any) => any,
            pb::http_filter::ConfigType::ConfigDiscovery(_) => {
                return at
                    .field("config_discovery")
                    .fail("is not supported by this proxy");
            }
        };
        let inner = at.field("typed_config");
        if type_name(any) == "envoy.extensions.filters.http.router.v3.Router" {
            if *disabled {
                return at
                    .field("disabled")
                    .fail("the router cannot be switched off");
            }
            check_router(inner, &decode(inner, any)?)?;
            router = true;
            continue;
        }
        match filter::config(inner, any, scope)? {
            Some(config) => compiled.push(HttpFilter {
                name: scope.names.intern(name),
                disabled: *disabled,
                config,
            }),
            None if *is_optional => scope.counts.skip_optional(at, any),
            None => return unknown_type(at, any),
        }
    }
    if !router {
        return at.field("http_filters").fail("has no router at its end");
    }
    Ok(compiled)
}

fn check_router(at: At<'_>, m: &Router) -> Result<(), CompileError> {
    let Router {
        dynamic_stats,
        start_child_span,
        upstream_log,
        upstream_log_options,
        suppress_envoy_headers,
        strict_check_headers,
        respect_expected_rq_timeout,
        suppress_grpc_request_failure_code_stats,
        upstream_http_filters,
        reject_connect_request_early_data,
    } = m;
    unsupported!(
        at,
        upstream_log,
        upstream_log_options,
        strict_check_headers,
        respect_expected_rq_timeout,
        upstream_http_filters,
    );
    ignored!(
        "statistics are kept by edge",
        dynamic_stats,
        suppress_grpc_request_failure_code_stats
    );
    ignored!("spans are not made yet", start_child_span);
    ignored!(
        "bytes after CONNECT never go out before its answer",
        reject_connect_request_early_data
    );
    ignored!(
        "x-envoy-* response headers are only sent when asked for",
        suppress_envoy_headers
    );
    Ok(())
}
