//! A future with a deadline.

use std::borrow::Borrow;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use pin_project_lite::pin_project;

use super::{Elapsed, Timer};

pin_project! {
    /// Runs a future until a timer's deadline. A type of its own and no `async fn`, because that
    /// would hold its argument twice: as it was passed, and pinned. Handshakes and dials are nested
    /// in several of these, and each connection's task would be larger for each.
    #[must_use = "a future does nothing unless it is polled"]
    pub struct Race<T, F> {
        timer: T,
        #[pin]
        future: F,
    }
}

impl<T, F> Race<T, F> {
    pub(super) fn new(timer: T, future: F) -> Self {
        Self { timer, future }
    }
}

impl<T: Borrow<Timer>, F: Future> Future for Race<T, F> {
    type Output = Result<F::Output, Elapsed>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        if let Poll::Ready(output) = this.future.poll(cx) {
            return Poll::Ready(Ok(output));
        }
        let timer: &Timer = (*this.timer).borrow();
        timer.poll_expired(cx).map(|()| Err(Elapsed))
    }
}
