//! The compressor, and the libraries it compresses with.

use std::sync::Arc;

use brotli::enc::BrotliEncoderParams;
use brotli::enc::backward_references::BrotliEncoderMode;
use xds_proto::envoy::config::core::v3 as core;
use xds_proto::envoy::extensions::compression::brotli::compressor::v3 as brotli_pb;
use xds_proto::envoy::extensions::compression::gzip::compressor::v3 as gzip_pb;
use xds_proto::envoy::extensions::compression::zstd::compressor::v3 as zstd_pb;
use xds_proto::envoy::extensions::filters::http::compressor::v3 as pb;
use xds_proto::google::protobuf::UInt32Value;
use zlib_rs::DeflateConfig;
use zstd::zstd_safe;

use super::FilterScope;
use crate::config::compile::matcher::string;
use crate::config::compile::support::{
    At, CompileError, bool_or, decode, each, ignored, known, required, type_name, u32_or,
    unknown_type, unsupported,
};
use crate::config::compile::values::extension;
use crate::config::filter::{
    CommonDirection, Compression, CompressionLibrary, CompressionOverride, EtagPolicy,
    FilterConfig, FilterOverride, ResponseCompression, ZstdParameters,
};
use crate::matcher::StringMatch;

/// Envoy's default for `min_content_length`.
const MIN_LENGTH: u32 = 30;
/// Envoy's defaults for `content_type`.
const CONTENT_TYPES: [&str; 20] = [
    "text/html",
    "text/plain",
    "text/css",
    "application/javascript",
    "application/x-javascript",
    "text/javascript",
    "text/x-javascript",
    "text/ecmascript",
    "text/js",
    "text/jscript",
    "text/x-js",
    "application/ecmascript",
    "application/x-json",
    "application/xml",
    "application/json",
    "image/svg+xml",
    "text/xml",
    "application/xhtml+xml",
    "application/grpc-web",
    "application/grpc-web+proto",
];
/// Windows of zstd's levels above this are larger than the 8 MB that RFC 9659 allows in HTTP.
const ZSTD_LEVELS: u32 = 19;

pub fn filter(
    at: At<'_>,
    m: &pb::Compressor,
    scope: FilterScope<'_>,
) -> Result<FilterConfig, CompileError> {
    let pb::Compressor {
        content_length,
        content_type,
        disable_on_etag_header,
        remove_accept_encoding_header,
        runtime_enabled,
        compressor_library,
        request_direction_config,
        response_direction_config,
        choose_first,
    } = m;
    let m = required!(at, compressor_library);
    let library = library(at.field("compressor_library"), m)?;
    let stats = format!("{}.{}", m.name, stat_prefix(&library));
    let response = match response_direction_config {
        Some(m) => {
            let stats = format!("{stats}.response");
            response(at.field("response_direction_config"), m, &stats, scope)?
        }
        None => {
            let m = pb::compressor::ResponseDirectionConfig {
                common_config: Some(pb::compressor::CommonDirectionConfig {
                    enabled: runtime_enabled.clone(),
                    min_content_length: *content_length,
                    content_type: content_type.clone(),
                    content_type_matcher: Vec::new(),
                }),
                disable_on_etag_header: *disable_on_etag_header,
                remove_accept_encoding_header: *remove_accept_encoding_header,
                ..Default::default()
            };
            response(at, &m, &stats, scope)?
        }
    };
    let request = match request_direction_config {
        Some(m) => {
            let pb::compressor::RequestDirectionConfig { common_config } = m;
            let at = at.field("request_direction_config");
            Some(common(
                at,
                common_config,
                &format!("{stats}.request"),
                scope,
            )?)
        }
        None => None,
    };
    Ok(FilterConfig::Compressor(Arc::new(Compression {
        algorithm: library,
        choose_first: *choose_first,
        request,
        response,
    })))
}

fn response(
    at: At<'_>,
    m: &pb::compressor::ResponseDirectionConfig,
    stats: &str,
    scope: FilterScope<'_>,
) -> Result<ResponseCompression, CompileError> {
    let pb::compressor::ResponseDirectionConfig {
        common_config,
        disable_on_etag_header,
        weaken_etag_on_compress,
        remove_accept_encoding_header,
        uncompressible_response_codes,
        status_header_enabled,
    } = m;
    unsupported!(at, status_header_enabled);
    let status = |at: At<'_>, code: &u32| match u16::try_from(*code) {
        Ok(code @ 200..=599) => Ok(code),
        _ => at.fail("is not between 200 and 599"),
    };
    Ok(ResponseCompression {
        common: common(at, common_config, stats, scope)?,
        etag: match (weaken_etag_on_compress, disable_on_etag_header) {
            (true, _) => EtagPolicy::Weaken,
            (false, true) => EtagPolicy::Keep,
            (false, false) => EtagPolicy::Remove,
        },
        remove_accept_encoding: *remove_accept_encoding_header,
        uncompressible: each(
            at,
            "uncompressible_response_codes",
            uncompressible_response_codes,
            status,
        )?,
    })
}

/// `stats`: how Envoy roots the direction's statistics.
fn common(
    at: At<'_>,
    m: &Option<pb::compressor::CommonDirectionConfig>,
    stats: &str,
    scope: FilterScope<'_>,
) -> Result<CommonDirection, CompileError> {
    let m = m.clone().unwrap_or_default();
    let at = at.field("common_config");
    let pb::compressor::CommonDirectionConfig {
        enabled,
        min_content_length,
        content_type,
        content_type_matcher,
    } = &m;
    Ok(CommonDirection {
        enabled: enabled.as_ref().is_none_or(is_enabled),
        min_length: match u32_or(min_content_length, MIN_LENGTH) {
            0 => MIN_LENGTH.into(),
            length => length.into(),
        },
        content_types: content_types(at, content_type, content_type_matcher)?,
        metrics: Arc::new(scope.compressors.handles(stats)),
    })
}

pub(super) fn is_enabled(m: &core::RuntimeFeatureFlag) -> bool {
    let core::RuntimeFeatureFlag {
        default_value,
        runtime_key,
    } = m;
    ignored!("there is no runtime layer; the default holds", runtime_key);
    bool_or(default_value, true)
}

/// Matchers take precedence over the list, and either over the defaults.
fn content_types(
    at: At<'_>,
    list: &[String],
    matchers: &[xds_proto::envoy::r#type::matcher::v3::StringMatcher],
) -> Result<Vec<StringMatch>, CompileError> {
    if !matchers.is_empty() {
        return each(at, "content_type_matcher", matchers, string);
    }
    let exact = |text: &str| StringMatch::Exact {
        value: text.to_ascii_lowercase().into(),
        ignore_case: true,
    };
    Ok(match list {
        [] => CONTENT_TYPES.map(exact).into(),
        list => list.iter().map(|text| exact(text)).collect(),
    })
}

pub fn per_route(at: At<'_>, m: &pb::CompressorPerRoute) -> Result<FilterOverride, CompileError> {
    use pb::compressor_per_route::Override;
    let pb::CompressorPerRoute { r#override } = m;
    let m = match required!(at, r#override) {
        Override::Disabled(true) => return Ok(FilterOverride::Disabled),
        Override::Disabled(false) => return at.field("disabled").fail("must be true"),
        Override::Overrides(m) => m,
    };
    let at = at.field("overrides");
    let pb::CompressorOverrides {
        response_direction_config,
        compressor_library,
    } = m;
    unsupported!(at, compressor_library);
    let Some(m) = response_direction_config else {
        return at.field("response_direction_config").fail("is required");
    };
    let pb::ResponseDirectionOverrides {
        remove_accept_encoding_header,
    } = m;
    Ok(FilterOverride::Config(FilterConfig::CompressorOfRoute(
        CompressionOverride {
            remove_accept_encoding: remove_accept_encoding_header.as_ref().map(|m| m.value),
        },
    )))
}

fn library(at: At<'_>, m: &core::TypedExtensionConfig) -> Result<CompressionLibrary, CompileError> {
    let any = extension(at, m)?;
    let inner = at.field("typed_config");
    match type_name(any) {
        "envoy.extensions.compression.gzip.compressor.v3.Gzip" => gzip(inner, &decode(inner, any)?),
        "envoy.extensions.compression.brotli.compressor.v3.Brotli" => {
            brotli(inner, &decode(inner, any)?)
        }
        "envoy.extensions.compression.zstd.compressor.v3.Zstd" => zstd(inner, &decode(inner, any)?),
        _ => unknown_type(at, any),
    }
}

/// As Envoy's statistics call it.
fn stat_prefix(library: &CompressionLibrary) -> &'static str {
    match library {
        CompressionLibrary::Gzip(_) => "gzip",
        CompressionLibrary::Brotli(_) => "brotli",
        CompressionLibrary::Zstd(_) => "zstd",
    }
}

/// A number within a range; absent: `default`.
pub(super) fn within<T: TryFrom<u32>>(
    at: At<'_>,
    value: &Option<UInt32Value>,
    range: std::ops::RangeInclusive<u32>,
    default: u32,
) -> Result<T, CompileError> {
    let value = u32_or(value, default);
    match T::try_from(value) {
        Ok(number) if range.contains(&value) => Ok(number),
        _ => at.fail(format_args!(
            "is not between {} and {}",
            range.start(),
            range.end()
        )),
    }
}

/// Refuses what Envoy refuses.
pub(super) fn check_chunk_size(at: At<'_>, size: &Option<UInt32Value>) -> Result<(), CompileError> {
    within::<u32>(at.field("chunk_size"), size, 4096..=65536, 4096).map(drop)
}

fn gzip(at: At<'_>, m: &gzip_pb::Gzip) -> Result<CompressionLibrary, CompileError> {
    use gzip_pb::gzip::CompressionStrategy as Strategy;
    let gzip_pb::Gzip {
        memory_level,
        compression_level,
        compression_strategy,
        window_bits,
        chunk_size,
    } = m;
    check_chunk_size(at, chunk_size)?;
    ignored!("output buffers grow with what comes out", chunk_size);
    let level = match *compression_level {
        0 => 6,
        level @ 1..=9 => level,
        level => {
            return at
                .field("compression_level")
                .fail(format_args!("{level} is not a known value"));
        }
    };
    // Beyond 15 zlib takes it as the wish for gzip's header.
    let window_bits: i32 = within(at.field("window_bits"), window_bits, 9..=15, 12)?;
    let strategy = at.field("compression_strategy");
    Ok(CompressionLibrary::Gzip(DeflateConfig {
        window_bits: window_bits.saturating_add(16),
        mem_level: within(at.field("memory_level"), memory_level, 1..=9, 5)?,
        strategy: match known(strategy, *compression_strategy)? {
            Strategy::DefaultStrategy => zlib_rs::Strategy::Default,
            Strategy::Filtered => zlib_rs::Strategy::Filtered,
            Strategy::HuffmanOnly => zlib_rs::Strategy::HuffmanOnly,
            Strategy::Rle => zlib_rs::Strategy::Rle,
            Strategy::Fixed => zlib_rs::Strategy::Fixed,
        },
        ..DeflateConfig::new(level)
    }))
}

/// Brotli allocates a larger block for each body and fills it before it gives anything.
const BROTLI_BLOCK_BITS: i32 = 18;

fn brotli(at: At<'_>, m: &brotli_pb::Brotli) -> Result<CompressionLibrary, CompileError> {
    use brotli_pb::brotli::EncoderMode as Mode;
    let brotli_pb::Brotli {
        quality,
        encoder_mode,
        window_bits,
        input_block_bits,
        chunk_size,
        disable_literal_context_modeling,
    } = m;
    check_chunk_size(at, chunk_size)?;
    ignored!("output buffers grow with what comes out", chunk_size);
    let block_bits: i32 = within(at.field("input_block_bits"), input_block_bits, 16..=24, 24)?;
    let params = BrotliEncoderParams {
        quality: within(at.field("quality"), quality, 0..=11, 3)?,
        lgwin: within(at.field("window_bits"), window_bits, 10..=24, 18)?,
        lgblock: block_bits.min(BROTLI_BLOCK_BITS),
        mode: match known(at.field("encoder_mode"), *encoder_mode)? {
            Mode::Default | Mode::Generic => BrotliEncoderMode::BROTLI_MODE_GENERIC,
            Mode::Text => BrotliEncoderMode::BROTLI_MODE_TEXT,
            Mode::Font => BrotliEncoderMode::BROTLI_MODE_FONT,
        },
        disable_literal_context_modeling: (*disable_literal_context_modeling).into(),
        ..Default::default()
    };
    Ok(CompressionLibrary::Brotli(Box::new(params)))
}

fn zstd(at: At<'_>, m: &zstd_pb::Zstd) -> Result<CompressionLibrary, CompileError> {
    use zstd_pb::zstd::Strategy;
    use zstd_safe::Strategy::{
        ZSTD_btlazy2, ZSTD_btopt, ZSTD_btultra, ZSTD_btultra2, ZSTD_dfast, ZSTD_fast, ZSTD_greedy,
        ZSTD_lazy, ZSTD_lazy2,
    };
    let zstd_pb::Zstd {
        compression_level,
        enable_checksum,
        strategy,
        dictionary,
        chunk_size,
    } = m;
    unsupported!(at, dictionary);
    check_chunk_size(at, chunk_size)?;
    ignored!("output buffers grow with what comes out", chunk_size);
    let at_level = at.field("compression_level");
    Ok(CompressionLibrary::Zstd(ZstdParameters {
        // 0 is zstd's default, 3.
        level: within(at_level, compression_level, 0..=ZSTD_LEVELS, 3)?,
        checksum: *enable_checksum,
        strategy: match known(at.field("strategy"), *strategy)? {
            Strategy::Default => None,
            Strategy::Fast => Some(ZSTD_fast),
            Strategy::Dfast => Some(ZSTD_dfast),
            Strategy::Greedy => Some(ZSTD_greedy),
            Strategy::Lazy => Some(ZSTD_lazy),
            Strategy::Lazy2 => Some(ZSTD_lazy2),
            Strategy::Btlazy2 => Some(ZSTD_btlazy2),
            Strategy::Btopt => Some(ZSTD_btopt),
            Strategy::Btultra => Some(ZSTD_btultra),
            Strategy::Btultra2 => Some(ZSTD_btultra2),
        },
    }))
}
