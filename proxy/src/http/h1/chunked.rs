//! The chunked coding, byte for byte: strict, bounded, resumable anywhere.

use bytes::{Buf, BytesMut};

use super::fields::{FieldSection, HeadScan};
use super::{BodyEvent, HeadLimits, trailers};
use crate::message::fault::Fault;
use crate::message::head::Head;

/// A size has at most this many hexadecimal digits, leading zeros included.
const MAX_SIZE_DIGITS: u8 = 16;
/// Extension bytes of one chunk, and of all chunks of a body. No application uses them, so they are
/// only bounded and dropped.
const MAX_EXTENSION: u16 = 1024;
const MAX_EXTENSIONS: u32 = 16 * 1024;
/// Blanks after one size.
const MAX_PADDING: u8 = 16;

#[derive(Debug, Default)]
pub(in crate::http) struct Chunked {
    state: State,
    /// Blanks may follow a size.
    padded: bool,
    /// Extension bytes so far.
    extensions: u32,
    progress: HeadScan,
}

#[derive(Debug)]
enum State {
    Size { value: u64, digits: u8 },
    Padding { size: u64, len: u8 },
    Extension { size: u64, len: u16 },
    SizeLf { size: u64 },
    Data { left: u64 },
    DataCr,
    DataLf,
    Trailers,
}

impl Default for State {
    fn default() -> Self {
        Self::Size {
            value: 0,
            digits: 0,
        }
    }
}

impl Chunked {
    /// Of a response: servers may pad sizes with blanks (RFC 9112 7.1.1 has them before
    /// extensions), because padding in a response cannot be used for request smuggling.
    pub fn of_response() -> Self {
        Self {
            padded: true,
            ..Self::default()
        }
    }

    /// See [`super::body::BodyDecoder::read`].
    pub fn read(
        &mut self,
        limits: &HeadLimits,
        input: &mut BytesMut,
        trailers: &mut Head,
    ) -> Result<BodyEvent, Fault> {
        let framing = self.framing(input);
        input.advance(framing?);
        match &mut self.state {
            State::Data { left } if !input.is_empty() => {
                let take = usize::try_from(*left).map_or(input.len(), |left| left.min(input.len()));
                *left = left.saturating_sub(take as u64);
                if *left == 0 {
                    self.state = State::DataCr;
                }
                Ok(BodyEvent::Data(input.split_to(take).freeze()))
            }
            State::Trailers => self.trailers(limits, input, trailers),
            _ => Ok(BodyEvent::More),
        }
    }

    /// Walks over framing bytes until data, trailers or the end of the input; returns how many.
    fn framing(&mut self, input: &[u8]) -> Result<usize, Fault> {
        for (at, &byte) in input.iter().enumerate() {
            self.state = match (&self.state, byte) {
                (State::Data { .. } | State::Trailers, _) => return Ok(at),
                (State::Size { value, digits }, _) if byte.is_ascii_hexdigit() => {
                    if *digits == MAX_SIZE_DIGITS {
                        return Err(Fault::ChunkTooLarge);
                    }
                    State::Size {
                        value: value << 4 | u64::from(hex(byte)),
                        digits: digits.saturating_add(1),
                    }
                }
                (State::Size { digits: 0, .. }, _) => return Err(Fault::InvalidChunk),
                (&State::Size { value: size, .. } | &State::Extension { size, .. }, b'\r') => {
                    State::SizeLf { size }
                }
                // Blanks before an extension, or padding that old servers write.
                (&State::Size { value: size, .. }, b' ' | b'\t') if self.padded => {
                    State::Padding { size, len: 1 }
                }
                (&State::Padding { size, len }, b' ' | b'\t') if len < MAX_PADDING => {
                    State::Padding {
                        size,
                        len: len.saturating_add(1),
                    }
                }
                (&State::Padding { size, .. }, b'\r') => State::SizeLf { size },
                (&State::Size { value: size, .. } | &State::Padding { size, .. }, b';') => {
                    State::Extension { size, len: 1 }
                }
                (&State::Extension { size, len }, b'\t' | b' '..=b'~' | 0x80..) => {
                    self.extensions = self.extensions.saturating_add(1);
                    if len == MAX_EXTENSION || self.extensions > MAX_EXTENSIONS {
                        return Err(Fault::ChunkExtensionTooLarge);
                    }
                    State::Extension {
                        size,
                        len: len.saturating_add(1),
                    }
                }
                (State::SizeLf { size: 0 }, b'\n') => State::Trailers,
                (&State::SizeLf { size }, b'\n') => State::Data { left: size },
                (State::DataCr, b'\r') => State::DataLf,
                (State::DataLf, b'\n') => State::default(),
                _ => return Err(Fault::InvalidChunk),
            };
        }
        Ok(input.len())
    }

    fn trailers(
        &mut self,
        limits: &HeadLimits,
        input: &mut BytesMut,
        head: &mut Head,
    ) -> Result<BodyEvent, Fault> {
        if self.progress.is_fresh() && input.starts_with(b"\r\n") {
            input.advance(2);
            return Ok(BodyEvent::End);
        }
        head.clear();
        if !self
            .progress
            .read(FieldSection::Trailers, limits, input, head)?
        {
            return Ok(BodyEvent::More);
        }
        trailers::sanitise(head);
        Ok(if head.is_empty() {
            BodyEvent::End
        } else {
            BodyEvent::Trailers
        })
    }
}

/// Of a hexadecimal digit, its value.
fn hex(digit: u8) -> u8 {
    match digit {
        b'0'..=b'9' => digit & 15,
        _ => (digit & 15).wrapping_add(9),
    }
}
