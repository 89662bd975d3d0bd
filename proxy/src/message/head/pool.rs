//! Heads between two messages: connections and streams hold none while they wait. Boxed, because a
//! request moves its heads from hand to hand several times.

use std::cell::RefCell;

use super::Head;

/// Heads kept by a worker, each of at most what [`Head::clear`] leaves it.
const MOST: usize = 128;

/// A worker's heads.
#[derive(Default)]
#[expect(clippy::vec_box, reason = "what moves is the box")]
pub struct Heads(RefCell<Vec<Box<Head>>>);

impl Heads {
    /// An empty head.
    pub fn take(&self) -> Box<Head> {
        self.0.borrow_mut().pop().unwrap_or_default()
    }

    /// Takes back a head that is done with.
    pub fn put(&self, mut head: Box<Head>) {
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
