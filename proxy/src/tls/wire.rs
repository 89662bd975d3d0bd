//! The two record buffers of a connection, and the session between them.
//!
//! Each direction holds a pooled block only while it has bytes. Ciphertext is received into the
//! incoming block, opened there, and plaintext that does not fit into the reader's buffer is stored
//! over its own ciphertext: `[plaintext …  ciphertext …]`. All complete records are opened as soon
//! as they arrive, so what is left in the ciphertext part is always a record or handshake message
//! in parts.

use std::io;
use std::rc::Rc;

use rustls::Error;
use tokio::io::ReadBuf;

use super::live::PeerConnection;
use super::session::{Event, MAX_RECORD, Session};
use crate::dispatcher::buffer::{Block, Pool, Size};
use crate::socket;

/// Control records queued behind application data that the peer does not read.
const MAX_OVERFLOW: usize = 64 * 1024;

/// Ciphertext on its way out.
pub(super) struct Outgoing {
    pool: Pool,
    block: Option<Block>,
    start: usize,
    end: usize,
    /// Records queued by reading while the block was full. Reading must not wait for the block:
    /// with both peers writing, neither would ever read.
    overflow: Vec<u8>,
}

impl Outgoing {
    pub(super) fn new(pool: Pool) -> Self {
        Outgoing {
            pool,
            block: None,
            start: 0,
            end: 0,
            overflow: Vec::new(),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.block.is_none()
    }

    /// Whether another [`MAX_RECORD`] can be appended.
    fn has_room(&self) -> bool {
        self.overflow.len().saturating_add(MAX_RECORD) <= MAX_OVERFLOW
    }

    /// Appends what `fill` writes into at least `most` bytes of spare capacity.
    ///
    /// # Errors
    /// When `fill` fails, which would be a bug.
    pub(super) fn append(
        &mut self,
        most: usize,
        fill: impl FnOnce(&mut [u8]) -> Option<usize>,
    ) -> Result<(), Error> {
        let refused = || Error::General("TLS record buffer overflow".into());
        let needed = self.end.saturating_add(most);
        if !self.overflow.is_empty() || needed > Size::Bulk.bytes() {
            let held = self.overflow.len();
            self.overflow.resize(held.saturating_add(most), 0);
            let written = fill(self.overflow.split_at_mut(held).1);
            self.overflow
                .truncate(held.saturating_add(written.unwrap_or(0)));
            return written.map(drop).ok_or_else(refused);
        }
        let room = self.room(needed).ok_or_else(refused)?;
        let written = fill(room).ok_or_else(refused)?;
        self.end = self.end.saturating_add(written);
        if self.start == self.end {
            self.advance();
        }
        Ok(())
    }

    /// What follows the ciphertext in a block of at least `needed` bytes.
    fn room(&mut self, needed: usize) -> Option<&mut [u8]> {
        if self.block.as_ref().is_none_or(|block| block.len() < needed) {
            let size = if needed <= Size::Small.bytes() {
                Size::Small
            } else {
                Size::Bulk
            };
            let mut larger = self.pool.block(size);
            if let Some(old) = &self.block {
                let held = old.get(..self.end)?;
                larger.get_mut(..self.end)?.copy_from_slice(held);
            }
            self.block = Some(larger);
        }
        let end = self.end;
        self.block.as_mut()?.get_mut(end..)
    }

    /// Sends what fits; `WouldBlock` when something is left.
    pub(super) fn try_send(&mut self, link: &PeerConnection) -> io::Result<()> {
        while let Some(block) = &self.block {
            let left = block.get(self.start..self.end).unwrap_or_default();
            let sent = socket::try_write(&link.tcp, left)?;
            self.start = self.start.saturating_add(sent);
            if self.start == self.end {
                self.advance();
            }
        }
        Ok(())
    }

    /// The block is sent: on to the overflow, or hold nothing.
    fn advance(&mut self) {
        (self.start, self.end) = (0, 0);
        let next = self.overflow.len().min(Size::Bulk.bytes());
        let Some(block) = self
            .block
            .as_mut()
            .filter(|block| next > 0 && block.len() >= next)
        else {
            self.block = (next > 0).then(|| self.pool.block(Size::Bulk));
            if next > 0 {
                self.advance();
            }
            return;
        };
        let (to, _) = block.split_at_mut(next);
        to.copy_from_slice(self.overflow.split_at(next).0);
        self.end = next;
        self.overflow = Vec::new();
    }
}

/// Received bytes: opened ones for the reader, then sealed ones.
pub(super) struct Incoming {
    pool: Pool,
    block: Option<Block>,
    plain: (usize, usize),
    cipher: (usize, usize),
    /// The last read filled its buffer: the next one gets a large one.
    bulk: bool,
}

impl Incoming {
    pub(super) fn new(pool: Pool) -> Self {
        Incoming {
            pool,
            block: None,
            plain: (0, 0),
            cipher: (0, 0),
            bulk: false,
        }
    }

    /// Puts bytes that were read before the session existed in front.
    pub(super) fn preload(&mut self, prefix: &[u8]) -> io::Result<()> {
        if prefix.is_empty() {
            return Ok(());
        }
        let size = if prefix.len() <= Size::Small.bytes() {
            Size::Small
        } else {
            Size::Bulk
        };
        let mut block = self.pool.block(size);
        let Some(room) = block.get_mut(..prefix.len()) else {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "oversized TLS prefix",
            ));
        };
        room.copy_from_slice(prefix);
        self.block = Some(block);
        self.cipher = (0, prefix.len());
        Ok(())
    }

    pub(super) fn plaintext(&self) -> &[u8] {
        self.block
            .as_deref()
            .and_then(|block| block.get(self.plain.0..self.plain.1))
            .unwrap_or_default()
    }

    /// Ciphertext that is not opened yet.
    pub(super) fn ciphertext(&mut self) -> &mut [u8] {
        let (start, end) = self.cipher;
        self.block
            .as_deref_mut()
            .and_then(|block| block.get_mut(start..end))
            .unwrap_or_default()
    }

    pub(super) fn consume(&mut self, plaintext: usize) {
        self.plain.0 = self.plain.0.saturating_add(plaintext).min(self.plain.1);
        if self.plain.0 == self.plain.1 {
            self.plain = (0, 0);
            self.release_if_empty();
        }
    }

    fn discard(&mut self, ciphertext: usize) {
        self.cipher.0 = self.cipher.0.saturating_add(ciphertext).min(self.cipher.1);
    }

    /// Stores plaintext over its ciphertext.
    fn keep(&mut self, plaintext: &[u8]) -> Result<(), Error> {
        let start = self.plain.1;
        let end = start.saturating_add(plaintext.len());
        let block = self.block.as_mut().filter(|_| end <= self.cipher.0);
        // A record is longer than its plaintext, so it always fits.
        let Some(place) = block.and_then(|block| block.get_mut(start..end)) else {
            return Err(Error::General("plaintext longer than its record".into()));
        };
        place.copy_from_slice(plaintext);
        self.plain.1 = end;
        Ok(())
    }

    pub(super) fn release_if_empty(&mut self) {
        if self.plain.0 == self.plain.1 && self.cipher.0 == self.cipher.1 {
            self.block = None;
            (self.plain, self.cipher) = ((0, 0), (0, 0));
        }
    }

    /// Reads from the socket behind the ciphertext. Only while there is no plaintext.
    pub(super) fn receive(&mut self, link: &PeerConnection) -> io::Result<usize> {
        let wanted = if self.bulk { Size::Bulk } else { Size::Small };
        let (start, end) = self.cipher;
        let held = end.saturating_sub(start);
        match &mut self.block {
            // Grow for speed, or because a handshake message fills the small block.
            Some(block) if block.len() < wanted.bytes() || held == block.len() => {
                if held == Size::Bulk.bytes() {
                    return Err(io::Error::new(
                        io::ErrorKind::InvalidData,
                        "the peer's TLS handshake message is too large",
                    ));
                }
                let mut larger = self.pool.block(Size::Bulk);
                if let (Some(to), Some(from)) = (larger.get_mut(..held), block.get(start..end)) {
                    to.copy_from_slice(from);
                }
                *block = larger;
            }
            Some(block) => block.copy_within(start..end, 0),
            None => self.block = Some(self.pool.block(wanted)),
        }
        self.cipher = (0, held);
        let Some(block) = &mut self.block else {
            return Err(io::ErrorKind::OutOfMemory.into());
        };
        let (_, room) = block.split_at_mut(held);
        let most = room.len();
        let read = socket::try_read(&link.tcp, room);
        if let Ok(n) = read {
            self.cipher.1 = self.cipher.1.saturating_add(n);
            self.bulk = n == most || (self.bulk && n > Size::Small.bytes());
        }
        self.release_if_empty();
        read
    }
}

/// Buffers and session of one connection.
pub(super) struct Wire {
    pub(super) link: Rc<PeerConnection>,
    pub(super) session: Session,
    pub(super) incoming: Incoming,
    pub(super) outgoing: Outgoing,
    /// The peer sent close_notify.
    pub(super) peer_closed: bool,
    /// [`Self::process`] has to run before the next read from the socket.
    pub(super) unprocessed: bool,
}

impl Wire {
    pub(super) fn new(link: Rc<PeerConnection>, session: Session, pool: &Pool) -> Self {
        Wire {
            link,
            session,
            incoming: Incoming::new(pool.clone()),
            outgoing: Outgoing::new(pool.clone()),
            peer_closed: false,
            unprocessed: true,
        }
    }

    /// Opens all complete records: into `direct` while it has capacity, the rest in place. Stops
    /// early (leaving `unprocessed`) when too much waits to be sent.
    ///
    /// # Errors
    /// When the peer broke the protocol; the alert was queued.
    pub(super) fn process(&mut self, mut direct: Option<&mut ReadBuf<'_>>) -> Result<(), Error> {
        loop {
            if !self.outgoing.has_room() {
                self.unprocessed = true;
                return Ok(());
            }
            let input = self.incoming.ciphertext();
            let (discard, event) = self.session.step(input, &mut self.outgoing);
            self.incoming.discard(discard);
            match event {
                Ok(Event::Again) => {}
                Ok(Event::Plaintext) => self.take_record(direct.as_deref_mut())?,
                Ok(Event::PeerClosed) => self.peer_closed = true,
                Ok(Event::Drained) => break,
                Err(error) => {
                    self.queue_alerts();
                    return Err(error);
                }
            }
        }
        if self.peer_closed {
            // Whatever follows close_notify is to be ignored.
            let rest = self.incoming.ciphertext().len();
            self.incoming.discard(rest);
        }
        self.unprocessed = false;
        self.incoming.release_if_empty();
        Ok(())
    }

    fn take_record(&mut self, direct: Option<&mut ReadBuf<'_>>) -> Result<(), Error> {
        let incoming = &mut self.incoming;
        let taken = self.session.take_plaintext(|record| {
            let mut rest = record;
            if let Some(reader) = direct
                && incoming.plaintext().is_empty()
            {
                let fits = rest.len().min(reader.remaining());
                let (now, later) = rest.split_at(fits);
                reader.put_slice(now);
                rest = later;
            }
            if rest.is_empty() {
                Ok(())
            } else {
                incoming.keep(rest)
            }
        });
        taken.unwrap_or_else(|| Err(Error::General("announced record is missing".into())))
    }

    /// After an error rustls has an alert to send. The input is not looked at again: it would
    /// fail again.
    fn queue_alerts(&mut self) {
        while self.session.common().wants_write() {
            let (_, event) = self.session.step(&mut [], &mut self.outgoing);
            if !matches!(event, Ok(Event::Again)) {
                break;
            }
        }
    }
}
