//! Bodies out: framed as the head declared, never more and never less.

use bytes::Bytes;

use super::Out;
use super::encode::{self, BodyFraming, Spelling};
use crate::message::fault::Fault;
use crate::message::head::Head;

/// Writes one body.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::http) enum BodyEncoder {
    /// No head was written yet.
    #[default]
    Idle,
    /// None may follow; what comes is dropped (the answer to HEAD, 204, 304).
    Dropped,
    /// So many bytes are owed.
    Length(u64),
    Chunked,
    /// Until close, or opaque.
    Raw,
    Done,
}

impl BodyEncoder {
    pub(super) fn new(framing: BodyFraming) -> Self {
        match framing {
            BodyFraming::None | BodyFraming::Described => Self::Dropped,
            BodyFraming::Length(length) => Self::Length(length),
            BodyFraming::Chunked => Self::Chunked,
            BodyFraming::UntilClose => Self::Raw,
            // Opaque bytes may follow only once the other side agreed.
            BodyFraming::Tunnel => Self::Done,
        }
    }

    pub fn is_done(self) -> bool {
        self == Self::Done
    }

    /// Bytes of a body of known length that are still to be written.
    pub fn owed(self) -> Option<u64> {
        match self {
            Self::Length(owed) => Some(owed),
            _ => None,
        }
    }

    /// `count` of the bytes that are [`owed`](Self::owed) were written elsewhere.
    pub fn passed(&mut self, count: u64) {
        if let Self::Length(owed) = self {
            *owed = owed.saturating_sub(count);
        }
    }

    pub fn data(&mut self, data: Bytes, out: &mut Out) -> Result<(), Fault> {
        if data.is_empty() {
            return Ok(());
        }
        match self {
            Self::Dropped => {}
            Self::Raw => out.slice(data),
            Self::Length(left) => {
                *left = left
                    .checked_sub(data.len() as u64)
                    .ok_or(Fault::BodyTooLong)?;
                out.slice(data);
            }
            Self::Chunked => {
                chunk_head(data.len(), out);
                out.slice(data);
                out.copy(b"\r\n");
            }
            Self::Idle | Self::Done => return Err(Fault::BodyTooLong),
        }
        Ok(())
    }

    pub fn end(
        &mut self,
        trailers: Option<&Head>,
        spelling: Spelling,
        out: &mut Out,
    ) -> Result<(), Fault> {
        match (*self, trailers) {
            (Self::Length(1..), _) => return Err(Fault::BodyTooShort),
            (Self::Chunked, Some(trailers)) => encode::trailers(trailers, spelling, out),
            (Self::Chunked, None) => out.copy(b"0\r\n\r\n"),
            _ => {}
        }
        *self = Self::Done;
        Ok(())
    }
}

fn chunk_head(len: usize, out: &mut Out) {
    const DIGITS: usize = 16;
    let mut text = *b"0000000000000000\r\n";
    let mut left = len;
    let mut zeros = DIGITS;
    for place in text.iter_mut().take(DIGITS).rev() {
        if left == 0 {
            break;
        }
        *place = hex(left);
        left >>= 4;
        zeros = zeros.saturating_sub(1);
    }
    out.copy(text.split_at(zeros).1);
}

/// The lowest four bits as a digit.
fn hex(bits: usize) -> u8 {
    match (bits & 15) as u8 {
        low @ ..=9 => b'0' | low,
        high => high.wrapping_add(b'a' - 10),
    }
}
