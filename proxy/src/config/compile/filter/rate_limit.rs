//! How routes describe requests to rate limit filters: envoy.config.route.v3.RateLimit.

use xds_proto::envoy::config::route::v3 as pb;
use xds_proto::envoy::config::route::v3::rate_limit as inner;
use xds_proto::envoy::config::route::v3::rate_limit::action as kind;
use xds_proto::envoy::r#type::metadata::v3 as metadata;
use xds_proto::google::protobuf::BoolValue;

use crate::config::compile::matcher::{header, header_name, query};
use crate::config::compile::support::{
    At, CompileError, bool_or, each, known, required, u32_or, unsupported,
};
use crate::config::filter::{DescriptorMatch, RateLimit, RateLimitAction};

pub fn rate_limits(at: At<'_>, list: &[pb::RateLimit]) -> Result<Vec<RateLimit>, CompileError> {
    each(at, "rate_limits", list, rate_limit)
}

fn rate_limit(at: At<'_>, m: &pb::RateLimit) -> Result<RateLimit, CompileError> {
    let pb::RateLimit {
        stage,
        disable_key,
        actions,
        limit,
        hits_addend,
        apply_on_stream_done,
        x_ratelimit_option,
    } = m;
    unsupported!(
        at,
        disable_key,
        limit,
        hits_addend,
        apply_on_stream_done,
        x_ratelimit_option
    );
    if actions.is_empty() {
        return at.field("actions").fail("is required");
    }
    Ok(RateLimit {
        stage: u32_or(stage, 0),
        actions: each(at, "actions", actions, action)?,
    })
}

fn action(at: At<'_>, m: &inner::Action) -> Result<RateLimitAction, CompileError> {
    use kind::ActionSpecifier as Kind;
    let inner::Action { action_specifier } = m;
    Ok(match required!(at, action_specifier) {
        Kind::SourceCluster(_) => {
            return at
                .field("source_cluster")
                .fail("is not supported by this proxy");
        }
        Kind::Extension(_) => return at.field("extension").fail("is not supported by this proxy"),
        Kind::RemoteAddressMatch(_) => {
            return at
                .field("remote_address_match")
                .fail("is not supported by this proxy");
        }
        Kind::DestinationCluster(kind::DestinationCluster {}) => {
            RateLimitAction::DestinationCluster
        }
        Kind::RemoteAddress(kind::RemoteAddress {}) => RateLimitAction::RemoteAddress,
        Kind::MaskedRemoteAddress(m) => masked(at.field("masked_remote_address"), m)?,
        Kind::RequestHeaders(m) => {
            let at = at.field("request_headers");
            let kind::RequestHeaders {
                header_name: name,
                descriptor_key,
                skip_if_absent,
            } = m;
            RateLimitAction::RequestHeader {
                key: key(at, descriptor_key, "")?,
                name: header_name(at.field("header_name"), name)?,
                skip_if_absent: *skip_if_absent,
            }
        }
        Kind::QueryParameters(m) => {
            let at = at.field("query_parameters");
            let kind::QueryParameters {
                query_parameter_name,
                descriptor_key,
                skip_if_absent,
            } = m;
            if query_parameter_name.is_empty() {
                return at.field("query_parameter_name").fail("is required");
            }
            RateLimitAction::QueryParameter {
                key: key(at, descriptor_key, "")?,
                name: query_parameter_name.as_str().into(),
                skip_if_absent: *skip_if_absent,
            }
        }
        Kind::GenericKey(m) => {
            let at = at.field("generic_key");
            let kind::GenericKey {
                descriptor_value,
                default_value,
                descriptor_key,
            } = m;
            unsupported!(at, default_value);
            RateLimitAction::GenericKey {
                key: key(at, descriptor_key, "generic_key")?,
                value: literal(at, descriptor_value)?,
            }
        }
        Kind::HeaderValueMatch(m) => header_match(at.field("header_value_match"), m)?,
        Kind::QueryParameterValueMatch(m) => {
            query_match(at.field("query_parameter_value_match"), m)?
        }
        Kind::DynamicMetadata(m) => dynamic(at.field("dynamic_metadata"), m)?,
        Kind::Metadata(m) => of_metadata(at.field("metadata"), m)?,
    })
}

fn key(at: At<'_>, given: &str, default: &str) -> Result<Box<str>, CompileError> {
    match (given, default) {
        ("", "") => at.field("descriptor_key").fail("is required"),
        ("", default) => Ok(default.into()),
        (given, _) => Ok(given.into()),
    }
}

/// A value without command operators.
fn literal(at: At<'_>, value: &str) -> Result<Box<str>, CompileError> {
    let at = at.field("descriptor_value");
    if value.is_empty() {
        return at.fail("is required");
    }
    if value.contains('%') {
        return at.fail("command operators are not supported here");
    }
    Ok(value.into())
}

fn masked(at: At<'_>, m: &kind::MaskedRemoteAddress) -> Result<RateLimitAction, CompileError> {
    let kind::MaskedRemoteAddress {
        v4_prefix_mask_len,
        v6_prefix_mask_len,
    } = m;
    let bits = |field: &'static str, bits: u32, most: u32| match u8::try_from(bits) {
        Ok(bits) if u32::from(bits) <= most => Ok(bits),
        _ => at.field(field).fail(format_args!("is more than {most}")),
    };
    Ok(RateLimitAction::MaskedRemoteAddress {
        v4: bits("v4_prefix_mask_len", u32_or(v4_prefix_mask_len, 32), 32)?,
        v6: bits("v6_prefix_mask_len", u32_or(v6_prefix_mask_len, 128), 128)?,
    })
}

fn header_match(at: At<'_>, m: &kind::HeaderValueMatch) -> Result<RateLimitAction, CompileError> {
    let kind::HeaderValueMatch {
        descriptor_value,
        default_value,
        descriptor_key,
        expect_match,
        headers,
    } = m;
    unsupported!(at, default_value);
    let matches = DescriptorMatch::Headers(each(at, "headers", headers, header)?);
    let key = key(at, descriptor_key, "header_match")?;
    value_match(at, key, descriptor_value, expect_match, matches)
}

fn query_match(
    at: At<'_>,
    m: &kind::QueryParameterValueMatch,
) -> Result<RateLimitAction, CompileError> {
    let kind::QueryParameterValueMatch {
        descriptor_value,
        default_value,
        descriptor_key,
        expect_match,
        query_parameters,
    } = m;
    unsupported!(at, default_value);
    let matches = DescriptorMatch::Query(each(at, "query_parameters", query_parameters, query)?);
    let key = key(at, descriptor_key, "query_match")?;
    value_match(at, key, descriptor_value, expect_match, matches)
}

fn value_match(
    at: At<'_>,
    key: Box<str>,
    value: &str,
    expect: &Option<BoolValue>,
    matches: DescriptorMatch,
) -> Result<RateLimitAction, CompileError> {
    Ok(RateLimitAction::Match {
        key,
        value: literal(at, value)?,
        expect: bool_or(expect, true),
        matches,
    })
}

fn dynamic(at: At<'_>, m: &kind::DynamicMetaData) -> Result<RateLimitAction, CompileError> {
    let kind::DynamicMetaData {
        descriptor_key,
        metadata_key,
        default_value,
    } = m;
    let place = required!(at, metadata_key);
    let (namespace, path) = place_of(at.field("metadata_key"), place)?;
    Ok(RateLimitAction::Metadata {
        key: key(at, descriptor_key, "")?,
        namespace,
        path,
        default: (!default_value.is_empty()).then(|| default_value.as_str().into()),
        skip_if_absent: false,
    })
}

fn of_metadata(at: At<'_>, m: &kind::MetaData) -> Result<RateLimitAction, CompileError> {
    let kind::MetaData {
        descriptor_key,
        metadata_key,
        default_value,
        source,
        skip_if_absent,
    } = m;
    let source = known::<kind::meta_data::Source>(at.field("source"), *source)?;
    if source != kind::meta_data::Source::Dynamic {
        return at.field("source").fail("only DYNAMIC is supported");
    }
    let place = required!(at, metadata_key);
    let (namespace, path) = place_of(at.field("metadata_key"), place)?;
    Ok(RateLimitAction::Metadata {
        key: key(at, descriptor_key, "")?,
        namespace,
        path,
        default: (!default_value.is_empty()).then(|| default_value.as_str().into()),
        skip_if_absent: *skip_if_absent,
    })
}

/// Namespace and path.
fn place_of(
    at: At<'_>,
    m: &metadata::MetadataKey,
) -> Result<(Box<str>, Vec<Box<str>>), CompileError> {
    use metadata::metadata_key::{PathSegment, path_segment::Segment};
    let metadata::MetadataKey { key, path } = m;
    let path = each(at, "path", path, |at, m| {
        let PathSegment { segment } = m;
        match required!(at, segment) {
            Segment::Key(key) => Ok(key.as_str().into()),
            Segment::Index(_) => at.field("index").fail("is not supported by this proxy"),
        }
    })?;
    Ok((key.as_str().into(), path))
}
