//! Memory for futures that last as long as a request. A worker reuses the memory of finished
//! futures, so a request allocates none, and an idle connection holds none.
#![allow(unsafe_code)]

use std::alloc::{Layout, alloc, dealloc, handle_alloc_error};
use std::cell::RefCell;
use std::future::Future;
use std::pin::Pin;
use std::ptr::NonNull;
use std::task::{Context, Poll};

/// Pieces that a worker keeps.
const MOST: usize = 64;

/// A worker's pieces of memory, all of one layout; others are not kept.
#[derive(Default)]
pub struct FutureSlab(RefCell<Free>);

#[derive(Default)]
struct Free {
    /// The layout of the first future; only memory of this layout is kept.
    layout: Option<Layout>,
    pieces: Vec<NonNull<u8>>,
}

/// A future in a piece of memory that goes back to its worker.
pub struct Pooled<'a, F> {
    at: NonNull<F>,
    slab: &'a FutureSlab,
}

impl FutureSlab {
    /// Moves `future` into pooled memory, where it stays until it is dropped.
    pub fn place<F: Future>(&self, future: F) -> Pooled<'_, F> {
        let at = self.take(Layout::new::<F>()).cast::<F>();
        // SAFETY: memory of F's layout that nothing else refers to.
        unsafe { at.write(future) };
        Pooled { at, slab: self }
    }

    /// Keeps nothing.
    pub fn forget(&self) {
        self.0.take();
    }

    fn take(&self, layout: Layout) -> NonNull<u8> {
        assert!(
            layout.size() > 0,
            "a future without a state needs no memory"
        );
        let mut free = self.0.borrow_mut();
        if *free.layout.get_or_insert(layout) == layout
            && let Some(piece) = free.pieces.pop()
        {
            return piece;
        }
        // SAFETY: the size is not zero.
        let piece = unsafe { alloc(layout) };
        NonNull::new(piece).unwrap_or_else(|| handle_alloc_error(layout))
    }

    fn put(&self, piece: NonNull<u8>, layout: Layout) {
        let mut free = self.0.borrow_mut();
        if free.layout == Some(layout) && free.pieces.len() < MOST {
            return free.pieces.push(piece);
        }
        // SAFETY: allocated by `take` with this layout; nothing refers to it any more.
        unsafe { dealloc(piece.as_ptr(), layout) };
    }
}

impl Drop for Free {
    fn drop(&mut self) {
        let Some(layout) = self.layout else { return };
        for piece in self.pieces.drain(..) {
            // SAFETY: allocated by `take` with the one layout of what is kept.
            unsafe { dealloc(piece.as_ptr(), layout) };
        }
    }
}

impl<F: Future> Future for Pooled<'_, F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        // SAFETY: the future stays where it is until it is dropped there, and only this owns it.
        unsafe { Pin::new_unchecked(self.at.as_mut()) }.poll(cx)
    }
}

impl<F> Drop for Pooled<'_, F> {
    fn drop(&mut self) {
        // SAFETY: written by `place`, and dropped once. If that panics, the memory is leaked.
        unsafe { self.at.drop_in_place() };
        self.slab.put(self.at.cast(), Layout::new::<F>());
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::rc::Rc;
    use std::task::Waker;

    use super::*;

    /// Holds `alive` and some memory; ready at the second look.
    async fn wait(alive: Rc<()>, filler: [u8; 100]) -> u64 {
        let mut looks = 0;
        std::future::poll_fn(|_| {
            looks += 1;
            if looks == 2 {
                Poll::Ready(())
            } else {
                Poll::Pending
            }
        })
        .await;
        drop(alive);
        filler.iter().map(|byte| u64::from(*byte)).sum()
    }

    fn look<F: Future>(future: Pin<&mut F>) -> Poll<F::Output> {
        future.poll(&mut Context::from_waker(Waker::noop()))
    }

    #[test]
    fn a_future_runs_in_its_memory_and_leaves_it_to_the_next() {
        let slab = FutureSlab::default();
        let alive = Rc::new(());
        let mut addresses = Vec::new();
        for _ in 0..3 {
            let mut placed = slab.place(wait(alive.clone(), [2; 100]));
            addresses.push(placed.at.cast::<u8>());
            assert!(look(pin!(&mut placed)).is_pending());
            assert_eq!(look(pin!(&mut placed)), Poll::Ready(200));
        }
        assert_eq!(addresses[0], addresses[1]);
        assert_eq!(addresses[0], addresses[2]);
        assert_eq!(Rc::strong_count(&alive), 1);
    }

    #[test]
    fn a_future_that_is_given_up_is_dropped_and_memory_is_bounded() {
        let slab = FutureSlab::default();
        let alive = Rc::new(());
        let mut many: Vec<_> = (0..MOST + 10)
            .map(|_| slab.place(wait(alive.clone(), [0; 100])))
            .collect();
        assert!(look(pin!(&mut many[0])).is_pending());
        let other = slab.place(std::future::ready(alive.clone()));
        drop((many, other));
        assert_eq!(Rc::strong_count(&alive), 1);
        assert_eq!(slab.0.borrow().pieces.len(), MOST);
        slab.forget();
        assert!(slab.0.borrow().pieces.is_empty());
    }
}
