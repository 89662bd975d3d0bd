//! System calls on sockets that the data path makes itself, and the options it sets.
//!
//! Made directly, because the C library makes each of them a point at which a thread may be
//! cancelled, which costs as much again as the rest of its wrapper.
#![cfg_attr(
    not(test),
    deny(
        clippy::arithmetic_side_effects,
        clippy::expect_used,
        clippy::indexing_slicing,
        clippy::panic,
        clippy::string_slice,
        clippy::unreachable,
        clippy::unwrap_used
    )
)]

use std::io::{self, ErrorKind, IoSlice, Write};
use std::os::fd::AsRawFd;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::BytesMut;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{RecvFlags, SendFlags, recv, send};
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
/// `WouldBlock` when nothing is there; else as `recv(2)`.
pub fn try_read(tcp: &TcpStream, buf: &mut [u8]) -> io::Result<usize> {
    let room = buf.len();
    try_read_with(tcp, room, || recv(tcp, buf, RecvFlags::empty()))
}

/// [`try_read`] into the spare capacity of `buf`, which must not be zero.
///
/// # Errors
/// As [`try_read`].
#[allow(unsafe_code)]
pub fn try_read_buf(tcp: &TcpStream, buf: &mut BytesMut) -> io::Result<usize> {
    let held = buf.len();
    let spare = buf.spare_capacity_mut();
    let room = spare.len();
    let read = try_read_with(tcp, room, || {
        recv(tcp, spare, RecvFlags::empty()).map(|(_, read)| ((), read))
    })?;
    // SAFETY: `recv` has written so many bytes behind those that were there, and not more.
    unsafe { buf.set_len(held.saturating_add(read)) };
    Ok(read)
}

fn try_read_with<T>(
    tcp: &TcpStream,
    room: usize,
    read: impl FnOnce() -> rustix::io::Result<(T, usize)>,
) -> io::Result<usize> {
    let mut short = None;
    let read = tcp.try_io(Interest::READABLE, || {
        let (_, n) = read()?;
        if n > 0 && n < room {
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
/// `WouldBlock` when nothing fits; else as `send(2)`.
pub fn try_write(tcp: &TcpStream, buf: &[u8]) -> io::Result<usize> {
    try_write_with(tcp, buf.len(), || Ok(send(tcp, buf, SendFlags::NOSIGNAL)?))
}

/// [`try_write`] of several slices in one system call.
///
/// # Errors
/// As [`try_write`].
pub fn try_write_vectored(tcp: &TcpStream, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
    let total = bufs.iter().map(|buf| buf.len()).sum();
    try_write_with(tcp, total, || (&*SockRef::from(tcp)).write_vectored(bufs))
}

fn try_write_with(
    tcp: &TcpStream,
    total: usize,
    write: impl FnOnce() -> io::Result<usize>,
) -> io::Result<usize> {
    let mut short = None;
    let written = tcp.try_io(Interest::WRITABLE, || {
        let n = write()?;
        if n < total {
            short = Some(n);
            return Err(ErrorKind::WouldBlock.into());
        }
        Ok(n)
    });
    short.map_or(written, Ok)
}

/// [`try_write`] once that will do something.
pub fn poll_write(tcp: &TcpStream, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
    poll_written(tcp, cx, || try_write(tcp, buf))
}

/// [`try_write_vectored`] once that will do something.
pub fn poll_write_vectored(
    tcp: &TcpStream,
    cx: &mut Context<'_>,
    bufs: &[IoSlice<'_>],
) -> Poll<io::Result<usize>> {
    poll_written(tcp, cx, || try_write_vectored(tcp, bufs))
}

/// Writes first and waits only on `WouldBlock`: nearly always the socket accepts bytes.
fn poll_written(
    tcp: &TcpStream,
    cx: &mut Context<'_>,
    mut write: impl FnMut() -> io::Result<usize>,
) -> Poll<io::Result<usize>> {
    loop {
        match write() {
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                ready!(tcp.poll_write_ready(cx))?;
            }
            done => return Poll::Ready(done),
        }
    }
}

/// Socket options of a connection: keepalive and user time-out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TcpOptions {
    pub keepalive: Option<KeepaliveOptions>,
    /// Closes a connection whose peer acknowledges nothing for this long (`TCP_USER_TIMEOUT`).
    pub user_timeout: Option<Duration>,
}

/// Probes of an idle connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeepaliveOptions {
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
    // Fails only on a closed socket, which needs no reset.
    let _ = SockRef::from(tcp).set_linger(Some(Duration::ZERO));
}

/// The state of the peer's end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PeerEnd {
    Open,
    /// FIN arrived.
    HalfClosed,
    /// A reset arrived, or the connection timed out.
    Gone,
}

/// Polls the kernel without reading, which also reports a FIN behind unread bytes.
pub fn peer_end(tcp: &TcpStream) -> PeerEnd {
    let mut polled = [PollFd::new(tcp, PollFlags::RDHUP)];
    match poll(&mut polled, Some(&Timespec::default())) {
        Ok(1..) => {}
        // No event; a failure (no memory) is treated alike.
        Ok(0) | Err(_) => return PeerEnd::Open,
    }
    let seen = polled[0].revents();
    if seen.intersects(PollFlags::ERR | PollFlags::HUP | PollFlags::NVAL) {
        PeerEnd::Gone
    } else {
        PeerEnd::HalfClosed
    }
}

/// Bytes written to a connection that we opened which the peer's kernel has acknowledged.
#[allow(unsafe_code)]
pub fn acknowledged(tcp: &TcpStream) -> Option<u64> {
    // SAFETY: plain numbers, for all of which zero is a value.
    let mut info: libc::tcp_info = unsafe { std::mem::zeroed() };
    let whole = libc::socklen_t::try_from(size_of_val(&info)).ok()?;
    let mut filled = whole;
    // SAFETY: the kernel writes no more than `filled` bytes into `info`, and says how many.
    let done = unsafe {
        libc::getsockopt(
            tcp.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            (&raw mut info).cast(),
            &raw mut filled,
        )
    };
    // Older kernels fill fewer fields. The SYN counts as a byte.
    (done == 0 && filled == whole).then(|| info.tcpi_bytes_acked.saturating_sub(1))
}

/// The pending error of a socket (`SO_ERROR`), if any; this clears it.
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

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    async fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (client, server) = tokio::join!(TcpStream::connect(address), listener.accept());
        (client.unwrap(), server.unwrap().0)
    }

    #[tokio::test]
    async fn acknowledged_bytes_tell_a_request_refused_from_one_received() {
        for received in [false, true] {
            let (mut client, mut server) = pair().await;
            client.write_all(b"first").await.unwrap();
            let mut bytes = [0; 5];
            server.read_exact(&mut bytes).await.unwrap();
            server.write_all(b"hi").await.unwrap();
            client.read_exact(&mut bytes[..2]).await.unwrap();
            assert_eq!(acknowledged(&client), Some(5));
            if received {
                client.write_all(b"again").await.unwrap();
                server.read_exact(&mut bytes).await.unwrap();
            }
            drop(server);
            // FIN is there; what is written now is answered by a reset.
            client.readable().await.unwrap();
            client.write_all(b"more").await.unwrap();
            while peer_end(&client) != PeerEnd::Gone {
                tokio::task::yield_now().await;
            }
            assert_eq!(client.read(&mut bytes).await.unwrap(), 0);
            assert!(take_error(&client).is_some());
            let acknowledged = acknowledged(&client).unwrap();
            assert_eq!(acknowledged, if received { 10 } else { 5 });
        }
    }

    #[tokio::test]
    async fn a_peers_end_is_seen_behind_unread_bytes() {
        let (client, mut server) = pair().await;
        server.write_all(b"unread").await.unwrap();
        client.readable().await.unwrap();
        assert_eq!(peer_end(&client), PeerEnd::Open);
        server.shutdown().await.unwrap();
        while peer_end(&client) == PeerEnd::Open {
            tokio::task::yield_now().await;
        }
        assert_eq!(peer_end(&client), PeerEnd::HalfClosed);
        reset_on_close(&server);
        drop(server);
        while peer_end(&client) != PeerEnd::Gone {
            tokio::task::yield_now().await;
        }
    }
}
