//! A process of a mesh, watched by its pidfd.

use std::os::fd::OwnedFd;
use std::process::Child;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

/// A process, ended and reaped on drop.
pub struct Process {
    child: Child,
    /// Readable once it has ended; `None`: we ended it.
    ends: Option<OwnedFd>,
}

impl Process {
    pub fn new(child: Child) -> Self {
        let ends = pidfd_open(Pid::from_child(&child), PidfdFlags::empty());
        Self {
            child,
            ends: Some(ends.unwrap()),
        }
    }

    /// SIGKILL, and reaped.
    pub fn kill(&mut self) {
        self.ends = None;
        // Already ended is as good.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Waits for so long; at once true when it ends by itself.
    pub fn ends_within(&self, time: Duration) -> bool {
        let watched = self.ends.iter();
        let mut watched: Vec<_> = watched
            .map(|ends| PollFd::new(ends, PollFlags::IN))
            .collect();
        let time = Timespec::try_from(time).unwrap();
        poll(&mut watched, Some(&time)).unwrap() > 0
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}
