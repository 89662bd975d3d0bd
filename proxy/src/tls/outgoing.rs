//! The outgoing record buffer of a connection: a pooled block while it has bytes.

use std::io;

use rustls::Error;

use super::live::PeerConnection;
use crate::dispatcher::buffer::{Block, Pool, Size};
use crate::socket;

/// Capacity for one encoded chunk of the handshake: a record and its overhead.
pub(super) const MAX_RECORD: usize = 5 + 16384 + 256;

/// Control records queued behind application data that the peer does not read.
const MAX_OVERFLOW: usize = 64 * 1024;

/// Ciphertext on its way out.
pub(super) struct Outgoing {
    pool: Pool,
    block: Option<Block>,
    start: usize,
    end: usize,
    /// Records queued by reading while the block was full. Reading must not wait for the block:
    /// with both peers writing, neither would ever read.
    overflow: Vec<u8>,
}

impl Outgoing {
    pub(super) fn new(pool: Pool) -> Self {
        Outgoing {
            pool,
            block: None,
            start: 0,
            end: 0,
            overflow: Vec::new(),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.block.is_none()
    }

    /// Whether another [`MAX_RECORD`] can be appended.
    pub(super) fn has_room(&self) -> bool {
        self.overflow.len().saturating_add(MAX_RECORD) <= MAX_OVERFLOW
    }

    /// Appends what `fill` writes into at least `most` bytes of spare capacity.
    ///
    /// # Errors
    /// When `fill` fails, which would be a bug.
    pub(super) fn append(
        &mut self,
        most: usize,
        fill: impl FnOnce(&mut [u8]) -> Option<usize>,
    ) -> Result<(), Error> {
        let refused = || Error::General("TLS record buffer overflow".into());
        let needed = self.end.saturating_add(most);
        if !self.overflow.is_empty() || needed > Size::Bulk.bytes() {
            let held = self.overflow.len();
            self.overflow.resize(held.saturating_add(most), 0);
            let written = fill(self.overflow.split_at_mut(held).1);
            self.overflow
                .truncate(held.saturating_add(written.unwrap_or(0)));
            return written.map(drop).ok_or_else(refused);
        }
        let room = self.room(needed).ok_or_else(refused)?;
        let written = fill(room).ok_or_else(refused)?;
        self.end = self.end.saturating_add(written);
        if self.start == self.end {
            self.advance();
        }
        Ok(())
    }

    /// What follows the ciphertext in a block of at least `needed` bytes.
    fn room(&mut self, needed: usize) -> Option<&mut [u8]> {
        if self.block.as_ref().is_none_or(|block| block.len() < needed) {
            let size = if needed <= Size::Small.bytes() {
                Size::Small
            } else {
                Size::Bulk
            };
            let mut larger = self.pool.block(size);
            if let Some(old) = &self.block {
                let held = old.get(..self.end)?;
                larger.get_mut(..self.end)?.copy_from_slice(held);
            }
            self.block = Some(larger);
        }
        let end = self.end;
        self.block.as_mut()?.get_mut(end..)
    }

    /// Sends what fits; `WouldBlock` when something is left.
    pub(super) fn try_send(&mut self, link: &PeerConnection) -> io::Result<()> {
        while let Some(block) = &self.block {
            let left = block.get(self.start..self.end).unwrap_or_default();
            let sent = socket::try_write(&link.tcp, left)?;
            self.start = self.start.saturating_add(sent);
            if self.start == self.end {
                self.advance();
            }
        }
        Ok(())
    }

    /// The block is sent: on to the overflow, or hold nothing.
    fn advance(&mut self) {
        (self.start, self.end) = (0, 0);
        let next = self.overflow.len().min(Size::Bulk.bytes());
        let Some(block) = self
            .block
            .as_mut()
            .filter(|block| next > 0 && block.len() >= next)
        else {
            self.block = (next > 0).then(|| self.pool.block(Size::Bulk));
            if next > 0 {
                self.advance();
            }
            return;
        };
        let (to, _) = block.split_at_mut(next);
        to.copy_from_slice(self.overflow.split_at(next).0);
        self.end = next;
        self.overflow = Vec::new();
    }
}
