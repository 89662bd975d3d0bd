//! `anyam-proxy wait`: waits until the sidecar of this network namespace is ready.
//!
//! A classic sidecar runs it as its `postStart` hook: the kubelet starts a pod's containers in
//! order, and the next one only after that hook has ended.

use std::thread;
use std::time::{Duration, Instant};

use crate::loopback;

/// Between two requests. The sidecar is another process, and its readiness port has no subscription:
/// it is polled, as the kubelet's probes do.
const PAUSE: Duration = Duration::from_millis(100);

/// The sidecar was not ready in time.
#[derive(Debug, thiserror::Error)]
#[error("the sidecar whose readiness port is {port} was not ready within {within:?}: {why}")]
pub struct NotReady {
    port: u16,
    within: Duration,
    why: String,
}

/// Blocks the calling thread. `port`: the sidecar's readiness port on loopback.
///
/// # Errors
/// The sidecar was not ready in time; with the last answer.
pub fn wait(port: u16, within: Duration) -> Result<(), NotReady> {
    let began = Instant::now();
    loop {
        let Err(why) = loopback::request(port, "GET /healthz/ready") else {
            return Ok(());
        };
        let left = within.saturating_sub(began.elapsed());
        if left.is_zero() {
            return Err(NotReady { port, within, why });
        }
        thread::sleep(PAUSE.min(left));
    }
}
