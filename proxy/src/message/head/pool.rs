//! Heads between two messages: connections and streams hold none while they wait.

use std::cell::RefCell;

use super::Head;

/// Heads kept by a worker, each of at most what [`Head::clear`] leaves it.
const MOST: usize = 128;

/// A worker's heads.
#[derive(Default)]
pub struct Heads(RefCell<Vec<Head>>);

impl Heads {
    /// An empty head.
    pub fn take(&self) -> Head {
        self.0.borrow_mut().pop().unwrap_or_default()
    }

    /// Takes back a head that is done with.
    pub fn put(&self, mut head: Head) {
        head.clear();
        let mut kept = self.0.borrow_mut();
        if head.fields.capacity() > 0 && kept.len() < MOST {
            kept.push(head);
        }
    }

    /// Keeps none.
    pub fn forget(&self) {
        self.0.take();
    }
}
