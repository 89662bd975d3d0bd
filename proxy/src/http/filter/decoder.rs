//! The decoders of content codings, a bounded step at a time: a few bytes may decode to gigabytes. A
//! decoder's own memory is its window, which is bounded: 32 KiB for gzip, 16 MiB for brotli, 8 MiB for
//! zstd (RFC 9659).

use brotli::enc::StandardAlloc;
use brotli::{BrotliDecompressStream, BrotliResult, BrotliState};
use zlib_rs::{Inflate, InflateFlush, Status};
use zstd::stream::raw::{DParameter, Decoder as ZstdDecoder, Operation};

use crate::config::filter::{ContentCoding, DecompressionLibrary};

/// The most bytes that come out of a step.
pub const ROOM: usize = 16 * 1024;
/// The binary logarithm of zstd's largest window.
const ZSTD_WINDOW: u32 = 23;

type BrotliDecoder = BrotliState<StandardAlloc, StandardAlloc, StandardAlloc>;

/// Decodes one body. After an error it must not be used further.
pub struct Decoder {
    state: DecoderState,
    /// Of gzip, with what asks for its header.
    window_bits: u8,
    /// The coded data is complete.
    ended: bool,
}

enum DecoderState {
    Gzip(Box<Inflate>),
    Brotli(Box<BrotliDecoder>),
    Zstd(Box<ZstdDecoder<'static>>),
}

/// The result of a step.
pub struct DecoderStep {
    /// Bytes of the input that were taken.
    pub read: usize,
    pub output: Vec<u8>,
}

/// The bytes are not in the coding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidCoding;

impl Decoder {
    /// `None`: there is no memory for it.
    pub fn new(library: &DecompressionLibrary) -> Option<Self> {
        // Beyond 15 zlib takes it as the wish for gzip's header.
        let window_bits = library.window_bits.saturating_add(16);
        let state = match library.coding {
            ContentCoding::Gzip => DecoderState::Gzip(Box::new(Inflate::new(true, window_bits))),
            ContentCoding::Brotli => {
                let alloc = StandardAlloc::default;
                // Strict: without the large windows that are no part of RFC 7932.
                DecoderState::Brotli(Box::new(BrotliDecoder::new_strict(
                    alloc(),
                    alloc(),
                    alloc(),
                )))
            }
            ContentCoding::Zstd => {
                let mut decoder = ZstdDecoder::new().ok()?;
                decoder
                    .set_parameter(DParameter::WindowLogMax(ZSTD_WINDOW))
                    .ok()?;
                DecoderState::Zstd(Box::new(decoder))
            }
        };
        Some(Self {
            state,
            window_bits,
            ended: false,
        })
    }

    /// Whether what went in is complete.
    pub fn is_ended(&self) -> bool {
        self.ended
    }

    /// Takes some of `input`. When as much came out as may, more may come of no further input.
    ///
    /// # Errors
    /// When the input is not in the coding, or goes on after its end.
    pub fn step(&mut self, input: &[u8]) -> Result<DecoderStep, InvalidCoding> {
        let mut output = vec![0; ROOM];
        let (read, written) = match &mut self.state {
            _ if input.is_empty() && self.ended => (0, 0),
            DecoderState::Gzip(inflate) => {
                // Another member may follow (RFC 1952 2.2).
                if self.ended {
                    **inflate = Inflate::new(true, self.window_bits);
                }
                let before = (inflate.total_in(), inflate.total_out());
                let status = inflate.decompress(input, &mut output, InflateFlush::NoFlush);
                self.ended = status.map_err(|_| InvalidCoding)? == Status::StreamEnd;
                let count = |now: u64, before: u64| usize::try_from(now.saturating_sub(before));
                let read = count(inflate.total_in(), before.0);
                let written = count(inflate.total_out(), before.1);
                (read.unwrap_or(input.len()), written.unwrap_or(ROOM))
            }
            DecoderState::Brotli(_) if self.ended => return Err(InvalidCoding),
            DecoderState::Brotli(state) => {
                let (mut left, mut read) = (input.len(), 0);
                let (mut room, mut written, mut total) = (ROOM, 0, 0);
                let result = BrotliDecompressStream(
                    &mut left,
                    &mut read,
                    input,
                    &mut room,
                    &mut written,
                    &mut output,
                    &mut total,
                    state,
                );
                match result {
                    BrotliResult::ResultSuccess => self.ended = true,
                    BrotliResult::NeedsMoreInput | BrotliResult::NeedsMoreOutput => {}
                    BrotliResult::ResultFailure => return Err(InvalidCoding),
                }
                (read, written)
            }
            DecoderState::Zstd(decoder) => {
                let status = decoder.run_on_buffers(input, &mut output);
                let status = status.map_err(|_| InvalidCoding)?;
                self.ended = status.remaining == 0;
                (status.bytes_read, status.bytes_written)
            }
        };
        output.truncate(written);
        Ok(DecoderStep { read, output })
    }
}

#[cfg(test)]
mod tests {
    use zlib_rs::DeflateConfig;

    use super::*;
    use crate::config::filter::{CompressionLibrary, ZstdParameters};
    use crate::http::filter::encoder::Encoder;

    fn coded(plain: &[u8], coding: ContentCoding) -> Vec<u8> {
        let library = match coding {
            ContentCoding::Gzip => CompressionLibrary::Gzip(DeflateConfig {
                window_bits: 15 + 16,
                ..DeflateConfig::new(6)
            }),
            ContentCoding::Brotli => CompressionLibrary::Brotli(Box::default()),
            ContentCoding::Zstd => CompressionLibrary::Zstd(ZstdParameters {
                level: 3,
                checksum: true,
                strategy: None,
            }),
        };
        let mut encoder = Encoder::new(&library).unwrap();
        let mut coded = encoder.write(plain).unwrap();
        coded.extend(encoder.finish().unwrap());
        coded
    }

    fn decoder(coding: ContentCoding) -> Decoder {
        let library = DecompressionLibrary {
            coding,
            max_ratio: 100,
            window_bits: 15,
        };
        Decoder::new(&library).unwrap()
    }

    /// Decodes pieces of `size` bytes; whether it was complete.
    fn decode(
        coded: &[u8],
        size: usize,
        coding: ContentCoding,
    ) -> Result<(Vec<u8>, bool), InvalidCoding> {
        let mut decoder = decoder(coding);
        let mut plain = Vec::new();
        for mut piece in coded.chunks(size) {
            loop {
                let step = decoder.step(piece)?;
                assert!(step.output.len() <= ROOM);
                piece = &piece[step.read..];
                let is_full = step.output.len() == ROOM;
                plain.extend(step.output);
                if piece.is_empty() && !is_full {
                    break;
                }
            }
        }
        Ok((plain, decoder.is_ended()))
    }

    #[test]
    fn bodies_are_decoded_however_they_are_cut() {
        let plain: Vec<u8> = (0..200_000u32).map(|at| ((at / 7) ^ at) as u8).collect();
        for coding in ContentCoding::ALL {
            let coded = coded(&plain, coding);
            for size in [1, 1000, usize::MAX] {
                assert_eq!(decode(&coded, size, coding), Ok((plain.clone(), true)));
            }
            let (start, is_whole) = decode(&coded[..coded.len() - 1], 1000, coding).unwrap();
            assert!(!is_whole && plain.starts_with(&start), "{coding:?}");
            let is_whole = |coded: &[u8]| decode(coded, 7, coding).is_ok_and(|(_, whole)| whole);
            assert!(!is_whole(&[&coded[..], b"x"].concat()));
            assert!(!is_whole(b"not coded at all"));
        }
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..300), cut in 0usize..200) {
            for coding in ContentCoding::ALL {
                let _ = decode(&bytes, 50, coding);
                let mut damaged = coded(&bytes, coding);
                let at = cut % damaged.len();
                damaged[at] ^= 0x55;
                let _ = decode(&damaged, 50, coding);
            }
        }
    }
}
