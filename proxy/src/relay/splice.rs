//! Bulk between two plain sockets through a kernel pipe: the bytes never enter this process.
//!
//! One [`Splice`] is one direction. It holds a pipe only while bytes are on their way, and switches
//! itself off when reads are small, or no pipe is available.

use std::io::{self, ErrorKind};
use std::os::fd::AsFd;
use std::task::{Context, Poll, ready};

use tokio::io::Interest;
use tokio::net::TcpStream;

use crate::dispatcher::pipe::{Pipe, Pipes, WANTED};

/// A splice that moves less than this is a small one.
const LITTLE: usize = 16 * 1024;
/// Small splices in a row before it ends.
const BULK_ENDS: u8 = 8;

/// Splicing needs a buffer limit of at least this, since a pipe can hold so many bytes.
pub const HOLDS: usize = WANTED;

/// See the module.
#[derive(Default)]
pub struct Splice {
    /// In a box: few connections have one, and those for long.
    pipe: Option<Box<Pipe>>,
    on: bool,
    /// Small splices in a row.
    little: u8,
}

impl Splice {
    /// Bytes go through a pipe from now on.
    pub fn begin(&mut self) {
        (self.on, self.little) = (true, 0);
    }

    /// Whether the next bytes are to be read into a pipe.
    pub fn is_on(&self) -> bool {
        self.on
    }

    /// Bytes that were read and not yet written.
    pub fn held(&self) -> usize {
        self.pipe.as_ref().map_or(0, |pipe| pipe.held())
    }

    /// Gives an empty pipe back. Bytes in a dropped pipe are lost.
    pub fn release(&mut self) {
        self.pipe = None;
    }

    /// The rest goes through buffers.
    pub fn end(&mut self) {
        self.on = false;
    }

    /// Reads at most `most` bytes of what is there; 0 at the end of the stream. Only while nothing
    /// is held.
    ///
    /// # Errors
    /// `WouldBlock` when nothing is there, or the bytes have to go through buffers, when
    /// [`Splice::is_on`] is false; otherwise as `splice(2)`.
    pub fn fill(&mut self, from: &TcpStream, most: usize, pipes: &Pipes) -> io::Result<usize> {
        let Some(pipe) = self.pipe.take().or_else(|| pipes.take().map(Box::new)) else {
            self.end();
            return Err(ErrorKind::WouldBlock.into());
        };
        let pipe = self.pipe.insert(pipe);
        match from.try_io(Interest::READABLE, || pipe.fill(from.as_fd(), most)) {
            Err(error) if error.kind() == ErrorKind::InvalidInput => {
                // This kind of socket cannot be spliced.
                self.release();
                self.end();
                Err(ErrorKind::WouldBlock.into())
            }
            Ok(n) => {
                self.little = match n < LITTLE {
                    true => self.little.saturating_add(1),
                    false => 0,
                };
                if self.little >= BULK_ENDS {
                    self.end();
                }
                Ok(n)
            }
            error => error,
        }
    }

    /// Writes some of what is held; ready with 0 when nothing is.
    ///
    /// # Errors
    /// As `splice(2)`.
    pub fn poll_drain(&mut self, cx: &mut Context<'_>, to: &TcpStream) -> Poll<io::Result<usize>> {
        let Some(pipe) = self.pipe.as_mut().filter(|pipe| pipe.held() > 0) else {
            return Poll::Ready(Ok(0));
        };
        loop {
            match to.try_io(Interest::WRITABLE, || pipe.drain(to.as_fd())) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    ready!(to.poll_write_ready(cx))?;
                }
                done => return Poll::Ready(done),
            }
        }
    }
}
