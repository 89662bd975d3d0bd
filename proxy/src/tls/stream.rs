//! The TLS stream: [`Wire`] with `AsyncRead`, `AsyncBufRead` and `AsyncWrite`.

use std::io::{self, ErrorKind, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use rustls::Error;
use tokio::io::{AsyncBufRead, AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use super::error::ConnectionLost;
use super::outgoing::Outgoing;
use super::session::{MAX_FRAGMENT, TlsSession, sealed_len};
use super::wire::{Incoming, Wire};
use super::{ConnectionInfo, TlsError};
use crate::dispatcher::buffer::{Block, Pool, Size};
use crate::socket;

/// Plaintext that one write takes at most: eight full records.
const MAX_WRITE: usize = 8 * MAX_FRAGMENT;
/// Offset in a block at which slices are copied together. Not the offset at which large slices begin
/// in their blocks, right after a frame's head: copies between equal offsets are slow (see `SKEW` in
/// [`crate::dispatcher::buffer`]).
const GATHER: usize = 768;
const _: () = assert!(sealed_len(MAX_WRITE) <= Size::Bulk.bytes());
const _: () = assert!(sealed_len(MAX_FRAGMENT) <= Size::Small.bytes());

/// A TLS connection on a TCP socket, after its handshake.
///
/// Reads end with `Ok(0)` only after the peer's close_notify; a connection that just ends is an
/// error of kind `UnexpectedEof`, because bytes may be missing. A write is accepted once it is
/// encrypted; flush it before waiting for an answer.
pub struct TlsStream {
    wire: Wire,
    pool: Pool,
    info: ConnectionInfo,
    /// Set by the first failure; every later read returns it again.
    failed: Option<StreamFailure>,
    close_sent: bool,
    shut: bool,
    /// A writer's waker is registered for the socket; a reader must not replace it.
    writer_waits: bool,
}

#[derive(Clone)]
enum StreamFailure {
    Protocol(Error),
    Truncated,
}

impl StreamFailure {
    fn to_io(&self) -> io::Error {
        match self {
            StreamFailure::Protocol(error) => TlsError::Protocol(error.clone()).into(),
            StreamFailure::Truncated => ConnectionLost::Truncated.into(),
        }
    }
}

impl TlsStream {
    pub(super) fn new(wire: Wire, pool: Pool, info: ConnectionInfo) -> Self {
        TlsStream {
            wire,
            pool,
            info,
            failed: None,
            close_sent: false,
            shut: false,
            writer_waits: false,
        }
    }

    /// What the handshake established.
    pub fn info(&self) -> &ConnectionInfo {
        &self.info
    }

    /// The socket underneath, for its options.
    pub fn socket(&self) -> &TcpStream {
        &self.wire.link.tcp
    }

    /// Ready once a read would make progress; holds no buffer while it waits.
    pub fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let something = self.wire.unprocessed
            || self.wire.peer_closed
            || self.failed.is_some()
            || !self.wire.incoming.plaintext().is_empty();
        if something {
            return Poll::Ready(Ok(()));
        }
        self.wire.link.tcp.poll_read_ready(cx)
    }

    /// Plaintext that was opened and not read yet.
    pub fn plaintext(&self) -> &[u8] {
        self.wire.incoming.plaintext()
    }

    /// Waits for plaintext: in `direct` if it was given, else in place. Ready with neither is the
    /// end of the stream.
    fn poll_fill(
        &mut self,
        cx: &mut Context<'_>,
        mut direct: Option<&mut ReadBuf<'_>>,
    ) -> Poll<io::Result<()>> {
        let before = direct.as_ref().map_or(0, |buf| buf.filled().len());
        loop {
            if self.wire.link.is_untrusted() {
                return Poll::Ready(Err(ConnectionLost::Distrusted.into()));
            }
            let filled = direct.as_ref().map_or(0, |buf| buf.filled().len()) > before;
            if filled || !self.wire.incoming.plaintext().is_empty() {
                return Poll::Ready(Ok(()));
            }
            if let Some(failure) = &self.failed {
                return Poll::Ready(Err(failure.to_io()));
            }
            if self.wire.peer_closed {
                return Poll::Ready(Ok(()));
            }
            if !self.wire.unprocessed {
                self.send_in_passing(cx);
                ready!(self.wire.link.tcp.poll_read_ready(cx))?;
                match self.wire.incoming.receive(&self.wire.link) {
                    Ok(0) => {
                        self.failed = Some(StreamFailure::Truncated);
                        continue;
                    }
                    Ok(_) => {}
                    Err(error) if error.kind() == ErrorKind::WouldBlock => continue,
                    Err(error) => return Poll::Ready(Err(error)),
                }
            }
            if let Err(error) = self.wire.process(direct.as_deref_mut()) {
                self.failed = Some(StreamFailure::Protocol(error));
                self.send_in_passing(cx);
            }
            if self.wire.unprocessed {
                // Too much is queued to be sent: the peer must read first.
                ready!(self.poll_send(cx))?;
            }
        }
    }

    /// Sends what reading has queued (key updates, alerts), if no writer is waiting.
    fn send_in_passing(&mut self, cx: &mut Context<'_>) {
        if self.wire.outgoing.is_empty() || self.writer_waits {
            return;
        }
        if let Err(error) = self.wire.outgoing.try_send(&self.wire.link)
            && error.kind() == ErrorKind::WouldBlock
        {
            // When woken, this read is polled again. Other errors show in the next read or write.
            let _ = self.wire.link.tcp.poll_write_ready(cx);
        }
    }

    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.writer_waits = false;
        loop {
            match self.wire.outgoing.try_send(&self.wire.link) {
                Ok(()) => return Poll::Ready(Ok(())),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    if self.wire.link.tcp.poll_write_ready(cx)?.is_pending() {
                        self.writer_waits = true;
                        return Poll::Pending;
                    }
                }
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }

    fn poll_write_slices(
        &mut self,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.wire.link.is_untrusted() {
            return Poll::Ready(Err(ConnectionLost::Distrusted.into()));
        }
        if self.close_sent || matches!(self.failed, Some(StreamFailure::Protocol(_))) {
            return Poll::Ready(Err(ErrorKind::BrokenPipe.into()));
        }
        ready!(self.poll_send(cx))?;
        if self.wire.unprocessed {
            // Writing requires that no complete record is left in the input.
            if let Err(error) = self.wire.process(None) {
                let broken = StreamFailure::Protocol(error);
                let answer = broken.to_io();
                self.failed = Some(broken);
                self.send_in_passing(cx);
                return Poll::Ready(Err(answer));
            }
        }
        let Wire {
            session,
            incoming,
            outgoing,
            link,
            ..
        } = &mut self.wire;
        let written = Sealer {
            session,
            incoming,
            outgoing,
            pool: &self.pool,
        }
        .seal_slices(bufs)
        .map_err(|error| io::Error::from(TlsError::Protocol(error)))?;
        match outgoing.try_send(link) {
            Err(error) if error.kind() != ErrorKind::WouldBlock => Poll::Ready(Err(error)),
            _ => Poll::Ready(Ok(written)),
        }
    }
}

/// Encrypts slices, many small ones to a record.
struct Sealer<'a> {
    session: &'a mut TlsSession,
    incoming: &'a mut Incoming,
    outgoing: &'a mut Outgoing,
    pool: &'a Pool,
}

impl Sealer<'_> {
    /// Encrypts up to [`MAX_WRITE`] bytes; returns how many.
    fn seal_slices(mut self, bufs: &[IoSlice<'_>]) -> Result<usize, Error> {
        let mut left = MAX_WRITE;
        let mut slices = bufs.iter().filter(|buf| !buf.is_empty()).peekable();
        let mut gathered: Option<Block> = None;
        let mut held = 0;
        while let Some(slice) = slices.next() {
            let (mut slice, _) = slice.split_at(slice.len().min(left));
            left = left.saturating_sub(slice.len());
            let alone = held == 0 && slices.peek().is_none();
            if alone {
                self.seal(slice)?;
                continue;
            }
            while !slice.is_empty() {
                if held == 0 && slice.len() >= MAX_FRAGMENT {
                    let parts = slice.len().checked_rem(MAX_FRAGMENT).unwrap_or(0);
                    let (whole, rest) = slice.split_at(slice.len().saturating_sub(parts));
                    self.seal(whole)?;
                    slice = rest;
                    continue;
                }
                let block = gathered.get_or_insert_with(|| self.pool.block(Size::Small));
                let (_, block) = block.split_at_mut(GATHER);
                let (block, _) = block.split_at_mut(MAX_FRAGMENT);
                let (_, room) = block.split_at_mut(held);
                let fits = slice.len().min(room.len());
                let (now, later) = slice.split_at(fits);
                room.split_at_mut(fits).0.copy_from_slice(now);
                slice = later;
                held = held.saturating_add(fits);
                if held == MAX_FRAGMENT {
                    self.seal(block)?;
                    held = 0;
                }
            }
        }
        if let Some(block) = gathered
            && held > 0
        {
            let (_, block) = block.split_at(GATHER);
            self.seal(block.split_at(held).0)?;
        }
        Ok(MAX_WRITE.saturating_sub(left))
    }

    fn seal(&mut self, plaintext: &[u8]) -> Result<(), Error> {
        if plaintext.is_empty() {
            return Ok(());
        }
        self.session
            .seal(self.incoming.ciphertext(), plaintext, self.outgoing)
    }
}

impl AsyncRead for TlsStream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if buf.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        let this = self.get_mut();
        let waiting = this.wire.incoming.plaintext();
        if waiting.is_empty() {
            return this.poll_fill(cx, Some(buf));
        }
        if this.wire.link.is_untrusted() {
            return Poll::Ready(Err(ConnectionLost::Distrusted.into()));
        }
        let fits = waiting.len().min(buf.remaining());
        buf.put_slice(waiting.split_at(fits).0);
        this.wire.incoming.consume(fits);
        Poll::Ready(Ok(()))
    }
}

impl AsyncBufRead for TlsStream {
    fn poll_fill_buf(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<&[u8]>> {
        let this = self.get_mut();
        ready!(this.poll_fill(cx, None))?;
        Poll::Ready(Ok(this.wire.incoming.plaintext()))
    }

    fn consume(self: Pin<&mut Self>, amount: usize) {
        self.get_mut().wire.incoming.consume(amount);
    }
}

impl AsyncWrite for TlsStream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.get_mut().poll_write_slices(cx, &[IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.get_mut().poll_write_slices(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().poll_send(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_send(cx))?;
        if !this.close_sent {
            this.close_sent = true;
            let wire = &mut this.wire;
            // A session that failed has sent an alert; there is nothing to close.
            let clean = this.failed.is_none() && (!wire.unprocessed || wire.process(None).is_ok());
            if clean {
                wire.session
                    .close(wire.incoming.ciphertext(), &mut wire.outgoing)
                    .map_err(|error| io::Error::from(TlsError::Protocol(error)))?;
            }
        }
        ready!(this.poll_send(cx))?;
        if !this.shut {
            this.shut = true;
            socket::shutdown_write(&this.wire.link.tcp)?;
        }
        Poll::Ready(Ok(()))
    }
}
