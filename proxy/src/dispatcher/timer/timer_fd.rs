//! A descriptor that becomes readable when its time has come (timerfd_create(2)).

use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// One kernel timer, registered with the runtime in which it is made.
pub struct TimerFd(AsyncFd<OwnedFd>);

impl TimerFd {
    /// # Errors
    /// When no descriptor is left. Panics outside of a runtime with I/O.
    #[allow(unsafe_code)] // registration of a descriptor
    pub fn new() -> io::Result<Self> {
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        let timer = timerfd_create(TimerfdClockId::Monotonic, flags)?;
        // SAFETY: an `OwnedFd` is open and not shared for as long as it exists, and the result owns
        // it.
        let registered = unsafe { AsyncFd::register_with_interest(timer, Interest::READABLE) };
        Ok(Self(registered?))
    }

    /// Expires `after` from now, or never; replaces the earlier setting.
    pub(super) fn set(&self, after: Option<Duration>) {
        let once = |after: Duration| Timespec {
            tv_sec: i64::try_from(after.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: after.subsec_nanos().into(),
        };
        let spec = Itimerspec {
            it_interval: once(Duration::ZERO),
            // Zero would switch it off.
            it_value: once(
                after.map_or(Duration::ZERO, |after| after.max(Duration::from_nanos(1))),
            ),
        };
        let set = timerfd_settime(&self.0, TimerfdTimerFlags::empty(), &spec);
        debug_assert!(set.is_ok(), "a timer of ours and a time in range");
    }

    /// Ready once the timer has expired. Each expiry is an edge for epoll, so the descriptor need
    /// not be read.
    pub(super) async fn expired(&self) {
        match self.0.readable().await {
            Ok(mut ready) => ready.clear_ready(),
            // The runtime is shutting down.
            Err(_) => std::future::pending().await,
        }
    }
}
