//! A connection inside an HTTP/2 connection, as the bytes it carries.
//!
//! The end of a direction is END_STREAM, a reset is RST_STREAM with CONNECT_ERROR (RFC 9113 8.5),
//! and back-pressure is flow control: window updates follow what the reader has taken.

use std::cell::{Cell, RefCell};
use std::io::{self, ErrorKind, IoSlice};
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use h2::{Reason, RecvStream, SendStream};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::chunk::Chunk;
use crate::bug;
use crate::dispatcher::buffer::{Block, Pool, Size};
use crate::lifecycle::OpenStreams;
use crate::tls::ConnectionInfo;

/// A DATA frame that, with its head, fills four TLS records.
pub const FRAME: u32 = 4 * 16 * 1024 - 9;
/// Taken bytes are given back to the peer's windows once they are so many.
const RELEASE: usize = 16 * 1024;

/// The streams of a connection; shared by them.
#[derive(Default)]
pub struct StreamCount {
    /// Streams that are open.
    pub streams: OpenStreams,
    /// Of those, tunnels blocked on flow control.
    pub blocked: Cell<usize>,
}

/// One stream in a [`StreamCount`].
pub struct StreamGuard {
    load: Rc<StreamCount>,
    blocked: bool,
}

impl StreamGuard {
    pub fn of(load: &Rc<StreamCount>) -> Self {
        load.streams.begin();
        StreamGuard {
            load: load.clone(),
            blocked: false,
        }
    }

    fn set_blocked(&mut self, blocked: bool) {
        if self.blocked != blocked {
            self.blocked = blocked;
            let before = self.load.blocked.get();
            self.load.blocked.set(match blocked {
                true => before.saturating_add(1),
                false => before.saturating_sub(1),
            });
        }
    }
}

impl Drop for StreamGuard {
    fn drop(&mut self) {
        self.set_blocked(false);
        self.load.streams.end();
    }
}

/// A connection inside another.
///
/// A write is accepted once the peer's window has capacity for any of it; then the whole block is,
/// so a stream whose peer does not read holds one block and no more.
pub struct TunnelStream {
    send: SendStream<Chunk>,
    incoming: RefCell<ReceiveSide>,
    pool: Pool,
    tls: Option<Rc<ConnectionInfo>>,
    local: Option<SocketAddr>,
    sent: Sent,
    /// Our end was sent.
    ended: bool,
    reset: Cell<bool>,
    share: StreamGuard,
}

/// How much of what was accepted the peer's window has taken.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Sent {
    /// Nothing was accepted, and the window was not asked for more.
    Nothing,
    /// Some may wait for the window.
    InPart,
    /// All, and it has room for another byte.
    Whole,
}

/// A tunnel's addresses and TLS info.
pub struct TunnelInfo {
    pub tls: Option<Rc<ConnectionInfo>>,
    /// Our end of the connection that carries it.
    pub local: Option<SocketAddr>,
}

struct ReceiveSide {
    stream: RecvStream,
    held: Bytes,
    unreleased: usize,
    ended: bool,
}

impl ReceiveSide {
    /// Ready once something is held, or the end was read.
    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        bug::point("tunnel_stream");
        while self.held.is_empty() && !self.ended {
            match ready!(self.stream.poll_data(cx)) {
                Some(Ok(data)) => self.held = data,
                Some(Err(error)) => return Poll::Ready(Err(lost(error))),
                None => self.ended = true,
            }
        }
        Poll::Ready(Ok(()))
    }

    fn consume(&mut self, count: usize) {
        self.held.advance(count);
        self.unreleased = self.unreleased.saturating_add(count);
        if self.held.is_empty() {
            // Releases h2's buffer.
            self.held = Bytes::new();
        }
        if self.unreleased >= RELEASE {
            let count = std::mem::take(&mut self.unreleased);
            // Fails only for a stream that has ended; the next read returns its error.
            let _ = self.stream.flow_control().release_capacity(count);
        }
    }
}

impl TunnelStream {
    pub(crate) fn new(
        send: SendStream<Chunk>,
        recv: RecvStream,
        share: StreamGuard,
        pool: &Pool,
        about: TunnelInfo,
    ) -> Self {
        let incoming = ReceiveSide {
            stream: recv,
            held: Bytes::new(),
            unreleased: 0,
            ended: false,
        };
        TunnelStream {
            send,
            incoming: RefCell::new(incoming),
            pool: pool.clone(),
            tls: about.tls,
            local: about.local,
            sent: Sent::Nothing,
            ended: false,
            reset: Cell::new(false),
            share,
        }
    }

    /// What is left of an exchange that turned into a tunnel.
    pub(crate) fn after(send: SendStream<Chunk>, recv: RecvStream, pool: &Pool) -> Self {
        let about = TunnelInfo {
            tls: None,
            local: None,
        };
        TunnelStream::new(send, recv, StreamGuard::of(&Rc::default()), pool, about)
    }

    pub fn tls_info(&self) -> Option<&ConnectionInfo> {
        self.tls.as_deref()
    }

    pub fn local_addr(&self) -> Option<SocketAddr> {
        self.local
    }

    /// Ready once a read would find bytes, the end of the stream or an error.
    pub fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.incoming.borrow_mut().poll_fill(cx)
    }

    /// [`Self::poll_read_ready`]; true: there are bytes, false: it has ended.
    pub fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
        let incoming = self.incoming.get_mut();
        ready!(incoming.poll_fill(cx))?;
        Poll::Ready(Ok(!incoming.held.is_empty()))
    }

    /// Bytes that came and were not taken yet.
    pub fn held(&mut self) -> &[u8] {
        &self.incoming.get_mut().held
    }

    pub fn consume(&mut self, count: usize) {
        self.incoming.get_mut().consume(count);
    }

    /// Ready once a block would be accepted.
    pub fn poll_writable(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.ended {
            return Poll::Ready(Err(ErrorKind::BrokenPipe.into()));
        }
        if self.sent == Sent::Whole {
            return Poll::Ready(Ok(()));
        }
        loop {
            // One byte is enough to begin with, and reserves nothing more of the connection's
            // window.
            self.send.reserve_capacity(1);
            if self.send.capacity() > 0 {
                self.share.set_blocked(false);
                self.sent = Sent::Whole;
                return Poll::Ready(Ok(()));
            }
            match self.send.poll_capacity(cx) {
                Poll::Ready(Some(Ok(_))) => {}
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Err(lost(error))),
                Poll::Ready(None) => return Poll::Ready(Err(ErrorKind::BrokenPipe.into())),
                Poll::Pending => {
                    self.share.set_blocked(true);
                    return Poll::Pending;
                }
            }
        }
    }

    /// Sends `block[start..end]`. Only after [`Self::poll_writable`].
    ///
    /// # Errors
    /// When the stream is gone.
    pub fn write_block(&mut self, block: Block, start: usize, end: usize) -> io::Result<()> {
        let chunk = Chunk::Block { block, start, end };
        self.sent = Sent::InPart;
        self.send.send_data(chunk, false).map_err(lost)
    }

    /// Ends it with a reset when it is dropped, so that the peer learns that it was cut.
    pub fn reset_on_close(&self) {
        self.reset.set(true);
    }

    /// The peer's reset, if it came; it is seen before what came earlier was read.
    pub fn take_error(&mut self, cx: &mut Context<'_>) -> Option<io::Error> {
        match self.send.poll_reset(cx) {
            Poll::Ready(Ok(_) | Err(_)) => Some(ErrorKind::ConnectionReset.into()),
            Poll::Pending => None,
        }
    }
}

impl Drop for TunnelStream {
    fn drop(&mut self) {
        if self.ended && self.incoming.get_mut().ended {
            return;
        }
        self.send.send_reset(match self.reset.get() {
            true => Reason::CONNECT_ERROR,
            false => Reason::CANCEL,
        });
    }
}

/// A stream that ends without END_STREAM was cut: it is an error, never end of file.
fn lost(error: h2::Error) -> io::Error {
    io::Error::new(ErrorKind::ConnectionReset, error)
}

impl AsyncRead for TunnelStream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let incoming = self.get_mut().incoming.get_mut();
        ready!(incoming.poll_fill(cx))?;
        let fits = incoming.held.len().min(buf.remaining());
        buf.put_slice(incoming.held.split_at(fits).0);
        incoming.consume(fits);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for TunnelStream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        ready!(this.poll_writable(cx))?;
        let total: usize = bufs.iter().map(|buf| buf.len()).sum();
        if total == 0 {
            return Poll::Ready(Ok(0));
        }
        let size = match total <= Size::Small.bytes() {
            true => Size::Small,
            false => Size::Bulk,
        };
        let mut block = this.pool.block(size);
        let mut room = &mut *block;
        let mut end = 0usize;
        for buf in bufs {
            let fits = buf.len().min(room.len());
            let (to, rest) = room.split_at_mut(fits);
            to.copy_from_slice(buf.split_at(fits).0);
            end = end.saturating_add(fits);
            room = rest;
        }
        this.write_block(block, 0, end)?;
        Poll::Ready(Ok(end))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    /// Ready once the peer's window has taken what was accepted; the connection's task sends it.
    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.sent == Sent::InPart && !this.ended {
            ready!(this.poll_writable(cx))?;
        }
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !this.ended {
            this.ended = true;
            let end = Chunk::Bytes(Bytes::new());
            this.send.send_data(end, true).map_err(lost)?;
        }
        Poll::Ready(Ok(()))
    }
}
