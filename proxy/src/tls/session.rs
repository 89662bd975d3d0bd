//! rustls' unbuffered state machine, client and server behind one interface, sans-IO.
//!
//! The rules of that API, which only this module depends on: one state per call; bytes that a call
//! marks for discarding must be gone before the next call; ciphertext to be sent is returned one
//! chunk at a time and is lost if not taken; records may be queued while reading (tickets, key
//! updates, alerts); a handshake message in parts stays in the input, so every call gets the real
//! input.

use rustls::client::UnbufferedClientConnection;
use rustls::server::UnbufferedServerConnection;
use rustls::unbuffered::{ConnectionState, UnbufferedStatus};
use rustls::{CommonState, Error};

use super::outgoing::{MAX_RECORD, Outgoing};

/// Plaintext that goes into one record.
pub(super) const MAX_FRAGMENT: usize = 16384;

pub(super) enum TlsSession {
    Client(UnbufferedClientConnection),
    Server(UnbufferedServerConnection),
}

/// The result of one step.
pub(super) enum SessionEvent {
    /// Something was queued or sent; step again.
    Again,
    /// A record of application data was opened: [`TlsSession::take_plaintext`].
    Plaintext,
    /// The peer sent close_notify. Comes once.
    PeerClosed,
    /// All complete records are done.
    Drained,
}

/// Runs `$body` on whichever connection it is: their methods are alike, but share no trait.
macro_rules! on_either {
    ($session:expr, $conn:ident => $body:expr) => {
        match $session {
            TlsSession::Client($conn) => $body,
            TlsSession::Server($conn) => $body,
        }
    };
}

impl TlsSession {
    pub(super) fn common(&self) -> &CommonState {
        on_either!(self, conn => conn)
    }

    /// One step over `input`; `out` must have capacity for [`MAX_RECORD`]. Returns how many bytes
    /// of the input were consumed.
    pub(super) fn step(
        &mut self,
        input: &mut [u8],
        out: &mut Outgoing,
    ) -> (usize, Result<SessionEvent, Error>) {
        on_either!(self, conn => stepped(conn.process_tls_records(input), out))
    }

    /// Hands out the record that [`SessionEvent::Plaintext`] announced.
    pub(super) fn take_plaintext<R>(&mut self, take: impl FnOnce(&[u8]) -> R) -> Option<R> {
        // rustls returns pending plaintext before it reads the input, so no input is needed.
        on_either!(self, conn => opened(conn.process_tls_records(&mut []), take))
    }

    /// Encrypts all of `plaintext` to `out`. `input` must hold no complete record.
    pub(super) fn seal(
        &mut self,
        input: &mut [u8],
        plaintext: &[u8],
        out: &mut Outgoing,
    ) -> Result<(), Error> {
        self.outbound(input, out, Outbound::Data(plaintext))
    }

    /// Encrypts close_notify to `out`. `input` must hold no complete record.
    pub(super) fn close(&mut self, input: &mut [u8], out: &mut Outgoing) -> Result<(), Error> {
        self.outbound(input, out, Outbound::CloseNotify)
    }

    fn outbound(
        &mut self,
        input: &mut [u8],
        out: &mut Outgoing,
        what: Outbound<'_>,
    ) -> Result<(), Error> {
        loop {
            let sealed =
                on_either!(self, conn => sealed(conn.process_tls_records(input), out, &what));
            if sealed? {
                return Ok(());
            }
        }
    }
}

fn stepped<D>(
    status: UnbufferedStatus<'_, '_, D>,
    out: &mut Outgoing,
) -> (usize, Result<SessionEvent, Error>) {
    let event = status.state.and_then(|state| match state {
        ConnectionState::EncodeTlsData(mut chunk) => {
            out.append(MAX_RECORD, |room| chunk.encode(room).ok())?;
            Ok(SessionEvent::Again)
        }
        ConnectionState::TransmitTlsData(transmit) => {
            // `out` keeps the order; the stream sends it.
            transmit.done();
            Ok(SessionEvent::Again)
        }
        ConnectionState::ReadTraffic(_) => Ok(SessionEvent::Plaintext),
        ConnectionState::PeerClosed => Ok(SessionEvent::PeerClosed),
        ConnectionState::BlockedHandshake
        | ConnectionState::WriteTraffic(_)
        | ConnectionState::Closed => Ok(SessionEvent::Drained),
        // Early data is switched off on both sides.
        _ => Err(Error::General("unexpected TLS state".into())),
    });
    (status.discard, event)
}

fn opened<D, R>(status: UnbufferedStatus<'_, '_, D>, take: impl FnOnce(&[u8]) -> R) -> Option<R> {
    match status.state {
        Ok(ConnectionState::ReadTraffic(mut traffic)) => match traffic.next_record() {
            Some(Ok(record)) => Some(take(record.payload)),
            _ => None,
        },
        _ => None,
    }
}

enum Outbound<'a> {
    Data(&'a [u8]),
    CloseNotify,
}

/// True when done, false when something else had to go first.
fn sealed<D>(
    status: UnbufferedStatus<'_, '_, D>,
    out: &mut Outgoing,
    what: &Outbound<'_>,
) -> Result<bool, Error> {
    // With no complete record in the input there is nothing to discard.
    match status.state? {
        ConnectionState::EncodeTlsData(mut chunk) => {
            out.append(MAX_RECORD, |room| chunk.encode(room).ok())?;
            Ok(false)
        }
        ConnectionState::TransmitTlsData(transmit) => {
            transmit.done();
            Ok(false)
        }
        ConnectionState::WriteTraffic(mut traffic) => {
            match what {
                Outbound::Data(plaintext) => {
                    out.append(sealed_len(plaintext.len()), |room| {
                        traffic.encrypt(plaintext, room).ok()
                    })?;
                }
                Outbound::CloseNotify => {
                    out.append(MAX_RECORD, |room| traffic.queue_close_notify(room).ok())?;
                }
            }
            Ok(true)
        }
        ConnectionState::Closed => Ok(true),
        _ => Err(Error::General("unexpected TLS state while writing".into())),
    }
}

/// The largest number of bytes that `plaintext` bytes become, with a key update before them.
pub(super) const fn sealed_len(plaintext: usize) -> usize {
    const OVERHEAD: usize = 5 + 1 + 8 + 16;
    let records = (plaintext / MAX_FRAGMENT).saturating_add(1);
    let overhead = records.saturating_mul(OVERHEAD).saturating_add(128);
    plaintext.saturating_add(overhead)
}
