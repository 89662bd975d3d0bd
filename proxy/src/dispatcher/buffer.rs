//! Per-worker pool of byte buffers.
//!
//! Buffers belong to work in flight, not to connections: a path takes one when its socket is
//! readable and puts it back when nothing is left in it, so ten thousand idle connections hold
//! none. Two sizes: one that holds a header block or exactly one TLS record, and one for bulk.
//! Two kinds: `BytesMut`, whose slices may outlive the read (HTTP), and `Block`, initialised
//! memory that stays in one place (TLS records, the L4 relay).
//!
//! The pool is an `Rc` on purpose: it is used by one worker only, so it needs no locks.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::ops::{Deref, DerefMut};
use std::rc::Rc;

use bytes::{Buf, BufMut, BytesMut};

/// Bytes in a small buffer: one TLS record at its largest (5 + 2^14 + 256) or a block of heads.
pub const SMALL: usize = 17 * 1024;

/// Bytes in a bulk buffer: 128 KiB of plaintext as eight TLS records, with slack for queued
/// handshake messages that rustls puts in front of them.
pub const BULK: usize = 132 * 1024;

/// Bytes of every buffer before the first that is used. The allocator's large pieces begin with a
/// page, and so does the memory into which rustls copies a record, behind its header of five bytes:
/// `rep movsb` from the start of a page to just behind the start of another takes some processors
/// (AMD's, with glibc's choice of that instruction) 28 times as long.
const SKEW: usize = 64;

/// Buffers remembered while slices of them live on.
const LENT: usize = 16;

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

    const fn allocated(self) -> usize {
        self.bytes().saturating_add(SKEW)
    }
}

/// Initialised memory of [`SMALL`] or [`BULK`] bytes; returned to its pool when dropped.
pub struct Block {
    memory: Box<[u8]>,
    pool: Pool,
}

impl Deref for Block {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.memory.get(SKEW..).unwrap_or_default()
    }
}

impl DerefMut for Block {
    fn deref_mut(&mut self) -> &mut [u8] {
        self.memory.get_mut(SKEW..).unwrap_or_default()
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        let size = self.len();
        let memory = std::mem::take(&mut self.memory);
        let inner = &*self.pool.0;
        inner.out.set(inner.out.get().saturating_sub(1));
        match size {
            SMALL => keep(&inner.small_blocks, inner.limits.small, memory),
            BULK => keep(&inner.bulk_blocks, inner.limits.bulk, memory),
            _ => {}
        }
    }
}

/// How many idle buffers of each kind and size a pool keeps; more are freed when they come back.
#[derive(Clone, Copy, Debug)]
pub struct BufferLimits {
    pub small: usize,
    pub bulk: usize,
}

impl Default for BufferLimits {
    fn default() -> Self {
        BufferLimits { small: 64, bulk: 8 }
    }
}

/// A handle on the worker's pool; clones share it.
#[derive(Clone, Default)]
pub struct Pool(Rc<Inner>);

#[derive(Default)]
struct Inner {
    limits: BufferLimits,
    small: RefCell<Vec<BytesMut>>,
    bulk: RefCell<Vec<BytesMut>>,
    /// Given back while slices of them were still referenced.
    lent: RefCell<VecDeque<BytesMut>>,
    small_blocks: RefCell<Vec<Box<[u8]>>>,
    bulk_blocks: RefCell<Vec<Box<[u8]>>>,
    out: Cell<usize>,
}

impl Pool {
    pub fn new(limits: BufferLimits) -> Self {
        Pool(Rc::new(Inner {
            limits,
            ..Inner::default()
        }))
    }

    /// An empty buffer with at least [`SMALL`] bytes of capacity.
    pub fn take(&self) -> BytesMut {
        let pooled = self.pooled(&self.0.small);
        skewed(pooled.unwrap_or_else(|| BytesMut::with_capacity(Size::Small.allocated())))
    }

    /// An empty buffer with at least [`BULK`] bytes of capacity.
    pub fn take_bulk(&self) -> BytesMut {
        let pooled = self.pooled(&self.0.bulk);
        skewed(pooled.unwrap_or_else(|| BytesMut::with_capacity(Size::Bulk.allocated())))
    }

    /// Gives a buffer back. What it holds is dropped. A buffer whose memory is still shared with
    /// slices (a head may outlive the read that brought it) is used again once they are
    /// gone; of such buffers only the latest are remembered.
    pub fn put(&self, mut buffer: BytesMut) {
        buffer.clear();
        if let Err(buffer) = self.sort(buffer) {
            let mut lent = self.0.lent.borrow_mut();
            if lent.len() == LENT {
                lent.pop_front();
            }
            lent.push_back(buffer);
        }
    }

    fn pooled(&self, list: &RefCell<Vec<BytesMut>>) -> Option<BytesMut> {
        let pooled = list.borrow_mut().pop();
        if pooled.is_some() {
            return pooled;
        }
        // The oldest first, whose slices are most likely gone.
        let mut lent = self.0.lent.borrow_mut();
        for _ in 0..lent.len() {
            if let Err(still) = self.sort(lent.pop_front()?) {
                lent.push_back(still);
            }
            let back = list.borrow_mut().pop();
            if back.is_some() {
                return back;
            }
        }
        None
    }

    /// To the buffers of its size; an `Err` is still shared.
    fn sort(&self, mut buffer: BytesMut) -> Result<(), BytesMut> {
        let inner = &*self.0;
        // The larger class first: a bulk buffer would satisfy the smaller request too.
        if buffer.try_reclaim(Size::Bulk.allocated()) {
            keep(&inner.bulk, inner.limits.bulk, buffer);
        } else if buffer.try_reclaim(Size::Small.allocated()) {
            keep(&inner.small, inner.limits.small, buffer);
        } else {
            return Err(buffer);
        }
        Ok(())
    }

    /// Keeps none of the idle ones.
    pub fn forget(&self) {
        let inner = &*self.0;
        for list in [&inner.small, &inner.bulk] {
            list.take();
        }
        inner.lent.take();
        for list in [&inner.small_blocks, &inner.bulk_blocks] {
            list.take();
        }
    }

    /// A block with arbitrary content.
    pub fn block(&self, size: Size) -> Block {
        let list = match size {
            Size::Small => &self.0.small_blocks,
            Size::Bulk => &self.0.bulk_blocks,
        };
        let pooled = list.borrow_mut().pop();
        self.0.out.set(self.0.out.get().saturating_add(1));
        Block {
            memory: pooled.unwrap_or_else(|| vec![0; size.allocated()].into_boxed_slice()),
            pool: self.clone(),
        }
    }

    /// Blocks in use.
    pub fn blocks_in_use(&self) -> usize {
        self.0.out.get()
    }
}

fn skewed(mut buffer: BytesMut) -> BytesMut {
    buffer.put_bytes(0, SKEW);
    buffer.advance(SKEW);
    buffer
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
    fn a_pool_that_forgets_holds_nothing() {
        let pool = Pool::default();
        pool.put(pool.take());
        pool.put(pool.take_bulk());
        drop((pool.block(Size::Small), pool.block(Size::Bulk)));
        let out = pool.block(Size::Small);
        pool.forget();
        let inner = &pool.0;
        assert!(inner.small.borrow().is_empty() && inner.bulk.borrow().is_empty());
        assert!(inner.small_blocks.borrow().is_empty() && inner.bulk_blocks.borrow().is_empty());
        assert_eq!(pool.blocks_in_use(), 1);
        drop(out);
        assert_eq!(pool.blocks_in_use(), 0);
    }

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
        assert_ne!(pool.take().as_ptr(), slice.as_ptr());
        assert_eq!(&slice[..], b"head");
    }

    #[test]
    fn a_lent_buffer_is_used_again_once_its_slices_are_gone() {
        let pool = Pool::default();
        let mut buffer = pool.take();
        let address = buffer.as_ptr();
        buffer.extend_from_slice(b"head");
        let slice = buffer.split().freeze();
        pool.put(buffer);
        drop(slice);
        let again = pool.take();
        assert_eq!((again.as_ptr(), again.capacity() >= SMALL), (address, true));
        assert!(pool.0.lent.borrow().is_empty());
    }

    #[test]
    fn few_lent_buffers_are_remembered() {
        let pool = Pool::default();
        let mut slices = Vec::new();
        for _ in 0..3 * LENT {
            let mut buffer = pool.take();
            buffer.extend_from_slice(b"head");
            slices.push(buffer.split().freeze());
            pool.put(buffer);
        }
        assert_eq!(pool.0.lent.borrow().len(), LENT);
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
        let pool = Pool::new(BufferLimits { small: 1, bulk: 1 });
        let blocks: Vec<_> = (0..3).map(|_| pool.block(Size::Small)).collect();
        assert_eq!(pool.blocks_in_use(), 3);
        drop(blocks);
        assert_eq!(pool.blocks_in_use(), 0);
        assert_eq!(pool.0.small_blocks.borrow().len(), 1);
    }
}
