//! Returns memory of closed connections to the system.
//!
//! The allocator returns pages only when it allocates; after a burst of connections each worker
//! calls it to return free pages.
#![allow(unsafe_code)]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// Fewer connections than this leave too little memory behind.
const BURST: usize = 256;

/// A worker's open connections.
#[derive(Clone, Default)]
pub struct ConnectionCount(Arc<AtomicUsize>);

/// One open connection; counted until it is dropped.
pub struct Counted(Arc<AtomicUsize>);

impl ConnectionCount {
    pub fn count_one(&self) -> Counted {
        self.0.fetch_add(1, Relaxed);
        Counted(self.0.clone())
    }

    pub fn open(&self) -> usize {
        self.0.load(Relaxed)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

/// A worker's state between two checks.
#[derive(Default)]
pub struct TrimPolicy {
    most: usize,
}

impl TrimPolicy {
    /// Whether most of the connections since the last burst are closed. Call about once a second.
    pub fn burst_is_over(&mut self, open: usize) -> bool {
        self.most = self.most.max(open);
        let over = self.most - open >= BURST.max(self.most / 2);
        if over {
            self.most = open;
        }
        over
    }
}

/// Gives the free memory of this thread, and of the C library that TLS's ciphers use, back to the
/// system.
pub fn trim() {
    // SAFETY: no precondition; it only touches what the allocator holds as free.
    unsafe { libmimalloc_sys::mi_collect(true) };
    #[cfg(target_env = "gnu")]
    // SAFETY: as above.
    unsafe {
        libc::malloc_trim(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_over_once_most_of_its_connections_are_closed() {
        let (count, mut policy) = (ConnectionCount::default(), TrimPolicy::default());
        let burst: Vec<_> = (0..1000).map(|_| count.count_one()).collect();
        assert!(!policy.burst_is_over(count.open()));
        drop(burst);
        assert!(policy.burst_is_over(count.open()));
        assert!(!policy.burst_is_over(count.open()));
    }
}
