//! Per-worker pool of byte buffers.
//!
//! Buffers belong to work in flight, not to connections: a path takes one when its socket is
//! readable and puts it back when nothing is left in it, so ten thousand idle connections hold
//! none. Two sizes: one that holds a header block or exactly one TLS record, and one for bulk.
//! Two kinds: `BytesMut`, whose slices may outlive the read (HTTP), and `Block`, initialised
//! memory that stays in one place (TLS records, the L4 relay).
//!
//! The pool is an `Rc` on purpose: it never leaves its worker, so it needs no locks.

use std::cell::{Cell, RefCell};
use std::ops::{Deref, DerefMut};
use std::rc::Rc;

use bytes::BytesMut;

/// Bytes in a small buffer: one TLS record at its largest (5 + 2^14 + 256) or a block of heads.
pub const SMALL: usize = 17 * 1024;

/// Bytes in a bulk buffer: 128 KiB of plaintext as eight TLS records, with slack for queued
/// handshake messages that rustls puts in front of them.
pub const BULK: usize = 132 * 1024;

/// Which class of buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Size {
    Small,
    Bulk,
}

impl Size {
    pub const fn bytes(self) -> usize {
        match self {
            Size::Small => SMALL,
            Size::Bulk => BULK,
        }
    }
}

/// Initialised memory of [`SMALL`] or [`BULK`] bytes; goes back to its pool when dropped.
pub struct Block {
    memory: Box<[u8]>,
    pool: Pool,
}

impl Deref for Block {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.memory
    }
}

impl DerefMut for Block {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.memory
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        let memory = std::mem::take(&mut self.memory);
        let inner = &*self.pool.0;
        inner.out.set(inner.out.get() - 1);
        match memory.len() {
            SMALL => keep(&inner.small_blocks, inner.limits.small, memory),
            BULK => keep(&inner.bulk_blocks, inner.limits.bulk, memory),
            _ => {}
        }
    }
}

/// How many idle buffers of each kind and size a pool keeps; more are freed when they come back.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    pub small: usize,
    pub bulk: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Limits { small: 64, bulk: 8 }
    }
}

/// A handle on the worker's pool; clones share it.
#[derive(Clone, Default)]
pub struct Pool(Rc<Inner>);

#[derive(Default)]
struct Inner {
    limits: Limits,
    small: RefCell<Vec<BytesMut>>,
    bulk: RefCell<Vec<BytesMut>>,
    small_blocks: RefCell<Vec<Box<[u8]>>>,
    bulk_blocks: RefCell<Vec<Box<[u8]>>>,
    out: Cell<usize>,
}

impl Pool {
    pub fn new(limits: Limits) -> Self {
        Pool(Rc::new(Inner {
            limits,
            ..Inner::default()
        }))
    }

    /// An empty buffer with at least [`SMALL`] bytes of capacity.
    pub fn take(&self) -> BytesMut {
        let pooled = self.0.small.borrow_mut().pop();
        pooled.unwrap_or_else(|| BytesMut::with_capacity(SMALL))
    }

    /// An empty buffer with at least [`BULK`] bytes of capacity.
    pub fn take_bulk(&self) -> BytesMut {
        let pooled = self.0.bulk.borrow_mut().pop();
        pooled.unwrap_or_else(|| BytesMut::with_capacity(BULK))
    }

    /// Gives a buffer back. What it holds is dropped. A buffer whose memory is still shared with
    /// slices that live on is let go of instead of kept: it returns to the allocator with them.
    pub fn put(&self, mut buffer: BytesMut) {
        buffer.clear();
        let inner = &*self.0;
        // The larger class first: a bulk buffer would satisfy the smaller request too.
        if buffer.try_reclaim(BULK) {
            keep(&inner.bulk, inner.limits.bulk, buffer);
        } else if buffer.try_reclaim(SMALL) {
            keep(&inner.small, inner.limits.small, buffer);
        }
    }

    /// A block with arbitrary content.
    pub fn block(&self, size: Size) -> Block {
        let list = match size {
            Size::Small => &self.0.small_blocks,
            Size::Bulk => &self.0.bulk_blocks,
        };
        let pooled = list.borrow_mut().pop();
        self.0.out.set(self.0.out.get() + 1);
        Block {
            memory: pooled.unwrap_or_else(|| vec![0; size.bytes()].into_boxed_slice()),
            pool: self.clone(),
        }
    }

    /// Blocks that are out at the moment.
    pub fn blocks_in_use(&self) -> usize {
        self.0.out.get()
    }
}

fn keep<T>(list: &RefCell<Vec<T>>, limit: usize, buffer: T) {
    let mut list = list.borrow_mut();
    if list.len() < limit {
        list.push(buffer);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_come_back_by_size() {
        let pool = Pool::default();
        let small = pool.take();
        let address = small.as_ptr();
        pool.put(small);
        assert_eq!(pool.take().as_ptr(), address);

        let bulk = pool.take_bulk();
        let address = bulk.as_ptr();
        pool.put(bulk);
        assert_eq!(pool.take_bulk().as_ptr(), address);
    }

    #[test]
    fn a_buffer_with_living_slices_is_not_reused() {
        let pool = Pool::default();
        let mut buffer = pool.take();
        buffer.extend_from_slice(b"head");
        let slice = buffer.split().freeze();
        pool.put(buffer);
        assert!(pool.0.small.borrow().is_empty());
        assert_eq!(&slice[..], b"head");
    }

    #[test]
    fn a_buffer_whose_slices_are_gone_is_whole_again() {
        let pool = Pool::default();
        let mut buffer = pool.take();
        buffer.extend_from_slice(b"head");
        drop(buffer.split().freeze());
        pool.put(buffer);
        assert!(pool.take().capacity() >= SMALL);
    }

    #[test]
    fn the_pool_is_bounded() {
        let pool = Pool::new(Limits { small: 1, bulk: 1 });
        let blocks: Vec<_> = (0..3).map(|_| pool.block(Size::Small)).collect();
        assert_eq!(pool.blocks_in_use(), 3);
        drop(blocks);
        assert_eq!(pool.blocks_in_use(), 0);
        assert_eq!(pool.0.small_blocks.borrow().len(), 1);
    }
}
