//! envoy.extensions.filters.network.http_connection_manager.v3.LocalReplyConfig, compiled.

use bytes::Bytes;

use super::access_log::{LogFilter, LogFormat};
use super::route::HeaderEdits;

/// What becomes of responses that the proxy makes itself.
#[derive(Default)]
pub struct LocalReplies {
    /// The first whose filter matches changes the response.
    pub mappers: Vec<ResponseMapper>,
    /// Of all bodies; `None`: as they are.
    pub body_format: Option<BodyFormat>,
}

pub struct ResponseMapper {
    pub filter: LogFilter,
    pub status: Option<u16>,
    pub body: Option<Bytes>,
    pub headers: HeaderEdits,
    /// In place of the one for all.
    pub body_format: Option<BodyFormat>,
}

pub struct BodyFormat {
    pub format: LogFormat,
    pub content_type: Box<str>,
}
