//! Heads between two messages: connections and streams hold none while they wait.

use std::cell::RefCell;

use super::Head;

/// Heads kept by a worker.
const MOST: usize = 128;
/// And of each so much, bytes; what grew further is given up.
const ROOM: usize = 2 * 1024;
/// Fields too.
const FIELDS: usize = 64;

/// A worker's heads.
#[derive(Default)]
pub struct Heads(RefCell<Vec<Head>>);

impl Heads {
    /// An empty head.
    pub fn take(&self) -> Head {
        self.0.borrow_mut().pop().unwrap_or_default()
    }

    /// Keeps none.
    pub fn forget(&self) {
        self.0.take();
    }

    /// Takes back a head that is done with.
    pub fn put(&self, mut head: Head) {
        head.clear();
        let mut kept = self.0.borrow_mut();
        let usual = head.extra.capacity() <= ROOM && head.fields.capacity() <= FIELDS;
        if usual && head.fields.capacity() > 0 && kept.len() < MOST {
            kept.push(head);
        }
    }
}
