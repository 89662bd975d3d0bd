//! A connection's socket with the bytes read and not yet decoded, and those encoded and not yet
//! written.

use std::future::Future;
use std::io::{self, ErrorKind, IoSlice};
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWrite};
use tokio::net::TcpStream;

use crate::dispatcher::buffer;
use crate::dispatcher::buffer::Pool;
use crate::http::h1::{BodyEvent, Out};
use crate::socket;
use crate::stream::Stream;

/// Smallest spare capacity for a read; below it the buffer is replaced.
const MIN_ROOM: usize = 4 * 1024;
/// Segments handed to one `writev`.
const MAX_SEGMENTS: usize = 64;
/// Bytes queued for writing from which on the other side is not read.
pub const HIGH_WATER: usize = 128 * 1024;

/// See the module. Holds no buffer while nothing is in it.
pub struct Io {
    pub stream: Stream,
    pub input: BytesMut,
    pub out: Out,
    pool: Pool,
    /// The last read filled its buffer: more is on its way, so the next one gets a large one.
    bulk: bool,
    /// The TLS layer may hold what was written.
    unflushed: bool,
    eof: bool,
    /// Bytes given to the stream.
    written: u64,
    /// Limit of the bytes buffered in each direction, in steps of a buffer.
    most: usize,
    tunnel: TunnelState,
}

/// After 101, or 2xx to CONNECT, the codec is bypassed: bytes are forwarded as they are.
#[derive(Clone, Copy, PartialEq, Eq)]
enum TunnelState {
    Closed,
    Open,
    /// FIN is sent after the queued bytes.
    Ended,
}

impl Io {
    pub fn new(stream: Stream, input: BytesMut, pool: Pool) -> Self {
        Self {
            stream,
            input,
            out: Out::new(),
            pool,
            bulk: false,
            unflushed: false,
            eof: false,
            written: 0,
            most: usize::MAX,
            tunnel: TunnelState::Closed,
        }
    }

    /// Holds no more than about `most` bytes in either direction.
    pub fn bounded(mut self, most: usize) -> Self {
        self.most = most;
        self
    }

    /// The socket, when nothing but it lies between us and the peer.
    pub fn plain(&self) -> Option<&TcpStream> {
        match &self.stream {
            Stream::Tcp(tcp) => Some(tcp),
            Stream::Tls(_) | Stream::Tunnel(_) => None,
        }
    }

    /// Bypasses the codec from here on.
    pub fn open_tunnel(&mut self) {
        self.tunnel = TunnelState::Open;
    }

    /// Whether the codec is bypassed.
    pub fn is_tunnel(&self) -> bool {
        self.tunnel != TunnelState::Closed
    }

    /// Queues bytes of a tunnel; returns bytes that the codec has to frame.
    pub fn pass(&mut self, data: Bytes) -> Option<Bytes> {
        if self.tunnel == TunnelState::Closed {
            return Some(data);
        }
        self.out.slice(data);
        None
    }

    /// Ends a tunnel after the queued bytes; false: there is no tunnel.
    pub fn end_tunnel(&mut self) -> bool {
        if self.tunnel == TunnelState::Open {
            self.tunnel = TunnelState::Ended;
        }
        self.is_tunnel()
    }

    /// Bytes of the tunnel.
    pub fn poll_tunnel(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<BodyEvent>> {
        if self.input.is_empty() && ready!(self.poll_fill(cx))? == 0 {
            return Poll::Ready(Ok(BodyEvent::End));
        }
        Poll::Ready(Ok(BodyEvent::Data(self.input.split().freeze())))
    }

    /// Whether so many bytes may be held in a direction.
    pub fn may_hold(&self, bytes: usize) -> bool {
        bytes <= self.most
    }

    /// An end of the stream may be of the peer's half alone. Over TLS it is not: there close_notify
    /// ends the connection, and HTTP has no half-close.
    pub fn may_half_close(&self) -> bool {
        !matches!(self.stream, Stream::Tls(_))
    }

    /// The peer's end of stream was read.
    pub fn is_eof(&self) -> bool {
        self.eof
    }

    /// Bytes given to the stream so far.
    pub fn written(&self) -> u64 {
        self.written
    }

    /// So many bytes were written past this buffer.
    pub fn count_written(&mut self, count: usize) {
        self.written = self.written.saturating_add(count as u64);
    }

    /// Reads what is there into `input`; 0 at the end of the stream.
    pub fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if self.eof {
            return Poll::Ready(Ok(0));
        }
        loop {
            ready!(self.poll_readable(cx))?;
            self.make_room();
            let room = self.spare();
            let polled = match &self.stream {
                Stream::Tcp(tcp) => match socket::try_read_buf(tcp, &mut self.input) {
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {
                        // Readiness was spurious. The next look registers interest.
                        self.release();
                        continue;
                    }
                    done => Poll::Ready(done),
                },
                _ => pin!(self.stream.read_buf(&mut self.input)).poll(cx),
            };
            match &polled {
                Poll::Ready(Ok(read)) => {
                    self.bulk = *read == room;
                    self.eof = *read == 0;
                }
                // Spurious too; the read has registered interest.
                Poll::Pending => self.release(),
                Poll::Ready(Err(_)) => {}
            }
            return polled;
        }
    }

    /// Ready when a read would find something.
    pub fn poll_readable(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream.poll_read_ready(cx)
    }

    /// Writes all that waits; FIN after the end of a tunnel.
    pub fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.out.is_empty() {
            // One segment is the common case, and `send` costs the kernel less than `writev`.
            let written = ready!(match self.out.only() {
                Some(one) => Pin::new(&mut self.stream).poll_write(cx, one),
                None => {
                    let mut segments = [IoSlice::new(&[]); MAX_SEGMENTS];
                    let count = self.out.chunks_vectored(&mut segments);
                    let (filled, _) = segments.split_at(count.min(MAX_SEGMENTS));
                    Pin::new(&mut self.stream).poll_write_vectored(cx, filled)
                }
            })?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.out.advance(written);
            self.count_written(written);
            self.unflushed = true;
        }
        if self.unflushed {
            ready!(Pin::new(&mut self.stream).poll_flush(cx))?;
            self.unflushed = false;
        }
        match self.tunnel {
            TunnelState::Closed | TunnelState::Open => Poll::Ready(Ok(())),
            TunnelState::Ended => Pin::new(&mut self.stream).poll_shutdown(cx),
        }
    }

    /// Whether bytes wait for the peer to take them.
    pub fn is_stalled(&self) -> bool {
        !self.out.is_empty() || self.unflushed
    }

    /// Writes all that waits, then FIN.
    pub fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_flush(cx))?;
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    /// Ready while little enough waits to be written that more may be queued.
    pub fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.out.len() < HIGH_WATER.min(self.most) {
            return Poll::Ready(Ok(()));
        }
        self.poll_flush(cx)
    }

    /// Gives the read buffer back when nothing is in it.
    pub fn release(&mut self) {
        if self.input.is_empty() && self.input.capacity() > 0 {
            self.pool.put(std::mem::take(&mut self.input));
        }
    }

    fn spare(&self) -> usize {
        self.input.capacity().saturating_sub(self.input.len())
    }

    fn make_room(&mut self) {
        if self.spare() >= MIN_ROOM {
            return;
        }
        if self.input.is_empty() {
            self.release();
            self.input = if self.bulk && self.most >= buffer::BULK {
                self.pool.take_bulk()
            } else {
                self.pool.take()
            };
        } else {
            self.input.reserve(buffer::SMALL);
        }
    }
}
