//! The filter that sets dynamic metadata by headers and cookies.

use std::sync::Arc;

use crate::config::Name;
use crate::matcher::HeaderName;
use crate::metrics::HeaderToMetadataMetrics;

/// envoy.extensions.filters.http.header_to_metadata.v3.Config.
pub struct HeaderToMetadata {
    pub request: Vec<HeaderToMetadataRule>,
    pub response: Vec<HeaderToMetadataRule>,
    /// `None`: nothing is counted.
    pub metrics: Option<Arc<HeaderToMetadataMetrics>>,
}

pub struct HeaderToMetadataRule {
    pub source: MetadataSource,
    pub present: Option<MetadataFromHeader>,
    /// Of these only the value is used.
    pub missing: Option<MetadataFromHeader>,
}

pub enum MetadataSource {
    Header { name: HeaderName, remove: bool },
    Cookie(Box<str>),
}

pub struct MetadataFromHeader {
    pub namespace: Name,
    pub key: Box<str>,
    pub value: MetadataText,
    pub number: bool,
    /// The value is in Base64.
    pub base64: bool,
}

/// The text that a value is made of.
pub enum MetadataText {
    /// That of the header or cookie.
    Own,
    Fixed(Box<str>),
    /// Every match is replaced; `substitution` is in the regex crate's syntax.
    Rewritten {
        pattern: Box<regex::bytes::Regex>,
        substitution: Box<str>,
    },
}
