//! Bodies in: by length, chunked, until close. Data is handed out as slices of the read buffer.

use bytes::BytesMut;

use super::chunked::Chunked;
use super::{BodyEvent, BodyLength, HeadLimits};
use crate::message::fault::Fault;
use crate::message::head::Head;

/// Reads one body. Never hands out more than was declared.
#[derive(Debug, Default)]
pub(in crate::http) enum BodyDecoder {
    /// Nothing is (any more) to be read.
    #[default]
    Done,
    /// So many bytes are left.
    Length(u64),
    Chunked(Chunked),
    UntilClose,
}

impl BodyDecoder {
    pub fn new(length: BodyLength) -> Self {
        match length {
            BodyLength::None | BodyLength::Known(0) => Self::Done,
            BodyLength::Known(length) => Self::Length(length),
            BodyLength::Unknown => Self::Chunked(Chunked::default()),
            BodyLength::UntilClose => Self::UntilClose,
        }
    }

    /// As [`BodyDecoder::new`], of a response.
    pub fn of_response(length: BodyLength) -> Self {
        match length {
            BodyLength::Unknown => Self::Chunked(Chunked::of_response()),
            length => Self::new(length),
        }
    }

    pub fn is_done(&self) -> bool {
        matches!(self, Self::Done)
    }

    /// Bytes of a body of known length that are still to be read.
    pub fn left(&self) -> Option<u64> {
        match self {
            Self::Length(left) => Some(*left),
            Self::Done | Self::Chunked(_) | Self::UntilClose => None,
        }
    }

    /// `count` of the bytes that are [`left`](Self::left) were read elsewhere.
    pub fn passed(&mut self, count: u64) {
        if let Self::Length(left) = self {
            *left = left.saturating_sub(count);
            if *left == 0 {
                *self = Self::Done;
            }
        }
    }

    /// Reads on. Trailers go into `trailers`, which is cleared before they are written.
    pub fn read(
        &mut self,
        limits: &HeadLimits,
        input: &mut BytesMut,
        trailers: &mut Head,
    ) -> Result<BodyEvent, Fault> {
        match self {
            Self::Done => Ok(BodyEvent::End),
            Self::UntilClose | Self::Length(_) if input.is_empty() => Ok(BodyEvent::More),
            Self::UntilClose => Ok(BodyEvent::Data(input.split().freeze())),
            Self::Length(left) => {
                let take = usize::try_from(*left).map_or(input.len(), |left| left.min(input.len()));
                *left = left.saturating_sub(take as u64);
                if *left == 0 {
                    *self = Self::Done;
                }
                Ok(BodyEvent::Data(input.split_to(take).freeze()))
            }
            Self::Chunked(chunked) => {
                let event = chunked.read(limits, input, trailers)?;
                if matches!(event, BodyEvent::End | BodyEvent::Trailers) {
                    *self = Self::Done;
                }
                Ok(event)
            }
        }
    }

    /// The peer ended the connection.
    pub fn eof(&mut self) -> Result<(), Fault> {
        match self {
            Self::Done => Ok(()),
            Self::UntilClose => {
                *self = Self::Done;
                Ok(())
            }
            Self::Length(_) | Self::Chunked(_) => Err(Fault::Truncated),
        }
    }
}
