//! The socket as the `h2` crate reads it: bytes that detection has read come first, and frames are
//! counted.

use std::cell::{Cell, RefCell};
use std::io::{self, ErrorKind, IoSlice};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use bytes::BytesMut;
use http2_frames::{Budget, Frames, PREFACE, Role};
use prometheus::IntCounter;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::stream::Stream;

/// Bytes of a flooding peer that are read and dropped before closing: with unread bytes the kernel
/// would send a reset, and the peer would lose the GOAWAY.
const DISCARDED: usize = 256 * 1024;

pub struct Prefixed {
    stream: Stream,
    prefix: BytesMut,
    /// Boxed, because a connection's future is moved while it is made.
    passed: Box<WireCounters>,
}

/// Counters of both directions.
struct WireCounters {
    received: Frames,
    sent: Frames,
    budget: Budget,
    state: Rc<WireState>,
    /// Connections that ended for a flood.
    floods: IntCounter,
}

/// Wakers that are kept; twice the streams that a connection has at once by default.
const MAX_WAITING: usize = 200;

/// The state of a connection that its streams depend on.
#[derive(Default)]
pub struct WireState {
    /// Bytes of its streams that wait for the peer's windows.
    pub(super) queued: Cell<usize>,
    /// The socket's last write returned `WouldBlock`.
    blocked: Cell<bool>,
    waiting: RefCell<Vec<Waker>>,
}

impl WireState {
    /// Ready while the peer takes what is written. Heads are not subject to flow control: a stream
    /// that sends many waits here.
    pub fn poll_writable(&self, cx: &mut Context<'_>) -> Poll<()> {
        if !self.blocked.get() {
            return Poll::Ready(());
        }
        let mut waiting = self.waiting.borrow_mut();
        if waiting.iter().any(|waker| waker.will_wake(cx.waker())) {
            return Poll::Pending;
        }
        // Streams that ended while they waited are still in the list. All are woken, and those that
        // are left register again.
        let ended = match waiting.len() >= MAX_WAITING {
            true => std::mem::take(&mut *waiting),
            false => Vec::new(),
        };
        waiting.push(cx.waker().clone());
        drop(waiting);
        ended.into_iter().for_each(Waker::wake);
        Poll::Pending
    }

    fn set_blocked(&self, blocked: bool) {
        if self.blocked.replace(blocked) && !blocked {
            self.waiting.take().into_iter().for_each(Waker::wake);
        }
    }
}

impl Prefixed {
    /// The server's end. `prefix`: what was read of the connection already.
    /// `floods` counts the connections that end for a flood of control frames.
    pub fn server(stream: Stream, prefix: BytesMut, floods: &IntCounter) -> Self {
        Self::new(stream, prefix, Role::Server, floods)
    }

    /// The client's end.
    pub fn client(stream: Stream, floods: &IntCounter) -> Self {
        Self::new(stream, BytesMut::new(), Role::Client, floods)
    }

    fn new(stream: Stream, prefix: BytesMut, role: Role, floods: &IntCounter) -> Self {
        let (received, sent) = match role {
            Role::Server => (Frames::after(PREFACE), Frames::default()),
            Role::Client => (Frames::default(), Frames::after(PREFACE)),
        };
        Self {
            stream,
            prefix,
            passed: Box::new(WireCounters {
                received,
                sent,
                budget: Budget::new(role, Instant::now()),
                state: Rc::default(),
                floods: floods.clone(),
            }),
        }
    }

    pub fn state(&self) -> &Rc<WireState> {
        &self.passed.state
    }

    /// Records the result of a write of `segments`.
    fn written(
        &mut self,
        polled: Poll<io::Result<usize>>,
        segments: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let WireCounters {
            sent,
            budget,
            state,
            ..
        } = &mut *self.passed;
        state.set_blocked(polled.is_pending());
        if let Poll::Ready(Ok(written)) = polled {
            let mut left = written;
            for segment in segments {
                let count = left.min(segment.len());
                let bytes = segment.get(..count).unwrap_or_default();
                sent.scan(bytes, |frame| budget.sent(frame));
                left = left.saturating_sub(count);
                if left == 0 {
                    break;
                }
            }
        }
        polled
    }

    /// Sends GOAWAY (ENHANCE_YOUR_CALM), as far as that can be written at once, and ends the
    /// connection.
    fn refuse(&mut self, cx: &mut Context<'_>) -> io::Error {
        self.passed.floods.inc();
        if self.passed.sent.is_at_boundary() {
            let goaway = self.passed.budget.goaway();
            // Best effort: a peer that does not read sees only the end of the connection.
            let _ = Pin::new(&mut self.stream).poll_write(cx, &goaway);
            let _ = Pin::new(&mut self.stream).poll_flush(cx);
            let _ = Pin::new(&mut self.stream).poll_shutdown(cx);
        }
        let mut discarded = 0;
        let mut space = [0; 4096];
        while discarded < DISCARDED {
            let mut buf = ReadBuf::new(&mut space);
            match Pin::new(&mut self.stream).poll_read(cx, &mut buf) {
                Poll::Ready(Ok(())) if !buf.filled().is_empty() => {
                    discarded = buf.filled().len().saturating_add(discarded);
                }
                _ => break,
            }
        }
        io::Error::new(
            ErrorKind::ConnectionAborted,
            "the HTTP/2 peer sent too many control frames",
        )
    }
}

impl Drop for Prefixed {
    fn drop(&mut self) {
        // Waiting streams are woken, and their next write fails.
        self.passed.state.set_blocked(false);
    }
}

impl AsyncRead for Prefixed {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let before = buf.filled().len();
        if this.prefix.is_empty() {
            std::task::ready!(Pin::new(&mut this.stream).poll_read(cx, buf))?;
        } else {
            let count = this.prefix.len().min(buf.remaining());
            buf.put_slice(&this.prefix.split_to(count));
            if this.prefix.is_empty() {
                this.prefix = BytesMut::new();
            }
        }
        let read = buf.filled().get(before..).unwrap_or_default();
        let WireCounters {
            received, budget, ..
        } = &mut *this.passed;
        received.scan(read, |frame| budget.received(frame));
        if budget.is_exceeded(Instant::now) {
            return Poll::Ready(Err(this.refuse(cx)));
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Prefixed {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.written(polled, &[IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.written(polled, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
    use std::task::Wake;

    use super::*;

    #[derive(Default)]
    struct Stream(AtomicUsize);

    impl Wake for Stream {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Relaxed);
        }
    }

    #[test]
    fn streams_that_ended_while_they_waited_are_forgotten() {
        let wire = WireState::default();
        wire.set_blocked(true);
        let live = Arc::new(Stream::default());
        let poll = |stream: &Arc<Stream>| {
            let waker = stream.clone().into();
            wire.poll_writable(&mut Context::from_waker(&waker))
        };
        assert!(poll(&live).is_pending());
        for _ in 0..10 * MAX_WAITING {
            assert!(poll(&Arc::default()).is_pending());
            assert!(wire.waiting.borrow().len() <= MAX_WAITING);
            // Woken with the others: it registers again.
            if live.0.swap(0, Relaxed) > 0 {
                assert!(poll(&live).is_pending());
            }
        }
        wire.set_blocked(false);
        assert_eq!(live.0.load(Relaxed), 1);
        assert!(poll(&live).is_ready());
    }
}
