//! Counters per HTTP filter.

use prometheus::{IntCounter, IntCounterVec};

use super::Holders;
use crate::metrics::registry::{Registry, RegistryError};

resource_metrics! {
    /// Counters of one compressor, labelled as Envoy's statistics are rooted: the library's name, what
    /// it is, and the direction where that is configured.
    CompressorMetrics, CompressorFamilies, "compressor";
    counters {
        compressed = "anyam_compressor_compressed_total", "Bodies compressed.";
        not_compressed = "anyam_compressor_not_compressed_total", "Bodies left as they were.";
        total_uncompressed_bytes = "anyam_compressor_uncompressed_bytes_total",
            "Bytes of bodies before they were compressed.";
        total_compressed_bytes = "anyam_compressor_compressed_bytes_total",
            "Bytes of bodies after they were compressed.";
        content_length_too_small = "anyam_compressor_content_length_too_small_total",
            "Bodies left as they were because they are too short.";
        no_accept_header = "anyam_compressor_no_accept_header_total",
            "Requests without Accept-Encoding.";
        header_identity = "anyam_compressor_header_identity_total",
            "Requests that prefer a response as it is.";
        header_compressor_used = "anyam_compressor_header_compressor_used_total",
            "Requests that prefer this compressor's coding.";
        header_compressor_overshadowed = "anyam_compressor_header_compressor_overshadowed_total",
            "Requests that prefer another compressor's coding.";
        header_wildcard = "anyam_compressor_header_wildcard_total",
            "Requests that prefer any coding.";
        header_not_valid = "anyam_compressor_header_not_valid_total",
            "Requests that accept no coding there is a compressor for.";
        not_compressed_etag = "anyam_compressor_not_compressed_etag_total",
            "Responses left as they were because they have an ETag.";
    }
    gauges {}
    typed {}
}

resource_metrics! {
    /// Counters of one direction of a decompressor, labelled as Envoy's statistics are rooted.
    DecompressorMetrics, DecompressorFamilies, "decompressor";
    counters {
        decompressed = "anyam_decompressor_decompressed_total", "Bodies decompressed.";
        not_decompressed = "anyam_decompressor_not_decompressed_total",
            "Bodies left as they were.";
        total_uncompressed_bytes = "anyam_decompressor_uncompressed_bytes_total",
            "Bytes of bodies after they were decompressed.";
        total_compressed_bytes = "anyam_decompressor_compressed_bytes_total",
            "Bytes of bodies before they were decompressed.";
    }
    gauges {}
    typed {}
}

resource_metrics! {
    /// Counters of one filter that verifies JSON Web Tokens, labelled as Envoy's statistics are rooted:
    /// the `stat_prefix` of the connection manager and, where it has one, of the filter.
    JwtAuthnMetrics, JwtAuthnFamilies, "jwt_authn";
    counters {
        allowed = "anyam_jwt_authn_allowed_total", "Requests that were allowed.";
        denied = "anyam_jwt_authn_denied_total", "Requests that were refused.";
        cors_preflight_bypassed = "anyam_jwt_authn_cors_preflight_bypassed_total",
            "CORS preflight requests, which need no token.";
        jwks_fetch_success = "anyam_jwt_authn_jwks_fetch_success_total",
            "Key sets that were fetched.";
        jwks_fetch_failed = "anyam_jwt_authn_jwks_fetch_failed_total",
            "Key sets that could not be fetched.";
        jwt_cache_hit = "anyam_jwt_authn_jwt_cache_hit_total",
            "Tokens that had been verified before.";
        jwt_cache_miss = "anyam_jwt_authn_jwt_cache_miss_total",
            "Tokens that had to be verified.";
    }
    gauges {}
    typed {}
}

resource_metrics! {
    /// Counters of the filter against cross-site request forgery, labelled as Envoy's statistics are
    /// rooted: the connection manager's `stat_prefix`.
    CsrfMetrics, CsrfFamilies, "csrf";
    counters {
        missing_source_origin = "anyam_csrf_missing_source_origin_total",
            "Requests that do not say which page they come from.";
        request_invalid = "anyam_csrf_request_invalid_total",
            "Requests from pages of other hosts.";
        request_valid = "anyam_csrf_request_valid_total", "Requests that were allowed.";
    }
    gauges {}
    typed {}
}

resource_metrics! {
    /// Counters of one filter that sets dynamic metadata by headers, labelled by its `stat_prefix`.
    HeaderToMetadataMetrics, HeaderToMetadataFamilies, "header_to_metadata";
    counters {
        request_rules_processed = "anyam_header_to_metadata_request_rules_processed_total",
            "Rules applied to requests.";
        request_metadata_added = "anyam_header_to_metadata_request_metadata_added_total",
            "Values set by requests.";
        request_header_not_found = "anyam_header_to_metadata_request_header_not_found_total",
            "Values set because a request lacks a header.";
        response_rules_processed = "anyam_header_to_metadata_response_rules_processed_total",
            "Rules applied to responses.";
        response_metadata_added = "anyam_header_to_metadata_response_metadata_added_total",
            "Values set by responses.";
        response_header_not_found = "anyam_header_to_metadata_response_header_not_found_total",
            "Values set because a response lacks a header.";
        base64_decode_failed = "anyam_header_to_metadata_base64_decode_failed_total",
            "Values that are not in Base64.";
        header_value_too_long = "anyam_header_to_metadata_header_value_too_long_total",
            "Values that are too long.";
        regex_substitution_failed = "anyam_header_to_metadata_regex_substitution_failed_total",
            "Values of which a rewrite leaves nothing.";
    }
    gauges {}
    typed {}
}
