//! Changes of responses that the proxy makes itself.

use xds_proto::envoy::config::core::v3 as core;
use xds_proto::envoy::extensions::filters::network::http_connection_manager::v3 as pb;

use crate::config::access_log::LogFormat;
use crate::config::compile::access_log::substitution;
use crate::config::compile::headers::response_edits;
use crate::config::compile::log_filter;
use crate::config::compile::support::{At, CompileError, each, required, u32_opt};
use crate::config::compile::values::data_source;
use crate::config::local_reply::{BodyFormat, LocalReplies, ResponseMapper};

pub fn local_replies(
    at: At<'_>,
    m: &Option<pb::LocalReplyConfig>,
) -> Result<Option<Box<LocalReplies>>, CompileError> {
    let Some(pb::LocalReplyConfig {
        mappers,
        body_format: format,
    }) = m
    else {
        return Ok(None);
    };
    let at = at.field("local_reply_config");
    Ok(Some(Box::new(LocalReplies {
        mappers: each(at, "mappers", mappers, mapper)?,
        body_format: body_format(at.field("body_format"), format.as_ref())?,
    })))
}

fn mapper(at: At<'_>, m: &pb::ResponseMapper) -> Result<ResponseMapper, CompileError> {
    let pb::ResponseMapper {
        filter,
        status_code,
        body,
        body_format_override,
        headers_to_add,
    } = m;
    let filter = required!(at, filter);
    let status = match u32_opt(status_code) {
        None => None,
        Some(status @ 200..=599) => u16::try_from(status).ok(),
        Some(status) => {
            let at = at.field("status_code");
            return at.fail(format_args!("{status} is not from 200 to 599"));
        }
    };
    Ok(ResponseMapper {
        filter: log_filter::filter(at.field("filter"), filter, 0)?,
        status,
        body: match body {
            Some(m) => Some(data_source(at.field("body"), m)?.into()),
            None => None,
        },
        headers: response_edits(at, headers_to_add, &[])?,
        body_format: body_format(
            at.field("body_format_override"),
            body_format_override.as_ref(),
        )?,
    })
}

fn body_format(
    at: At<'_>,
    m: Option<&core::SubstitutionFormatString>,
) -> Result<Option<BodyFormat>, CompileError> {
    let Some(m) = m else { return Ok(None) };
    let format = substitution(at, m)?;
    let content_type = match (m.content_type.as_str(), &format) {
        ("", LogFormat::Text(_)) => "text/plain",
        ("", LogFormat::Json { .. }) => "application/json",
        (given, _) => given,
    };
    Ok(Some(BodyFormat {
        content_type: content_type.into(),
        format,
    }))
}
