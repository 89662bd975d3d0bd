//! Cross-origin resource sharing.

use std::sync::Arc;

use xds_proto::envoy::extensions::filters::http::cors::v3 as pb;

use super::runtime_percent;
use crate::config::compile::matcher::string;
use crate::config::compile::support::{At, CompileError, each, ignored};
use crate::config::filter::{CorsPolicy, FilterConfig, Percent};

pub fn filter(m: &pb::Cors) -> FilterConfig {
    let pb::Cors {} = m;
    FilterConfig::Cors(None)
}

pub fn policy(at: At<'_>, m: &pb::CorsPolicy) -> Result<FilterConfig, CompileError> {
    let pb::CorsPolicy {
        allow_origin_string_match,
        allow_methods,
        allow_headers,
        expose_headers,
        max_age,
        allow_credentials,
        filter_enabled,
        shadow_enabled,
        allow_private_network_access,
        forward_not_matching_preflights,
    } = m;
    ignored!(
        "a shadow policy decides nothing; Envoy only counts what it would have done",
        shadow_enabled
    );
    let value = |field: &'static str, text: &str| -> Result<Box<str>, CompileError> {
        if text.bytes().any(|byte| byte < b' ' || byte == 0x7f) {
            return at
                .field(field)
                .fail("has characters that no header may have");
        }
        Ok(text.into())
    };
    let flag =
        |flag: &Option<xds_proto::google::protobuf::BoolValue>| flag.as_ref().map(|f| f.value);
    let policy = CorsPolicy {
        origins: each(
            at,
            "allow_origin_string_match",
            allow_origin_string_match,
            string,
        )?,
        methods: value("allow_methods", allow_methods)?,
        headers: value("allow_headers", allow_headers)?,
        expose: value("expose_headers", expose_headers)?,
        max_age: value("max_age", max_age)?,
        credentials: flag(allow_credentials),
        private_network: flag(allow_private_network_access),
        forward_not_matching: flag(forward_not_matching_preflights),
        enabled: match filter_enabled {
            Some(share) => runtime_percent(at.field("filter_enabled"), share)?,
            None => Percent {
                numerator: 100,
                denominator: 100,
            },
        },
    };
    Ok(FilterConfig::Cors(Some(Arc::new(policy))))
}
