//! The decompressor, and the libraries it decompresses with.

use std::sync::Arc;

use xds_proto::envoy::config::core::v3 as core;
use xds_proto::envoy::extensions::compression::brotli::decompressor::v3 as brotli_pb;
use xds_proto::envoy::extensions::compression::gzip::decompressor::v3 as gzip_pb;
use xds_proto::envoy::extensions::compression::zstd::decompressor::v3 as zstd_pb;
use xds_proto::envoy::extensions::filters::http::decompressor::v3 as pb;

use super::FilterScope;
use super::compressor::{check_chunk_size, is_enabled, within};
use crate::config::compile::support::{
    At, CompileError, bool_or, decode, ignored, required, type_name, unknown_type, unsupported,
};
use crate::config::compile::values::extension;
use crate::config::filter::{
    ContentCoding, Decompression, DecompressionDirection, DecompressionLibrary, FilterConfig,
};

/// Envoy's default for `max_inflate_ratio`, and what it has for the other libraries.
const MAX_RATIO: u32 = 100;

pub fn filter(
    at: At<'_>,
    m: &pb::Decompressor,
    scope: FilterScope<'_>,
) -> Result<FilterConfig, CompileError> {
    let pb::Decompressor {
        decompressor_library,
        request_direction_config,
        response_direction_config,
    } = m;
    let m = required!(at, decompressor_library);
    let (library, kind) = library(at.field("decompressor_library"), m)?;
    let direction = |common: Option<&pb::decompressor::CommonDirectionConfig>, side: &str| {
        let stats = format!("{}.{kind}.{side}", m.name);
        direction(common, &stats, scope)
    };
    let (request, advertise) = match request_direction_config {
        Some(m) => {
            let pb::decompressor::RequestDirectionConfig {
                common_config,
                advertise_accept_encoding,
            } = m;
            (
                common_config.as_ref(),
                bool_or(advertise_accept_encoding, true),
            )
        }
        None => (None, true),
    };
    let response = match response_direction_config {
        Some(m) => {
            let pb::decompressor::ResponseDirectionConfig { common_config } = m;
            common_config.as_ref()
        }
        None => None,
    };
    Ok(FilterConfig::Decompressor(Arc::new(Decompression {
        algorithm: library,
        request: direction(request, "request"),
        advertise,
        response: direction(response, "response"),
    })))
}

fn direction(
    m: Option<&pb::decompressor::CommonDirectionConfig>,
    stats: &str,
    scope: FilterScope<'_>,
) -> DecompressionDirection {
    let m = m.cloned().unwrap_or_default();
    let pb::decompressor::CommonDirectionConfig {
        enabled,
        ignore_no_transform_header,
    } = &m;
    DecompressionDirection {
        enabled: enabled.as_ref().is_none_or(is_enabled),
        ignore_no_transform: *ignore_no_transform_header,
        metrics: Arc::new(scope.decompressors.handles(stats)),
    }
}

/// The library, and how Envoy's statistics call it.
fn library(
    at: At<'_>,
    m: &core::TypedExtensionConfig,
) -> Result<(DecompressionLibrary, &'static str), CompileError> {
    let any = extension(at, m)?;
    let inner = at.field("typed_config");
    let of = |coding| DecompressionLibrary {
        coding,
        max_ratio: MAX_RATIO.into(),
        window_bits: 15,
    };
    Ok(match type_name(any) {
        "envoy.extensions.compression.gzip.decompressor.v3.Gzip" => {
            (gzip(inner, &decode(inner, any)?)?, "gzip")
        }
        "envoy.extensions.compression.brotli.decompressor.v3.Brotli" => {
            let m: brotli_pb::Brotli = decode(inner, any)?;
            let brotli_pb::Brotli {
                disable_ring_buffer_reallocation,
                chunk_size,
            } = &m;
            ignored!(
                "the decoder's buffer grows with the content",
                disable_ring_buffer_reallocation
            );
            check_chunk_size(inner, chunk_size)?;
            ignored!("a step gives 16 KiB at most", chunk_size);
            (of(ContentCoding::Brotli), "brotli")
        }
        "envoy.extensions.compression.zstd.decompressor.v3.Zstd" => {
            let m: zstd_pb::Zstd = decode(inner, any)?;
            let zstd_pb::Zstd {
                dictionaries,
                chunk_size,
            } = &m;
            unsupported!(inner, dictionaries);
            check_chunk_size(inner, chunk_size)?;
            ignored!("a step gives 16 KiB at most", chunk_size);
            (of(ContentCoding::Zstd), "zstd")
        }
        _ => return unknown_type(at, any),
    })
}

fn gzip(at: At<'_>, m: &gzip_pb::Gzip) -> Result<DecompressionLibrary, CompileError> {
    let gzip_pb::Gzip {
        window_bits,
        chunk_size,
        max_inflate_ratio,
    } = m;
    check_chunk_size(at, chunk_size)?;
    ignored!("a step gives 16 KiB at most", chunk_size);
    let ratio = at.field("max_inflate_ratio");
    Ok(DecompressionLibrary {
        coding: ContentCoding::Gzip,
        max_ratio: within(ratio, max_inflate_ratio, 1..=1032, MAX_RATIO)?,
        window_bits: within(at.field("window_bits"), window_bits, 9..=15, 15)?,
    })
}
