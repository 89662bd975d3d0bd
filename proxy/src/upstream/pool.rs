//! Connections to upstreams, per worker.

use std::rc::Rc;

use crate::worker::Worker;

/// All pools of a worker.
#[derive(Default)]
pub struct Pools {}

impl Pools {
    /// Closes what was idle for too long or was closed by the other end.
    pub async fn sweep(&self, worker: &Rc<Worker>) {
        let _ = worker;
    }
}
