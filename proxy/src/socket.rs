//! System calls on sockets that the data path makes itself, and the options it sets.

use std::io::{self, ErrorKind, IoSlice, Read, Write};
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::io::Interest;
use tokio::net::TcpStream;

/// Reads what is there into `buf`, without waiting. `Ok(0)` is the end of the stream.
///
/// A short read empties the socket, so it also clears tokio's readiness: the next wait goes to
/// the poller at once instead of through a read that only finds `EAGAIN`. (The end of the stream
/// is remembered by tokio apart from that, and cannot be lost.)
///
/// # Errors
/// `WouldBlock` when nothing is there; else as `read(2)`.
pub fn try_read(tcp: &TcpStream, buf: &mut [u8]) -> io::Result<usize> {
    let mut short = None;
    let read = tcp.try_io(Interest::READABLE, || {
        let n = (&*SockRef::from(tcp)).read(buf)?;
        if n > 0 && n < buf.len() {
            short = Some(n);
            return Err(ErrorKind::WouldBlock.into());
        }
        Ok(n)
    });
    short.map_or(read, Ok)
}

/// Writes what fits, without waiting. A short write clears readiness, as in [`try_read`].
///
/// # Errors
/// `WouldBlock` when nothing fits; else as `write(2)`.
pub fn try_write(tcp: &TcpStream, buf: &[u8]) -> io::Result<usize> {
    try_write_with(tcp, buf.len(), |mut socket| socket.write(buf))
}

/// [`try_write`] of several slices in one system call.
///
/// # Errors
/// As [`try_write`].
pub fn try_write_vectored(tcp: &TcpStream, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
    let total = bufs.iter().map(|buf| buf.len()).sum();
    try_write_with(tcp, total, |mut socket| socket.write_vectored(bufs))
}

fn try_write_with(
    tcp: &TcpStream,
    total: usize,
    write: impl FnOnce(&socket2::Socket) -> io::Result<usize>,
) -> io::Result<usize> {
    let mut short = None;
    let written = tcp.try_io(Interest::WRITABLE, || {
        let n = write(&SockRef::from(tcp))?;
        if n < total {
            short = Some(n);
            return Err(ErrorKind::WouldBlock.into());
        }
        Ok(n)
    });
    short.map_or(written, Ok)
}

/// How a connection is kept and given up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TcpOptions {
    pub keepalive: Option<Keepalive>,
    /// Give up on a peer that acknowledges nothing for so long (`TCP_USER_TIMEOUT`).
    pub user_timeout: Option<Duration>,
}

/// Probes of an idle connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keepalive {
    pub time: Duration,
    pub interval: Duration,
    pub probes: u32,
}

/// Prepares a socket for the data path: no Nagle delay, and `options`.
///
/// # Errors
/// As `setsockopt(2)`; most likely the peer is already gone.
pub fn prepare(tcp: &TcpStream, options: &TcpOptions) -> io::Result<()> {
    let socket = SockRef::from(tcp);
    socket.set_tcp_nodelay(true)?;
    if let Some(keepalive) = options.keepalive {
        socket.set_tcp_keepalive(
            &TcpKeepalive::new()
                .with_time(keepalive.time)
                .with_interval(keepalive.interval)
                .with_retries(keepalive.probes),
        )?;
    }
    if options.user_timeout.is_some() {
        socket.set_tcp_user_timeout(options.user_timeout)?;
    }
    Ok(())
}

/// Makes the coming close a reset, so that the peer learns that its stream was cut, not ended.
pub fn reset_on_close(tcp: &TcpStream) {
    // Fails only on a socket that is no more, which needs no reset.
    let _ = SockRef::from(tcp).set_linger(Some(Duration::ZERO));
}

/// The error that waits on a socket, if any; it is gone after this.
pub fn take_error(tcp: &TcpStream) -> Option<io::Error> {
    tcp.take_error().ok().flatten()
}

/// Ends the writing side; the peer reads the end of the stream.
///
/// # Errors
/// As `shutdown(2)`, but a peer that is already gone is none.
pub fn shutdown_write(tcp: &TcpStream) -> io::Result<()> {
    match SockRef::from(tcp).shutdown(std::net::Shutdown::Write) {
        Err(error) if error.kind() == ErrorKind::NotConnected => Ok(()),
        done => done,
    }
}
