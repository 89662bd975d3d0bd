//! The compressor: responses in a content coding that the client accepts, and requests, where that is
//! configured, in the one it has. Source: Envoy's "Compressor" filter.
//!
//! What it decides about a body it decides by its head ([`on_request`], [`on_response`]); a
//! [`Compressor`] then codes it.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use smallvec::SmallVec;

use super::FilterState;
use super::accept_encoding::{AcceptEncoding, EncodingChoice, Offer};
use super::body::{self, BodyTransform};
use super::encoder::Encoder;
use crate::bug;
use crate::config::filter::{
    CommonDirection, Compression, CompressionOverride, ContentCoding, EtagPolicy, FilterConfig,
    ResponseCompression,
};
use crate::http::h1::BodyLength;
use crate::http::request::error::Failure;
use crate::http::request::stream_info::StreamInfo;
use crate::message::head::{Head, HeaderId, Heads};
use crate::metrics::CompressorMetrics;

/// Bytes that are coded in one step.
const STEP: usize = 16 * 1024;
/// Bytes of input after which what the encoder holds is to come out: brotli would collect its window.
const FLUSH_AFTER: usize = 256 * 1024;

/// A compressor on a route.
#[derive(Clone, Copy)]
pub struct OnRoute<'a> {
    own: &'a Compression,
    of_route: Option<CompressionOverride>,
}

impl<'a> OnRoute<'a> {
    pub fn new(own: &'a Compression, of_route: Option<&FilterConfig>) -> Self {
        let of_route = match of_route {
            Some(FilterConfig::CompressorOfRoute(of_route)) => Some(*of_route),
            _ => None,
        };
        Self { own, of_route }
    }

    fn is_enabled(self) -> bool {
        self.own.response.common.enabled || self.of_route.is_some()
    }

    fn removes_accept_encoding(self) -> bool {
        let of_route = self.of_route.and_then(|said| said.remove_accept_encoding);
        of_route.unwrap_or(self.own.response.remove_accept_encoding)
    }
}

/// Compresses the request, if it is to be, and notes what the client accepts. `body`: its length, if
/// there is one, which becomes unknown.
pub fn on_request(
    filter: OnRoute<'_>,
    place: usize,
    body: Option<&mut BodyLength>,
    info: &mut StreamInfo,
    heads: &Heads,
) {
    if let Some(settings) = &filter.own.request {
        compress_request(filter.own, settings, body, info, heads);
    }
    let Some(accepted) = AcceptEncoding::of(&info.request) else {
        return;
    };
    let state = FilterState::Compressor(accepted);
    info.filters.states.push((place, state));
    if filter.is_enabled() && filter.removes_accept_encoding() {
        info.keep_authorised_head(heads);
        info.request.remove(HeaderId::AcceptEncoding);
    }
}

fn compress_request(
    own: &Compression,
    settings: &CommonDirection,
    body: Option<&mut BodyLength>,
    info: &mut StreamInfo,
    heads: &Heads,
) {
    let head = &info.request;
    let compressor = body.filter(|body| {
        settings.enabled
            && is_long_enough(settings, declared(head, **body))
            && is_allowed(settings, media_type(head))
            && !head.has(HeaderId::ContentEncoding)
    });
    let compressor = compressor.and_then(|body| Some((body, Compressor::new(own, settings)?)));
    let Some((body, compressor)) = compressor else {
        settings.metrics.not_compressed.inc();
        return;
    };
    settings.metrics.compressed.inc();
    info.keep_authorised_head(heads);
    info.request.remove(HeaderId::ContentLength);
    let coding = own.algorithm.coding().name();
    info.request
        .set(HeaderId::ContentEncoding, coding.as_bytes());
    *body = BodyLength::Unknown;
    let filters = info.filters.request_body.get_or_insert_default();
    filters.add(BodyTransform::Compress(compressor));
}

/// Compresses the response, if it is to be. `chain`: all compressors of the request's chain; `body`:
/// the response's, as it would be sent, which becomes unknown.
pub fn on_response<'a>(
    filter: OnRoute<'_>,
    chain: impl Iterator<Item = &'a Compression>,
    place: usize,
    body: &mut BodyLength,
    info: &mut StreamInfo,
) {
    let settings = &filter.own.response;
    let metrics = &settings.common.metrics;
    let media_type = media_type(&info.response);
    let is_candidate =
        filter.is_enabled() && is_long_enough(&settings.common, declared(&info.response, *body));
    let is_compressible = is_candidate && is_compressible(settings, media_type, info);
    let has_body = !matches!(body, BodyLength::None | BodyLength::Known(0));
    let is_chosen = has_body && is_candidate && {
        let offers = offers(chain, media_type);
        is_accepted(filter.own, info.filters.state(place), &offers)
    };
    let compressor = match is_chosen && is_compressible {
        true => Compressor::new(filter.own, &settings.common),
        false => None,
    };
    let Some(compressor) = compressor else {
        metrics.not_compressed.inc();
        if is_compressible {
            vary(&mut info.response);
        }
        return;
    };
    metrics.compressed.inc();
    let head = &mut info.response;
    edit_etag(head, settings.etag);
    head.remove(HeaderId::ContentLength);
    let coding = filter.own.algorithm.coding();
    head.set(HeaderId::ContentEncoding, coding.name().as_bytes());
    vary(head);
    *body = BodyLength::Unknown;
    let filters = info.filters.response_body.get_or_insert_default();
    filters.add(BodyTransform::Compress(compressor));
}

/// The codings that the chain offers for a media type.
fn offers<'a>(
    chain: impl Iterator<Item = &'a Compression>,
    media_type: Option<&[u8]>,
) -> SmallVec<[Offer; 3]> {
    let mut offers = SmallVec::<[Offer; 3]>::new();
    for one in chain {
        let coding = one.algorithm.coding();
        let is_new = offers.iter().all(|offer| offer.coding != coding);
        if is_new && is_allowed(&one.response.common, media_type) {
            offers.push(Offer {
                coding,
                first: one.choose_first,
            });
        }
    }
    offers
}

/// Whether the client accepts this compressor's coding, and prefers it.
fn is_accepted(own: &Compression, state: Option<&FilterState>, offers: &[Offer]) -> bool {
    let metrics = &own.response.common.metrics;
    let Some(FilterState::Compressor(accepted)) = state else {
        metrics.no_accept_header.inc();
        return false;
    };
    let is_own = |coding: ContentCoding| coding == own.algorithm.coding();
    match accepted.choose(offers) {
        EncodingChoice::Named(coding) if is_own(coding) => {
            metrics.header_compressor_used.inc();
            true
        }
        EncodingChoice::Named(_) => {
            metrics.header_compressor_overshadowed.inc();
            false
        }
        EncodingChoice::Wildcard(coding) => {
            metrics.header_wildcard.inc();
            is_own(coding)
        }
        EncodingChoice::Identity => {
            metrics.header_identity.inc();
            false
        }
        EncodingChoice::None => {
            metrics.header_not_valid.inc();
            false
        }
    }
}

/// A body's media type, without parameters.
fn media_type(head: &Head) -> Option<&[u8]> {
    let value = head.get(HeaderId::ContentType)?;
    let end = memchr::memchr(b';', value).unwrap_or(value.len());
    value.get(..end).map(<[u8]>::trim_ascii)
}

/// The length that a message declares, also where no body follows.
fn declared(head: &Head, body: BodyLength) -> Option<u64> {
    match body {
        BodyLength::Known(length) => Some(length),
        _ => {
            let digits = head.get(HeaderId::ContentLength)?;
            std::str::from_utf8(digits).ok()?.parse().ok()
        }
    }
}

fn is_long_enough(settings: &CommonDirection, declared: Option<u64>) -> bool {
    let is_short = declared.is_some_and(|length| length < settings.min_length);
    if is_short {
        settings.metrics.content_length_too_small.inc();
    }
    !is_short
}

fn is_allowed(settings: &CommonDirection, media_type: Option<&[u8]>) -> bool {
    media_type.is_none_or(|media_type| {
        let mut types = settings.content_types.iter();
        types.any(|allowed| allowed.matches(media_type))
    })
}

/// Whether the response could be compressed for some client.
fn is_compressible(
    settings: &ResponseCompression,
    media_type: Option<&[u8]>,
    info: &StreamInfo,
) -> bool {
    let head = &info.response;
    if info.upgraded
        || settings.uncompressible.contains(&head.status())
        || !is_allowed(&settings.common, media_type)
        || has_token(head, HeaderId::CacheControl, b"no-transform")
    {
        return false;
    }
    if settings.etag == EtagPolicy::Keep && head.has(HeaderId::Etag) {
        settings.common.metrics.not_compressed_etag.inc();
        return false;
    }
    !head.has(HeaderId::ContentEncoding)
}

/// Whether a list has this token, in any case.
pub(super) fn has_token(head: &Head, id: HeaderId, token: &[u8]) -> bool {
    let mut values = head.get_all(id);
    values.any(|value| {
        let mut tokens = value.split(|byte| *byte == b',');
        tokens.any(|one| one.trim_ascii().eq_ignore_ascii_case(token))
    })
}

fn edit_etag(head: &mut Head, policy: EtagPolicy) {
    let strong = match head.get(HeaderId::Etag) {
        None | Some([b'W' | b'w', b'/', ..]) => return,
        Some(strong) => strong,
    };
    if policy == EtagPolicy::Weaken {
        let weak = [b"W/".as_slice(), strong].concat();
        head.set(HeaderId::Etag, &weak);
    } else {
        head.remove(HeaderId::Etag);
    }
}

/// Caches must keep what is sent apart by what the client accepts.
fn vary(head: &mut Head) {
    if has_token(head, HeaderId::Vary, b"accept-encoding") {
        return;
    }
    let mut all: Vec<&[u8]> = head.get_all(HeaderId::Vary).collect();
    all.push(b"Accept-Encoding");
    let joined = all.join(&b", "[..]);
    head.set(HeaderId::Vary, &joined);
}

/// Codes a body.
pub struct Compressor {
    encoder: Encoder,
    /// Bytes that were taken since the last flush.
    unflushed: usize,
    metrics: Arc<CompressorMetrics>,
}

impl Compressor {
    /// `None`: there is no memory for it.
    fn new(own: &Compression, direction: &CommonDirection) -> Option<Self> {
        Some(Self {
            encoder: Encoder::new(&own.algorithm).map_err(failed).ok()?,
            unflushed: 0,
            metrics: direction.metrics.clone(),
        })
    }

    pub(super) fn step(&mut self, input: &mut Bytes) -> Result<Bytes, Failure> {
        let piece = input.split_to(input.len().min(STEP));
        self.metrics
            .total_uncompressed_bytes
            .inc_by(piece.len() as u64);
        self.unflushed = self.unflushed.saturating_add(piece.len());
        let mut coded = self.encoder.write(&piece).map_err(failed)?;
        if self.unflushed >= FLUSH_AFTER {
            self.unflushed = 0;
            coded.extend(self.encoder.flush().map_err(failed)?);
        }
        Ok(self.give(coded))
    }

    pub(super) fn holds_back(&self) -> bool {
        self.unflushed > 0
    }

    pub(super) fn flush(&mut self) -> Result<Bytes, Failure> {
        self.unflushed = 0;
        let coded = self.encoder.flush().map_err(failed)?;
        Ok(self.give(coded))
    }

    pub(super) fn finish(&mut self) -> Result<Bytes, Failure> {
        self.unflushed = 0;
        let coded = self.encoder.finish().map_err(failed)?;
        Ok(self.give(coded))
    }

    fn give(&self, coded: Vec<u8>) -> Bytes {
        self.metrics
            .total_compressed_bytes
            .inc_by(coded.len() as u64);
        body::piece(coded)
    }
}

/// An encoder can fail only for lack of memory.
fn failed(_: io::Error) -> Failure {
    bug::failed("an encoder of a content coding failed");
    Failure::Overloaded
}
