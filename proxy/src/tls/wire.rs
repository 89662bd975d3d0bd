//! The incoming record buffer of a connection, and the session between both buffers.
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
use super::outgoing::Outgoing;
use super::session::{SessionEvent, TlsSession};
use crate::dispatcher::buffer::{Block, Pool, Size};
use crate::socket;

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
    pub(super) session: TlsSession,
    pub(super) incoming: Incoming,
    pub(super) outgoing: Outgoing,
    /// The peer sent close_notify.
    pub(super) peer_closed: bool,
    /// [`Self::process`] has to run before the next read from the socket.
    pub(super) unprocessed: bool,
}

impl Wire {
    pub(super) fn new(link: Rc<PeerConnection>, session: TlsSession, pool: &Pool) -> Self {
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
                Ok(SessionEvent::Again) => {}
                Ok(SessionEvent::Plaintext) => self.take_record(direct.as_deref_mut())?,
                Ok(SessionEvent::PeerClosed) => self.peer_closed = true,
                Ok(SessionEvent::Drained) => break,
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
            if !matches!(event, Ok(SessionEvent::Again)) {
                break;
            }
        }
    }
}
