//! Kernel pipes for `splice(2)`, pooled per worker and made when first needed.
//!
//! A pipe costs two descriptors and up to half a MiB of kernel memory, so a relay takes one only
//! while it moves bulk and gives it back as soon as it is empty. When none can be made, relays
//! stay with their buffers.

use std::cell::{Cell, RefCell};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;

use rustix::pipe::{PipeFlags, SpliceFlags, fcntl_setpipe_size, pipe_with};

use crate::metrics::SpliceMetrics;

/// Bytes asked for per pipe; the kernel may grant less to a user with many pipes.
pub(crate) const WANTED: usize = 512 * 1024;
/// Bytes of a pipe as the kernel makes it.
const DEFAULT: usize = 64 * 1024;
/// Pipes a worker keeps for later.
const KEPT: usize = 16;
/// Pipes a worker has at most at a time, however many descriptors there are.
const MOST: usize = 256;

/// This worker's pipes; clones share them.
#[derive(Clone)]
pub struct Pipes(Rc<Inner>);

struct Inner {
    idle: RefCell<Vec<PipeEnds>>,
    out: Cell<usize>,
    /// In use and idle together.
    most: Cell<usize>,
    metrics: SpliceMetrics,
}

struct PipeEnds {
    read: OwnedFd,
    write: OwnedFd,
    capacity: usize,
}

/// A pipe in use. Goes back to the pool when dropped empty, and is closed otherwise.
pub struct Pipe {
    ends: Option<PipeEnds>,
    held: usize,
    /// Bytes that went in since it was taken.
    moved: u64,
    pool: Pipes,
}

impl Pipes {
    pub fn new(metrics: SpliceMetrics) -> Self {
        Self(Rc::new(Inner {
            idle: RefCell::default(),
            out: Cell::new(0),
            most: Cell::new(MOST),
            metrics,
        }))
    }

    /// Lowers how many there may be, in use and idle together.
    pub fn limit(&self, most: usize) {
        self.0.most.set(most.min(MOST));
    }

    /// A pipe, or `None` when there are no more descriptors or too many pipes.
    pub fn take(&self) -> Option<Pipe> {
        let Some(ends) = self.ends() else {
            self.0.metrics.refused.inc();
            return None;
        };
        self.0.metrics.pipes.inc();
        self.0.out.set(self.0.out.get().saturating_add(1));
        Some(Pipe {
            ends: Some(ends),
            held: 0,
            moved: 0,
            pool: self.clone(),
        })
    }

    fn ends(&self) -> Option<PipeEnds> {
        if self.0.out.get() >= self.0.most.get() {
            return None;
        }
        let pooled = self.0.idle.borrow_mut().pop();
        pooled.or_else(|| PipeEnds::new().ok())
    }

    /// Pipes in use.
    pub fn in_use(&self) -> usize {
        self.0.out.get()
    }
}

impl PipeEnds {
    fn new() -> io::Result<Self> {
        let (read, write) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
        // A refusal leaves the size as it was.
        let capacity = fcntl_setpipe_size(&write, WANTED).unwrap_or(DEFAULT);
        Ok(PipeEnds {
            read,
            write,
            capacity,
        })
    }
}

impl Pipe {
    /// Bytes inside.
    pub fn held(&self) -> usize {
        self.held
    }

    /// Moves what is there from a socket into the pipe, at most `most` bytes; `Ok(0)` is the end of
    /// the stream. Only while the pipe is empty: a full pipe and an empty socket look the same.
    ///
    /// # Errors
    /// As `splice(2)`.
    pub fn fill(&mut self, from: BorrowedFd<'_>, most: usize) -> io::Result<usize> {
        let Some(ends) = &self.ends else {
            return Err(io::ErrorKind::BrokenPipe.into());
        };
        let n = splice(from, ends.write.as_fd(), ends.capacity.min(most))?;
        self.held = self.held.saturating_add(n);
        self.moved = self.moved.saturating_add(n as u64);
        Ok(n)
    }

    /// Moves what fits from the pipe to a socket.
    ///
    /// # Errors
    /// As `splice(2)`.
    pub fn drain(&mut self, to: BorrowedFd<'_>) -> io::Result<usize> {
        let Some(ends) = &self.ends else {
            return Err(io::ErrorKind::BrokenPipe.into());
        };
        let n = splice(ends.read.as_fd(), to, self.held)?;
        self.held = self.held.saturating_sub(n);
        Ok(n)
    }
}

impl Drop for Pipe {
    fn drop(&mut self) {
        let pool = &self.pool.0;
        pool.out.set(pool.out.get().saturating_sub(1));
        pool.metrics.bytes.inc_by(self.moved);
        let mut idle = pool.idle.borrow_mut();
        let all = pool.out.get().saturating_add(idle.len());
        if self.held == 0 && idle.len() < KEPT && all < pool.most.get() {
            idle.extend(self.ends.take());
        }
    }
}

fn splice(from: BorrowedFd<'_>, to: BorrowedFd<'_>, most: usize) -> io::Result<usize> {
    let flags = SpliceFlags::MOVE | SpliceFlags::NONBLOCK;
    Ok(rustix::pipe::splice(from, None, to, None, most, flags)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Registry;

    #[test]
    fn idle_pipes_count_towards_the_limit() {
        let metrics = SpliceMetrics::new(&Registry::new().unwrap()).unwrap();
        let pipes = Pipes::new(metrics);
        pipes.limit(2);
        let (first, second) = (pipes.take().unwrap(), pipes.take().unwrap());
        assert!(pipes.take().is_none());
        drop((first, second));
        assert_eq!((pipes.in_use(), pipes.0.idle.borrow().len()), (0, 2));
        pipes.limit(1);
        drop((pipes.take().unwrap(), pipes.take()));
        assert_eq!(pipes.0.idle.borrow().len(), 1);
        pipes.limit(0);
        assert!(pipes.take().is_none());
    }
}
