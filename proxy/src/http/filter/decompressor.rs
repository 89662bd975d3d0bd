//! The decompressor: bodies out of a content coding, of requests and of responses. Source: Envoy's
//! "Decompressor" filter.
//!
//! A body that is not in the coding that its head names, that breaks off in it or that decodes to more
//! than `max_inflate_ratio` times its length is an error of its sender: a bomb costs as much as the
//! ratio allows, and never more memory than one step.

use std::sync::Arc;

use bytes::{Buf, Bytes};

use super::body::{self, BodyTransform};
use super::compressor::has_token;
use super::decoder::{Decoder, ROOM};
use crate::config::filter::{ContentCoding, Decompression, DecompressionDirection};
use crate::http::h1::BodyLength;
use crate::http::request::error::Failure;
use crate::http::request::stream_info::StreamInfo;
use crate::message::fault::Fault;
use crate::message::head::{Head, HeaderId, Heads};
use crate::metrics::DecompressorMetrics;

/// Bytes that may come out whatever the ratio: short bodies of much the same text decode to many times
/// their length.
const FREE: u64 = 64 * 1024;
/// RFC 9110 15.3.7: a range of the coded bytes.
const PARTIAL_CONTENT: u16 = 206;

/// Decodes the request's body, if it is to be, and tells the upstream that responses may be coded.
/// `body`: its length, if there is one, which becomes unknown.
pub fn on_request(
    own: &Decompression,
    body: Option<&mut BodyLength>,
    info: &mut StreamInfo,
    heads: &Heads,
) {
    let coding = own.algorithm.coding;
    // A range is one of the coded bytes: alone it can't be decoded.
    if own.response.enabled && own.advertise && !info.request.has(HeaderId::Range) {
        info.keep_authorised_head(heads);
        advertise(&mut info.request, coding);
    }
    let Some(body) = body else {
        return;
    };
    let decoder = decoder(own, &own.request, &info.request);
    let Some(decoder) = decoder else {
        own.request.metrics.not_decompressed.inc();
        return;
    };
    info.keep_authorised_head(heads);
    edit(&mut info.request);
    own.request.metrics.decompressed.inc();
    *body = BodyLength::Unknown;
    let filters = info.filters.request_body.get_or_insert_default();
    let transform = Decompressor::new(own, &own.request, decoder, Failure::BadRequest);
    filters.add(BodyTransform::Decompress(transform));
}

/// Decodes the response's body, if it is to be. `body`: its length, which becomes unknown.
pub fn on_response(own: &Decompression, body: &mut BodyLength, info: &mut StreamInfo) {
    if info.upgraded || matches!(body, BodyLength::None | BodyLength::Known(0)) {
        return;
    }
    let is_part = info.response.status() == PARTIAL_CONTENT;
    let decoder = match is_part {
        true => None,
        false => decoder(own, &own.response, &info.response),
    };
    let Some(decoder) = decoder else {
        own.response.metrics.not_decompressed.inc();
        return;
    };
    edit(&mut info.response);
    own.response.metrics.decompressed.inc();
    *body = BodyLength::Unknown;
    let filters = info.filters.response_body.get_or_insert_default();
    let transform = Decompressor::new(own, &own.response, decoder, Failure::BadResponse);
    filters.add(BodyTransform::Decompress(transform));
}

/// A decoder for a message's body, if it is to be decoded.
fn decoder(
    own: &Decompression,
    direction: &DecompressionDirection,
    head: &Head,
) -> Option<Decoder> {
    let may =
        direction.ignore_no_transform || !has_token(head, HeaderId::CacheControl, b"no-transform");
    let coding = own.algorithm.coding.name().as_bytes();
    let is_coded = last_coding(head).is_some_and(|last| last.eq_ignore_ascii_case(coding));
    match direction.enabled && may && is_coded {
        true => Decoder::new(&own.algorithm),
        false => None,
    }
}

/// The coding that was applied last (RFC 9110 8.4).
fn last_coding(head: &Head) -> Option<&[u8]> {
    let last = head.get_all(HeaderId::ContentEncoding).last()?;
    let comma = memchr::memrchr(b',', last);
    let start = comma.map_or(0, |at| at.saturating_add(1));
    last.get(start..).map(<[u8]>::trim_ascii)
}

/// Takes the last coding and the length out of a head.
fn edit(head: &mut Head) {
    head.remove(HeaderId::ContentLength);
    let mut codings: Vec<&[u8]> = head.get_all(HeaderId::ContentEncoding).collect();
    let before = codings.pop().and_then(|last| {
        let comma = memchr::memrchr(b',', last)?;
        last.get(..comma).map(<[u8]>::trim_ascii)
    });
    codings.extend(before);
    let left = codings.join(&b", "[..]);
    if left.is_empty() {
        head.remove(HeaderId::ContentEncoding);
    } else {
        head.set(HeaderId::ContentEncoding, &left);
    }
}

/// Adds a coding to those that the client accepts, at the end.
fn advertise(head: &mut Head, coding: ContentCoding) {
    let coding = coding.name().as_bytes();
    let values = head.get_all(HeaderId::AcceptEncoding);
    let entries = values.flat_map(|value| value.split(|byte| *byte == b','));
    let mut accepted: Vec<&[u8]> = entries
        .map(<[u8]>::trim_ascii)
        .filter(|entry| {
            let name = entry.split(|byte| *byte == b';').next().unwrap_or_default();
            !entry.is_empty() && !name.trim_ascii().eq_ignore_ascii_case(coding)
        })
        .collect();
    accepted.push(coding);
    let joined = accepted.join(&b',');
    head.set(HeaderId::AcceptEncoding, &joined);
}

/// Decodes a body.
pub struct Decompressor {
    decoder: Decoder,
    /// More may come of what was taken.
    more: bool,
    read: u64,
    written: u64,
    max_ratio: u64,
    /// Whose fault a wrong body is.
    blame: fn(Fault) -> Failure,
    metrics: Arc<DecompressorMetrics>,
}

impl Decompressor {
    fn new(
        own: &Decompression,
        direction: &DecompressionDirection,
        decoder: Decoder,
        blame: fn(Fault) -> Failure,
    ) -> Self {
        Self {
            decoder,
            more: false,
            read: 0,
            written: 0,
            max_ratio: own.algorithm.max_ratio,
            blame,
            metrics: direction.metrics.clone(),
        }
    }

    pub(super) fn has_more(&self) -> bool {
        self.more
    }

    pub(super) fn step(&mut self, input: &mut Bytes) -> Result<Bytes, Failure> {
        let step = self.decoder.step(input);
        let step = step.map_err(|_| (self.blame)(Fault::InvalidCoding))?;
        if step.read == 0 && step.output.is_empty() && !input.is_empty() {
            // It would stay so.
            return Err((self.blame)(Fault::InvalidCoding));
        }
        input.advance(step.read.min(input.len()));
        self.more = step.output.len() >= ROOM;
        let (read, written) = (step.read as u64, step.output.len() as u64);
        self.metrics.total_compressed_bytes.inc_by(read);
        self.metrics.total_uncompressed_bytes.inc_by(written);
        self.read = self.read.saturating_add(read);
        self.written = self.written.saturating_add(written);
        let most = self.read.saturating_mul(self.max_ratio).max(FREE);
        if self.written > most {
            return Err((self.blame)(Fault::CodingRatio));
        }
        Ok(body::piece(step.output))
    }

    pub(super) fn finish(&mut self) -> Result<Bytes, Failure> {
        match self.decoder.is_ended() || self.read == 0 {
            true => Ok(Bytes::new()),
            false => Err((self.blame)(Fault::InvalidCoding)),
        }
    }
}
