//! `anyam-proxy drain`: asks the sidecar of this network namespace to drain inbound connections.
//!
//! A native sidecar has it as its `preStop` hook: Kubernetes runs that when a pod begins to end,
//! beside the hooks of the app's containers, but sends the sidecar's SIGTERM only after the app has
//! ended. Until then its callers would keep their connections, to an app that is about to stop.

use crate::loopback;

/// The sidecar does not drain.
#[derive(Debug, thiserror::Error)]
#[error("the sidecar whose admin port is {port} does not drain: {why}")]
pub struct NotDraining {
    port: u16,
    why: String,
}

/// Blocks the calling thread until the drain has begun. `port`: the sidecar's admin port on loopback.
///
/// # Errors
/// There is no such sidecar, or it refuses.
pub fn begin(port: u16) -> Result<(), NotDraining> {
    let asked = loopback::request(port, "POST /drain_listeners?inboundonly");
    asked.map_err(|why| NotDraining { port, why })
}
