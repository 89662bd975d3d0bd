//! The filter that sets dynamic metadata by headers and cookies.

use std::sync::Arc;

use xds_proto::envoy::extensions::filters::http::header_to_metadata::v3 as pb;

use super::FilterScope;
use crate::config::compile::headers::editable;
use crate::config::compile::route::rewrite::substitution;
use crate::config::compile::support::{At, CompileError, each, known};
use crate::config::filter::{
    FilterConfig, HeaderToMetadata, HeaderToMetadataRule, MetadataFromHeader, MetadataSource,
    MetadataText,
};

/// The namespace where none is given, whatever the filter is called.
const NAMESPACE: &str = "envoy.filters.http.header_to_metadata";

pub fn filter(
    at: At<'_>,
    m: &pb::Config,
    scope: FilterScope<'_>,
) -> Result<FilterConfig, CompileError> {
    let pb::Config {
        request_rules,
        response_rules,
        stat_prefix,
    } = m;
    let metrics = match stat_prefix.as_str() {
        "" => None,
        prefix => Some(Arc::new(scope.header_to_metadata.handles(prefix))),
    };
    Ok(FilterConfig::HeaderToMetadata(Arc::new(HeaderToMetadata {
        request: each(at, "request_rules", request_rules, rule)?,
        response: each(at, "response_rules", response_rules, rule)?,
        metrics,
    })))
}

pub fn per_route(
    at: At<'_>,
    m: &pb::Config,
    scope: FilterScope<'_>,
) -> Result<FilterConfig, CompileError> {
    if m.request_rules.is_empty() && m.response_rules.is_empty() {
        return at
            .field("request_rules")
            .fail("is required on a route, or response_rules");
    }
    filter(at, m, scope)
}

fn rule(at: At<'_>, m: &pb::config::Rule) -> Result<HeaderToMetadataRule, CompileError> {
    let pb::config::Rule {
        header,
        cookie,
        on_header_present,
        on_header_missing,
        remove,
    } = m;
    let source = match (header.as_str(), cookie.as_str()) {
        ("", "") => return at.field("header").fail("is required, or cookie"),
        ("", _) if *remove => return at.field("remove").fail("is not for cookies"),
        ("", cookie) => MetadataSource::Cookie(cookie.into()),
        (header, "") => MetadataSource::Header {
            name: editable(at.field("header"), header)?,
            remove: *remove,
        },
        _ => return at.field("cookie").fail("must not be set beside header"),
    };
    if on_header_present.is_none() && on_header_missing.is_none() {
        return at
            .field("on_header_present")
            .fail("is required, or on_header_missing");
    }
    let present = match on_header_present {
        Some(m) => Some(value(at.field("on_header_present"), m)?),
        None => None,
    };
    let missing = match on_header_missing {
        Some(m) => {
            let at = at.field("on_header_missing");
            if m.value.is_empty() {
                return at.field("value").fail("is required");
            }
            Some(value(at, m)?)
        }
        None => None,
    };
    Ok(HeaderToMetadataRule {
        source,
        present,
        missing,
    })
}

fn value(at: At<'_>, m: &pb::config::KeyValuePair) -> Result<MetadataFromHeader, CompileError> {
    use pb::config::{ValueEncode, ValueType};
    let pb::config::KeyValuePair {
        metadata_namespace,
        key,
        value,
        regex_value_rewrite,
        r#type,
        encode,
    } = m;
    if key.is_empty() {
        return at.field("key").fail("is required");
    }
    let text = match (value.as_str(), regex_value_rewrite) {
        ("", None) => MetadataText::Own,
        ("", Some(m)) => {
            let (pattern, substitution) = substitution(at.field("regex_value_rewrite"), m)?;
            MetadataText::Rewritten {
                pattern,
                substitution,
            }
        }
        (value, None) => MetadataText::Fixed(value.into()),
        (_, Some(_)) => {
            return at
                .field("regex_value_rewrite")
                .fail("must not be set beside value");
        }
    };
    let number = match known(at.field("type"), *r#type)? {
        ValueType::String => false,
        ValueType::Number => true,
        ValueType::ProtobufValue => {
            return at
                .field("type")
                .fail("PROTOBUF_VALUE is not supported by this proxy");
        }
    };
    Ok(MetadataFromHeader {
        namespace: match metadata_namespace.as_str() {
            "" => NAMESPACE.into(),
            namespace => namespace.into(),
        },
        key: key.as_str().into(),
        value: text,
        number,
        base64: known::<ValueEncode>(at.field("encode"), *encode)? == ValueEncode::Base64,
    })
}
