//! Long bodies of known length between two plain HTTP/1 connections: through a kernel pipe.
//!
//! Bytes that were read along with the head pass through buffers. The rest is never copied into
//! this process, once both codecs agree on its length; when it arrives in small pieces, or there is
//! no pipe, it passes through buffers again.

use std::task::{Context, Poll, ready};

use tokio::net::TcpStream;

use crate::dispatcher::pipe::Pipes;
use crate::http::connection::io::Io;
use crate::http::h1::{BodyDecoder, BodyEncoder};
use crate::relay;

/// Shorter bodies are not worth a pipe.
const LONG: u64 = 64 * 1024;

/// The splice state of one body.
#[derive(Default)]
pub struct BodySplice {
    moves: relay::Splice,
    /// Whether splicing was tried for this body.
    tried: bool,
}

/// The result of one step.
pub enum SpliceStep {
    /// Bytes of the body that were read from the source, and that were written to the sink. Both
    /// are 0 when only earlier bytes were written.
    Moved {
        read: u64,
        written: u64,
    },
    /// The next bytes pass through buffers.
    Usual,
    /// The source ended before its body did.
    Truncated,
    SourceFailed,
    SinkFailed,
}

/// Where a body comes from, and how much of it is still to be read.
pub struct Reading<'a> {
    pub io: &'a Io,
    pub body: &'a mut BodyDecoder,
}

/// The destination, and how much is still to be written.
pub struct Writing<'a> {
    pub io: &'a mut Io,
    pub body: &'a mut BodyEncoder,
}

impl BodySplice {
    /// Takes one step, if this body is to be spliced.
    pub fn poll(
        &mut self,
        cx: &mut Context<'_>,
        source: Reading<'_>,
        sink: Writing<'_>,
        pipes: &Pipes,
    ) -> Poll<SpliceStep> {
        if !self.is_due(&source, &sink) {
            return Poll::Ready(SpliceStep::Usual);
        }
        let moved = |read, written| Poll::Ready(SpliceStep::Moved { read, written });
        if !sink.io.out.is_empty() {
            // First the head, and the part of the body that came with it.
            return match ready!(sink.io.poll_flush(cx)) {
                Ok(()) => moved(0, 0),
                Err(_) => Poll::Ready(SpliceStep::SinkFailed),
            };
        }
        let (Some(from), Some(to)) = (source.io.plain(), sink.io.plain()) else {
            return Poll::Ready(SpliceStep::Usual);
        };
        if self.moves.held() > 0 {
            let Ok(written) = ready!(self.moves.poll_drain(cx, to)) else {
                return Poll::Ready(SpliceStep::SinkFailed);
            };
            sink.body.passed(written as u64);
            sink.io.count_written(written);
            return moved(0, written as u64);
        }
        let left = source.body.left().unwrap_or(0);
        let most = usize::try_from(left).unwrap_or(usize::MAX);
        match ready!(self.poll_fill(cx, from, most, pipes)) {
            SpliceStep::Moved { read, written } => {
                source.body.passed(read);
                moved(read, written)
            }
            other => Poll::Ready(other),
        }
    }

    /// Whether bytes lie in the pipe, for a sink that has not taken them.
    pub fn is_holding(&self) -> bool {
        self.moves.held() > 0
    }

    /// Whether the next bytes go through the pipe.
    fn is_due(&mut self, source: &Reading<'_>, sink: &Writing<'_>) -> bool {
        if self.moves.held() > 0 {
            return true;
        }
        let left = source.body.left();
        if self.tried {
            let due = self.moves.is_on() && left.is_some();
            if !due {
                self.moves.release();
            }
            return due;
        }
        let long = left.is_some_and(|left| left >= LONG) && left == sink.body.owed();
        let due = long
            && source.io.input.is_empty()
            && [source.io, &*sink.io]
                .iter()
                .all(|io| io.plain().is_some() && io.may_hold(relay::HOLDS));
        if due {
            self.tried = true;
            self.moves.begin();
        }
        due
    }

    fn poll_fill(
        &mut self,
        cx: &mut Context<'_>,
        from: &TcpStream,
        most: usize,
        pipes: &Pipes,
    ) -> Poll<SpliceStep> {
        while self.moves.is_on() {
            match from.poll_read_ready(cx) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(_)) => return Poll::Ready(SpliceStep::SourceFailed),
                Poll::Pending => {
                    self.moves.release();
                    return Poll::Pending;
                }
            }
            match self.moves.fill(from, most, pipes) {
                Ok(0) => return Poll::Ready(SpliceStep::Truncated),
                Ok(n) => {
                    return Poll::Ready(SpliceStep::Moved {
                        read: n as u64,
                        written: 0,
                    });
                }
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                Err(_) => return Poll::Ready(SpliceStep::SourceFailed),
            }
        }
        Poll::Ready(SpliceStep::Usual)
    }
}
