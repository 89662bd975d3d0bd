//! What waits to be written: copied pieces and shared slices, in order, ready for `writev`.

use std::collections::VecDeque;
use std::io::IoSlice;
use std::ops::Range;

use bytes::{Buf, Bytes};

use crate::bug;

/// Slices up to this many bytes are copied into the scratch buffer, next to adjacent pieces.
/// Measured on a stream socket: two more entries in `writev` cost 250 to 300 ns, a warm copy breaks
/// even at 8 KiB.
pub(super) const COPY_MAX: usize = 4 * 1024;

/// Consumed scratch beyond this many bytes is freed even while more is queued.
const COMPACT: usize = 32 * 1024;
/// Scratch capacity kept when everything was written.
const KEEP: usize = 16 * 1024;

/// Output of a codec. Implements [`Buf`], so `write_all_buf`, `write_buf` and
/// `chunks_vectored` work on it.
#[derive(Debug, Default)]
pub struct Out {
    scratch: Vec<u8>,
    /// Of the scratch, what is already written.
    written: usize,
    /// Slices in order, each with the place in the scratch where it comes in between.
    slices: VecDeque<(usize, Bytes)>,
    remaining: usize,
}

impl Out {
    pub fn new() -> Self {
        Self::default()
    }

    #[inline]
    pub fn is_empty(&self) -> bool {
        self.remaining == 0
    }

    /// Bytes that wait.
    #[inline]
    pub fn len(&self) -> usize {
        self.remaining
    }

    /// All that waits, when it is one segment.
    #[inline]
    pub fn only(&self) -> Option<&[u8]> {
        let chunk = self.chunk();
        (chunk.len() == self.remaining).then_some(chunk)
    }

    /// Discards what is queued.
    pub fn clear(&mut self) {
        self.slices.clear();
        self.remaining = 0;
        self.reset();
    }

    /// Copies.
    #[inline]
    pub fn copy(&mut self, bytes: &[u8]) {
        self.scratch.extend_from_slice(bytes);
        self.remaining = self.remaining.saturating_add(bytes.len());
    }

    /// Copies several pieces, one after the other.
    #[inline]
    pub(super) fn copy_all(&mut self, pieces: &[&[u8]]) {
        for piece in pieces {
            self.copy(piece);
        }
    }

    /// Takes a slice without copying, unless it is small.
    #[inline]
    pub fn slice(&mut self, bytes: Bytes) {
        if bytes.len() <= COPY_MAX {
            self.copy(&bytes);
        } else {
            self.remaining = self.remaining.saturating_add(bytes.len());
            self.slices.push_back((self.scratch.len(), bytes));
        }
    }

    /// As [`Out::slice`] for a part of shared bytes; the reference count is only touched when the
    /// part is not copied.
    #[inline]
    pub(super) fn shared(&mut self, bytes: &Bytes, range: Range<usize>) {
        match bytes.get(range.clone()) {
            Some(part) if part.len() <= COPY_MAX => self.copy(part),
            Some(_) => self.slice(bytes.slice(range)),
            None => bug::failed("a part of a head lies outside of its bytes"),
        }
    }

    /// Copies in lower case.
    pub(super) fn copy_lower(&mut self, bytes: &[u8]) {
        let start = self.scratch.len();
        self.copy(bytes);
        let (_, copied) = self.scratch.split_at_mut(start);
        copied.make_ascii_lowercase();
    }

    /// Reserves capacity for what will be copied.
    #[inline]
    pub(super) fn reserve(&mut self, additional: usize) {
        self.scratch.reserve(additional);
    }

    #[inline]
    fn scratch(&self, from: usize, to: usize) -> &[u8] {
        self.scratch.get(from..to).unwrap_or_else(|| {
            bug::failed("output between two slices lies outside of the scratch");
            &[]
        })
    }

    fn reset(&mut self) {
        self.scratch.clear();
        self.scratch.shrink_to(KEEP);
        self.written = 0;
    }
}

impl Buf for Out {
    fn remaining(&self) -> usize {
        self.remaining
    }

    #[inline]
    fn chunk(&self) -> &[u8] {
        match self.slices.front() {
            None => self.scratch(self.written, self.scratch.len()),
            Some((at, bytes)) if *at == self.written => bytes,
            Some((at, _)) => self.scratch(self.written, *at),
        }
    }

    fn chunks_vectored<'a>(&'a self, into: &mut [IoSlice<'a>]) -> usize {
        let mut from = self.written;
        let slices = self.slices.iter().flat_map(|(at, bytes)| {
            let before = self.scratch(from, *at);
            from = *at;
            [before, bytes]
        });
        let last = self.slices.back().map_or(self.written, |(at, _)| *at);
        let pieces = slices.chain([self.scratch(last, self.scratch.len())]);
        let mut count = 0;
        let pieces = pieces.filter(|piece| !piece.is_empty());
        for (slot, piece) in into.iter_mut().zip(pieces) {
            *slot = IoSlice::new(piece);
            count = usize::saturating_add(count, 1);
        }
        count
    }

    fn advance(&mut self, mut count: usize) {
        if count > self.remaining {
            bug::failed("more was written than waited");
        }
        self.remaining = self.remaining.saturating_sub(count);
        if self.remaining == 0 {
            self.slices.clear();
            return self.reset();
        }
        while let Some((at, bytes)) = self.slices.front_mut() {
            let step = count.min(at.saturating_sub(self.written));
            self.written = self.written.saturating_add(step);
            count = count.saturating_sub(step);
            if count < bytes.len() {
                bytes.advance(count);
                count = 0;
                break;
            }
            count = count.saturating_sub(bytes.len());
            self.slices.pop_front();
        }
        self.written = self.written.saturating_add(count).min(self.scratch.len());
        if self.written > COMPACT {
            self.scratch.drain(..self.written);
            for (at, _) in &mut self.slices {
                *at = at.saturating_sub(self.written);
            }
            self.written = 0;
        }
    }
}
