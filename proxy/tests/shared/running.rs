//! A process that a test started: its condition and its end, watched by pidfd.

use std::os::fd::{AsFd, OwnedFd};
use std::process::{Child, Command, ExitStatus};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, WaitIdStatus, kill_process, pidfd_open, waitid,
};

/// A process that takes longer than this for anything is broken.
pub const TIMEOUT: Duration = Duration::from_secs(30);
/// Pause between two looks at a condition that only the process itself can tell.
const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// Killed and reaped when dropped.
pub struct Running {
    child: Child,
    /// Readable once the process has ended.
    end: OwnedFd,
}

impl Running {
    pub fn start(command: &mut Command) -> Self {
        let child = command.spawn().unwrap();
        let end = pidfd_open(Pid::from_child(&child), PidfdFlags::empty()).unwrap();
        Self { child, end }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Waits until `found` gives something. It is asked again and again, because nothing in
    /// another process can wake us; the end of the process ends the wait at once.
    pub fn until<T>(&self, what: &str, mut found: impl FnMut() -> Option<T>) -> T {
        let began = Instant::now();
        loop {
            if let Some(found) = found() {
                return found;
            }
            if let Some(status) = self.ends_within(LOOK_AGAIN) {
                panic!("{what}: the process ended: {status:?}");
            }
            let waited = began.elapsed();
            assert!(waited < TIMEOUT, "{what}: not within {TIMEOUT:?}");
        }
    }

    /// Waits for its end.
    pub fn ended(&mut self) -> ExitStatus {
        let ended = self.ends_within(TIMEOUT);
        assert!(ended.is_some(), "still running after {TIMEOUT:?}");
        self.child.wait().unwrap()
    }

    fn ends_within(&self, time: Duration) -> Option<WaitIdStatus> {
        let mut descriptors = [PollFd::new(&self.end, PollFlags::IN)];
        poll(&mut descriptors, Some(&time.try_into().unwrap())).unwrap();
        let look = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        waitid(WaitId::PidFd(self.end.as_fd()), look).unwrap()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Already ended is as good.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
