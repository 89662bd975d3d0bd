//! One direction of a relay: from a source to a sink, until the source ends.
//!
//! Small messages are read and written, which is cheapest for them. When reads keep filling the
//! largest buffer and both ends are plain sockets, the bytes go through a kernel pipe instead, and
//! back to buffers once reads are small.

use std::io::{self, ErrorKind};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncBufRead, AsyncWrite};
use tokio::net::TcpStream;

use super::splice::{self, Splice};
use super::{RelayContext, Side};
use crate::dispatcher::buffer::{Block, Pool, Size};
use crate::dispatcher::pipe::Pipes;
use crate::socket;
use crate::stream::Stream;
use crate::stream::tunnel::TunnelStream;
use crate::tls::TlsStream;

/// Full bulk reads in a row before splicing begins.
const BULK_SHOWS: u8 = 2;

/// An error, and the end of this direction at which it occurred.
pub(super) struct DirectionError {
    pub(super) at: DirectionEnd,
    pub(crate) error: io::Error,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum DirectionEnd {
    Source,
    Sink,
}

impl DirectionEnd {
    /// The side of the relay, where `source` is this direction's source.
    pub(super) fn side(self, source: Side) -> Side {
        match self {
            DirectionEnd::Source => source,
            DirectionEnd::Sink => source.other(),
        }
    }
}

pub(super) struct RelayDirection {
    /// Bytes that were read and not yet written.
    block: Option<Block>,
    start: usize,
    end: usize,
    splice: Splice,
    /// Full reads in a row, after which splicing begins.
    streak: u8,
    /// The next read gets a bulk buffer.
    bulk: bool,
    ended: bool,
    finished: bool,
    /// The sink does not take what was read.
    blocked: bool,
    pub(crate) bytes: u64,
}

impl RelayDirection {
    /// `early`: bytes of the source that were read before.
    pub(crate) fn new(early: &[u8], pool: &Pool) -> io::Result<Self> {
        let mut block = None;
        if !early.is_empty() {
            let size = if early.len() <= Size::Small.bytes() {
                Size::Small
            } else {
                Size::Bulk
            };
            let room: &mut Block = block.insert(pool.block(size));
            let Some(room) = room.get_mut(..early.len()) else {
                return Err(io::Error::new(
                    ErrorKind::InvalidInput,
                    "too many early bytes",
                ));
            };
            room.copy_from_slice(early);
        }
        Ok(RelayDirection {
            block,
            start: 0,
            end: early.len(),
            splice: Splice::default(),
            streak: 0,
            bulk: false,
            ended: false,
            finished: false,
            blocked: false,
            bytes: 0,
        })
    }

    pub(super) fn is_finished(&self) -> bool {
        self.finished
    }

    /// Whether the sink does not take what was read. While it accepts no writes, a reset of the source
    /// would not be noticed.
    pub(super) fn is_blocked(&self) -> bool {
        self.blocked
    }

    /// Whether the source has ended (its end may not have been passed on yet).
    pub(super) fn has_ended(&self) -> bool {
        self.ended
    }

    /// Moves what can be moved. Ready when the source has ended and the sink was shut down.
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        source: &mut Stream,
        sink: &mut Stream,
        context: &RelayContext<'_>,
    ) -> Poll<Result<(), DirectionError>> {
        while !self.finished {
            self.blocked = true;
            ready!(self.poll_write_out(cx, source, sink))?;
            self.blocked = false;
            if self.ended {
                let shut = Pin::new(&mut *sink).poll_shutdown(cx);
                self.blocked = shut.is_pending();
                ready!(shut).map_err(at(DirectionEnd::Sink))?;
                self.finished = true;
                break;
            }
            let read = match (&mut *source, &*sink) {
                (Stream::Tcp(tcp), Stream::Tcp(_)) => self.poll_tcp(cx, tcp, true, context),
                (Stream::Tcp(tcp), _) => self.poll_tcp(cx, tcp, false, context),
                (Stream::Tls(tls), _) => self.poll_tls(cx, tls),
                (Stream::Tunnel(tunnel), _) => self.poll_tunnel(cx, tunnel),
            };
            if read.map_err(at(DirectionEnd::Source))?.is_pending() {
                // Buffered writes are flushed before the source is waited for.
                let flushed = Pin::new(&mut *sink)
                    .poll_flush(cx)
                    .map_err(at(DirectionEnd::Sink))?;
                self.blocked = flushed.is_pending();
                return Poll::Pending;
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Writes everything that was read; ready once nothing is left.
    fn poll_write_out(
        &mut self,
        cx: &mut Context<'_>,
        source: &mut Stream,
        sink: &mut Stream,
    ) -> Poll<Result<(), DirectionError>> {
        if self.start < self.end
            && let Stream::Tunnel(tunnel) = &mut *sink
        {
            ready!(tunnel.poll_writable(cx)).map_err(at(DirectionEnd::Sink))?;
            if let Some(block) = self.block.take() {
                // The block is passed on without a copy.
                let sent = tunnel.write_block(block, self.start, self.end);
                sent.map_err(at(DirectionEnd::Sink))?;
                let count = self.end.saturating_sub(self.start);
                self.bytes = self.bytes.saturating_add(count as u64);
            }
            self.start = self.end;
        }
        while let Some(block) = &self.block
            && let Some(chunk @ [_, ..]) = block.get(self.start..self.end)
        {
            let n = ready!(poll_write(cx, sink, chunk)).map_err(at(DirectionEnd::Sink))?;
            self.start = self.start.saturating_add(n);
            self.bytes = self.bytes.saturating_add(n as u64);
        }
        if let Stream::Tcp(tcp) = &*sink {
            while self.splice.held() > 0 {
                let n = ready!(self.splice.poll_drain(cx, tcp)).map_err(at(DirectionEnd::Sink))?;
                self.bytes = self.bytes.saturating_add(n as u64);
            }
        }
        // Bytes from TLS or a tunnel lie in the source's own buffer.
        match source {
            Stream::Tcp(_) => {}
            Stream::Tls(tls) => {
                while !tls.plaintext().is_empty() {
                    let n = ready!(poll_write(cx, sink, tls.plaintext()))
                        .map_err(at(DirectionEnd::Sink))?;
                    Pin::new(&mut **tls).consume(n);
                    self.bytes = self.bytes.saturating_add(n as u64);
                }
            }
            Stream::Tunnel(tunnel) => {
                while !tunnel.held().is_empty() {
                    let n = ready!(poll_write(cx, sink, tunnel.held()))
                        .map_err(at(DirectionEnd::Sink))?;
                    tunnel.consume(n);
                    self.bytes = self.bytes.saturating_add(n as u64);
                }
            }
        }
        (self.start, self.end) = (0, 0);
        Poll::Ready(Ok(()))
    }

    fn poll_tls(&mut self, cx: &mut Context<'_>, tls: &mut TlsStream) -> Poll<io::Result<()>> {
        self.block = None;
        let got = ready!(Pin::new(tls).poll_fill_buf(cx))?;
        self.ended = got.is_empty();
        Poll::Ready(Ok(()))
    }

    fn poll_tunnel(
        &mut self,
        cx: &mut Context<'_>,
        tunnel: &mut TunnelStream,
    ) -> Poll<io::Result<()>> {
        self.block = None;
        self.ended = !ready!(tunnel.poll_fill(cx))?;
        Poll::Ready(Ok(()))
    }

    /// Reads from a plain socket; `plain_sink`: splicing is possible.
    fn poll_tcp(
        &mut self,
        cx: &mut Context<'_>,
        tcp: &TcpStream,
        plain_sink: bool,
        context: &RelayContext<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            if tcp.poll_read_ready(cx)?.is_pending() {
                // Idle connections hold nothing.
                self.block = None;
                self.splice.release();
                return Poll::Pending;
            }
            let got = if plain_sink && self.splice.is_on() {
                self.splice_in(tcp, context.pipes)
            } else {
                self.read_in(tcp, context)
            };
            match got {
                Ok(0) => {
                    self.ended = true;
                    self.block = None;
                    self.splice.release();
                    return Poll::Ready(Ok(()));
                }
                Ok(_) => return Poll::Ready(Ok(())),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }

    fn read_in(&mut self, tcp: &TcpStream, context: &RelayContext<'_>) -> io::Result<usize> {
        let size = if self.bulk { Size::Bulk } else { Size::Small };
        let block = match &mut self.block {
            Some(block) if block.len() == size.bytes() => block,
            other => other.insert(context.buffers.block(size)),
        };
        let n = socket::try_read(tcp, block)?;
        self.end = n;
        let full = n == block.len();
        match (self.bulk, full) {
            (true, true) => {
                self.streak = self.streak.saturating_add(1);
                if self.streak >= BULK_SHOWS && context.most >= splice::HOLDS {
                    self.splice.begin();
                    self.streak = 0;
                }
            }
            (_, full) => {
                self.streak = 0;
                let bulk = full || (self.bulk && n > Size::Small.bytes());
                self.bulk = bulk && context.most >= Size::Bulk.bytes();
            }
        }
        Ok(n)
    }

    fn splice_in(&mut self, tcp: &TcpStream, pipes: &Pipes) -> io::Result<usize> {
        self.block = None;
        let read = self.splice.fill(tcp, usize::MAX, pipes);
        if !self.splice.is_on() {
            // Little came. What is in the pipe is written before the next read.
            (self.bulk, self.streak) = (false, 0);
        }
        read
    }
}

fn at(end: DirectionEnd) -> impl Fn(io::Error) -> DirectionError {
    move |error| DirectionError { at: end, error }
}

fn poll_write(cx: &mut Context<'_>, sink: &mut Stream, bytes: &[u8]) -> Poll<io::Result<usize>> {
    Pin::new(sink).poll_write(cx, bytes)
}
