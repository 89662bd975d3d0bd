//! Long bodies of known length between two plain HTTP/1 connections: through a kernel pipe.
//!
//! What was read along with the head goes the usual way. The rest never enters this process, once
//! both codecs agree on how much it is; when it comes in dribs, or there is no pipe, it takes the
//! usual way again.

use std::task::{Context, Poll, ready};

use tokio::net::TcpStream;

use super::io::Io;
use crate::tcp::{self, Pipes};

/// Shorter bodies are not worth a pipe.
const LONG: u64 = 64 * 1024;

/// One body's.
#[derive(Default)]
pub struct Splice {
    moves: tcp::Splice,
    /// It was tried for this body.
    tried: bool,
}

/// What one step came to.
pub enum Step {
    /// So many bytes left the source.
    Read(u64),
    /// So many reached the sink.
    Written(u64),
    /// The source ended before its body did.
    Truncated,
    SourceFailed,
    SinkFailed,
    /// What comes next takes the usual way.
    Usual,
}

/// A body on its way: from where, how much of it is still to be read, where to, how much of it is
/// still to be written.
pub struct Ends<'a> {
    pub from: &'a Io,
    pub left: Option<u64>,
    pub to: &'a Io,
    pub owed: Option<u64>,
}

impl Splice {
    /// Whether the next bytes go this way.
    pub fn is_due(&mut self, ends: &Ends<'_>) -> bool {
        if self.moves.held() > 0 {
            return true;
        }
        if self.tried {
            let due = self.moves.is_on() && ends.left.is_some();
            if !due {
                self.moves.release();
            }
            return due;
        }
        let long = ends.left.is_some_and(|left| left >= LONG) && ends.left == ends.owed;
        let due = long
            && ends.from.input.is_empty()
            && [ends.from, ends.to]
                .iter()
                .all(|io| io.plain().is_some() && io.may_hold(tcp::HOLDS));
        if due {
            self.tried = true;
            self.moves.begin();
        }
        due
    }

    /// Moves some bytes; everything that goes before them is to be written by then.
    pub fn poll(&mut self, cx: &mut Context<'_>, ends: &Ends<'_>, pipes: &Pipes) -> Poll<Step> {
        let (Some(from), Some(to)) = (ends.from.plain(), ends.to.plain()) else {
            return Poll::Ready(Step::Usual);
        };
        if self.moves.held() > 0 {
            let written = ready!(self.moves.poll_drain(cx, to));
            return Poll::Ready(written.map_or(Step::SinkFailed, |n| Step::Written(n as u64)));
        }
        let most = match ends.left {
            Some(left) if self.moves.is_on() => usize::try_from(left).unwrap_or(usize::MAX),
            _ => {
                self.moves.release();
                return Poll::Ready(Step::Usual);
            }
        };
        self.poll_fill(cx, from, most, pipes)
    }

    fn poll_fill(
        &mut self,
        cx: &mut Context<'_>,
        from: &TcpStream,
        most: usize,
        pipes: &Pipes,
    ) -> Poll<Step> {
        while self.moves.is_on() {
            match from.poll_read_ready(cx) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(_)) => return Poll::Ready(Step::SourceFailed),
                Poll::Pending => {
                    self.moves.release();
                    return Poll::Pending;
                }
            }
            match self.moves.fill(from, most, pipes) {
                Ok(0) => return Poll::Ready(Step::Truncated),
                Ok(n) => return Poll::Ready(Step::Read(n as u64)),
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                Err(_) => return Poll::Ready(Step::SourceFailed),
            }
        }
        Poll::Ready(Step::Usual)
    }
}
