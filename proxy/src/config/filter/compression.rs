//! The compressor filter: which responses it compresses, and by what.

use std::sync::Arc;

use brotli::enc::BrotliEncoderParams;
use zlib_rs::DeflateConfig;
use zstd::zstd_safe;

use crate::matcher::StringMatch;
use crate::metrics::CompressorMetrics;

/// envoy.extensions.filters.http.compressor.v3.Compressor.
pub struct Compression {
    pub algorithm: CompressionLibrary,
    /// Chosen before others that the client accepts with the same weight.
    pub choose_first: bool,
    /// `None`: requests are not compressed.
    pub request: Option<CommonDirection>,
    pub response: ResponseCompression,
}

/// envoy.extensions.filters.http.compressor.v3.Compressor.CommonDirectionConfig.
pub struct CommonDirection {
    pub enabled: bool,
    /// Bytes that a declared length must have.
    pub min_length: u64,
    /// Media types without parameters; a body that has none is compressed too.
    pub content_types: Vec<StringMatch>,
    pub metrics: Arc<CompressorMetrics>,
}

/// envoy.extensions.filters.http.compressor.v3.Compressor.ResponseDirectionConfig.
pub struct ResponseCompression {
    pub common: CommonDirection,
    pub etag: EtagPolicy,
    /// The upstream is not to compress by itself.
    pub remove_accept_encoding: bool,
    /// Statuses of responses that are left as they are.
    pub uncompressible: Vec<u16>,
}

/// What becomes of a strong ETag, which stands for the bytes that the app sent (RFC 9110 8.8.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EtagPolicy {
    Remove,
    Weaken,
    /// A response with an ETag, weak ones included, is not compressed.
    Keep,
}

/// `compressor_library`, with its settings.
pub enum CompressionLibrary {
    Gzip(DeflateConfig),
    Brotli(Box<BrotliEncoderParams>),
    Zstd(ZstdParameters),
}

/// envoy.extensions.compression.zstd.compressor.v3.Zstd.
#[derive(Clone, Copy, Debug)]
pub struct ZstdParameters {
    pub level: i32,
    pub checksum: bool,
    /// `None`: the level's own.
    pub strategy: Option<zstd_safe::Strategy>,
}

impl CompressionLibrary {
    pub fn coding(&self) -> ContentCoding {
        match self {
            Self::Gzip(_) => ContentCoding::Gzip,
            Self::Brotli(_) => ContentCoding::Brotli,
            Self::Zstd(_) => ContentCoding::Zstd,
        }
    }
}

/// A content coding (RFC 9110 8.4.1) that can be produced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ContentCoding {
    Gzip,
    Brotli,
    Zstd,
}

impl ContentCoding {
    pub const ALL: [Self; 3] = [Self::Gzip, Self::Brotli, Self::Zstd];

    /// As in `Content-Encoding`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Brotli => "br",
            Self::Zstd => "zstd",
        }
    }
}

/// envoy.extensions.filters.http.compressor.v3.CompressorOverrides: what a route changes. It enables
/// compression of responses.
#[derive(Clone, Copy)]
pub struct CompressionOverride {
    pub remove_accept_encoding: Option<bool>,
}
