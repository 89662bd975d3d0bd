//! What h2 sends: slices of HTTP bodies, or pooled blocks of a tunnel.

use bytes::{Buf, Bytes};

use crate::dispatcher::buffer::Block;

/// Bytes to be sent in DATA frames. A block returns to its pool once it is sent.
pub enum Chunk {
    Bytes(Bytes),
    Block {
        block: Block,
        start: usize,
        end: usize,
    },
}

impl From<Bytes> for Chunk {
    fn from(bytes: Bytes) -> Self {
        Chunk::Bytes(bytes)
    }
}

impl Buf for Chunk {
    fn remaining(&self) -> usize {
        match self {
            Chunk::Bytes(bytes) => bytes.len(),
            Chunk::Block { start, end, .. } => end.saturating_sub(*start),
        }
    }

    fn chunk(&self) -> &[u8] {
        match self {
            Chunk::Bytes(bytes) => bytes,
            Chunk::Block { block, start, end } => block.get(*start..*end).unwrap_or_default(),
        }
    }

    fn advance(&mut self, count: usize) {
        match self {
            Chunk::Bytes(bytes) => bytes.advance(count),
            Chunk::Block { start, .. } => *start = start.saturating_add(count),
        }
    }
}
