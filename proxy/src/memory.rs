//! Memory that closed connections held goes back to the system.
//!
//! The allocator gives free pages back as it goes, but only while it is asked for memory: after a
//! crowd has left, nobody asks. So a worker looks now and then whether one has.
#![allow(unsafe_code)]

use std::rc::Rc;

/// Fewer connections than this leave nothing behind that is worth the trouble.
const CROWD: usize = 256;

/// Counts a worker's connections: each holds a clone.
#[derive(Clone, Default)]
pub struct Presence(Rc<()>);

impl Presence {
    fn count(&self) -> usize {
        Rc::strong_count(&self.0) - 1
    }
}

/// What a worker remembers from one look to the next.
#[derive(Default)]
pub struct Keeper {
    most: usize,
}

impl Keeper {
    /// Whether most of the connections since the last time have gone. To be asked about once a
    /// second.
    pub fn crowd_has_left(&mut self, present: &Presence) -> bool {
        let now = present.count();
        self.most = self.most.max(now);
        let left = self.most - now >= CROWD.max(self.most / 2);
        if left {
            self.most = now;
        }
        left
    }
}

/// Gives the free memory of this thread back to the system.
pub fn give_back() {
    // SAFETY: no precondition; it only touches what the allocator holds as free.
    unsafe { libmimalloc_sys::mi_collect(true) };
}
