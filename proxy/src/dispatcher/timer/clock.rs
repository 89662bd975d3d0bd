//! The clock of a worker's tasks: one reading for each poll.
//!
//! Polls are short, and reading the system's clock ten times in one costs more than some of their
//! work. So while a task of [`CachedClockTask`] is polled, the first reading is cached and returned
//! until that poll ends; all times of one poll are equal. Outside of such polls each call reads the
//! system's clock.

use std::cell::Cell;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Instant;

use pin_project_lite::pin_project;

use super::Wheel;

/// See the module.
pub(super) struct CachedClock(Cell<CachedTime>);

#[derive(Clone, Copy)]
enum CachedTime {
    /// No task is polled that caches the time.
    Off,
    /// Such a task is polled, and has not asked for the time yet.
    Empty,
    Filled(Instant),
}

impl CachedClock {
    pub(super) fn new() -> Self {
        Self(Cell::new(CachedTime::Off))
    }

    #[inline]
    pub(super) fn now(&self) -> Instant {
        match self.0.get() {
            CachedTime::Off => Instant::now(),
            CachedTime::Filled(now) => now,
            CachedTime::Empty => {
                let now = Instant::now();
                self.0.set(CachedTime::Filled(now));
                now
            }
        }
    }

    /// Caches the time until what is returned is dropped.
    fn cache(&self) -> Caching<'_> {
        self.0.set(CachedTime::Empty);
        Caching(self)
    }
}

/// Dropped after a panic too: the runtime catches it, and a cached time must not outlive the poll.
struct Caching<'a>(&'a CachedClock);

impl Drop for Caching<'_> {
    fn drop(&mut self) {
        self.0.0.set(CachedTime::Off);
    }
}

pin_project! {
    /// A task that is polled with a cached clock; see [`Timers::with_cached_clock`].
    ///
    /// [`Timers::with_cached_clock`]: super::Timers::with_cached_clock
    pub struct CachedClockTask<F> {
        pub(super) wheel: Rc<Wheel>,
        #[pin]
        pub(super) task: F,
    }
}

impl<F: Future> Future for CachedClockTask<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        let _caching = this.wheel.clock.cache();
        this.task.poll(cx)
    }
}
