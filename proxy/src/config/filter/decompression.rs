//! The decompressor filter: which bodies it decodes, and from what.

use std::sync::Arc;

use super::ContentCoding;
use crate::metrics::DecompressorMetrics;

/// envoy.extensions.filters.http.decompressor.v3.Decompressor.
pub struct Decompression {
    pub algorithm: DecompressionLibrary,
    pub request: DecompressionDirection,
    /// Upstreams are told that responses may come in this coding.
    pub advertise: bool,
    pub response: DecompressionDirection,
}

/// envoy.extensions.filters.http.decompressor.v3.Decompressor.CommonDirectionConfig.
pub struct DecompressionDirection {
    pub enabled: bool,
    /// `no-transform` does not forbid it.
    pub ignore_no_transform: bool,
    pub metrics: Arc<DecompressorMetrics>,
}

/// `decompressor_library`, with its settings.
#[derive(Clone, Copy, Debug)]
pub struct DecompressionLibrary {
    pub coding: ContentCoding,
    /// How many times longer than what went in is what comes out at most.
    pub max_ratio: u64,
    /// The binary logarithm of gzip's window.
    pub window_bits: u8,
}
