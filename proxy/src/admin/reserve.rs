//! Descriptors that a port keeps for its own connections, so that a probe is answered even when the
//! process has no others left.
//!
//! A connection that could not be accepted for want of a descriptor takes one of them. When it
//! ends, `dup3` replaces it by a kept descriptor in one system call, so that no other thread gets
//! the number in between.

use std::fs::File;
use std::io::{self, IoSlice};
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use rustix::io::{DupFlags, Errno, dup3};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// Descriptors that one port keeps.
const KEPT: usize = 4;

/// See the module.
pub(super) struct Reserve {
    /// What the kept descriptors are duplicates of.
    source: OwnedFd,
    kept: Mutex<Vec<OwnedFd>>,
}

impl Reserve {
    /// # Errors
    /// When there are no descriptors.
    pub(super) fn new() -> io::Result<Arc<Self>> {
        let reserve = Reserve {
            source: File::open("/dev/null")?.into(),
            kept: Mutex::default(),
        };
        reserve.fill();
        Ok(Arc::new(reserve))
    }

    /// Replaces kept descriptors that other threads have got, as far as there are free ones.
    pub(super) fn fill(&self) {
        let mut kept = self.kept();
        while kept.len() < KEPT
            && let Ok(one) = self.source.try_clone()
        {
            kept.push(one);
        }
    }

    /// Closes a kept descriptor if accepting failed for want of one; `false`: it failed otherwise,
    /// or none is left.
    pub(super) fn spend(&self, error: &io::Error) -> bool {
        let errno = Errno::from_io_error(error);
        let is_out = matches!(errno, Some(Errno::MFILE | Errno::NFILE));
        is_out && self.kept().pop().is_some()
    }

    /// Turns the descriptor of a connection that has ended into a kept one, if one is missing.
    fn take_back(&self, mut ended: OwnedFd) {
        let mut kept = self.kept();
        // Otherwise dropping `ended` closes it.
        if kept.len() < KEPT && dup3(&self.source, &mut ended, DupFlags::CLOEXEC).is_ok() {
            kept.push(ended);
        }
    }

    fn kept(&self) -> MutexGuard<'_, Vec<OwnedFd>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A connection whose descriptor goes to the reserve when it ends.
pub(super) struct ReservedStream {
    /// `None` only during `drop`.
    tcp: Option<TcpStream>,
    reserve: Arc<Reserve>,
}

impl ReservedStream {
    pub(super) fn new(tcp: TcpStream, reserve: &Arc<Reserve>) -> Self {
        let (tcp, reserve) = (Some(tcp), reserve.clone());
        ReservedStream { tcp, reserve }
    }

    fn tcp(self: Pin<&mut Self>) -> io::Result<Pin<&mut TcpStream>> {
        let tcp = self.get_mut().tcp.as_mut();
        tcp.map(Pin::new)
            .ok_or_else(|| io::ErrorKind::NotConnected.into())
    }
}

impl Drop for ReservedStream {
    fn drop(&mut self) {
        if let Some(Ok(tcp)) = self.tcp.take().map(TcpStream::into_std) {
            self.reserve.take_back(tcp.into());
        }
    }
}

impl AsyncRead for ReservedStream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.tcp()?.poll_read(cx, buf)
    }
}

impl AsyncWrite for ReservedStream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.tcp()?.poll_write(cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.tcp()?.poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.tcp()?.poll_shutdown(cx)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        segments: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.tcp()?.poll_write_vectored(cx, segments)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }
}
