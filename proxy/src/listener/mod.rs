//! Accepts connections and passes each to the filter chain that serves it.
//!
//! - `bound`: opens and closes listening sockets as the snapshot requires
//! - `socket`: listening sockets; the original destination of redirected connections
//! - `accept`: the accept loop, with descriptors running out, and more connections than
//!   [`connection_limit`](crate::connection_limit) allows
//! - `conn`: one connection, from accept to the path that serves it; `entry`: the listener of its
//!   original destination
//! - `authorisation`: the chain's network RBAC filters
//! - `admission`: whether an open connection would still be accepted
//! - `refused`: why one was closed before
//! - `first`: its first bytes, and server-first protocols
//! - `detect`: what those bytes are (sans-IO)
//! - `chain`: which filter chain that makes
//! - `tunnel`: connections inside an HTTP/2 connection, each through its own filter chain
//! - [`ListenerContext`]: what they share
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

mod accept;
pub(crate) mod admission;
pub(crate) mod authorisation;
mod bound;
pub mod chain;
pub(crate) mod conn;
pub mod detect;
pub(crate) mod entry;
mod first;
pub(crate) mod refused;
pub mod socket;
pub(crate) mod tunnel;

use std::ops::Deref;
use std::rc::Rc;

use crate::dispatcher::timer::TimerFd;
use crate::http::pool::Pools;
use crate::supervise::restart_on_panic;
use crate::worker::Worker;

pub use admission::readmit;
pub use bound::Bound;
pub use first::ServerFirstCache;
/// What the connections of all listeners of a worker share.
pub struct ListenerContext {
    pub worker: Rc<Worker>,
    /// Connections to upstreams.
    pub pools: Rc<Pools>,
    /// Destinations whose servers speak first.
    pub server_first: ServerFirstCache,
}

impl ListenerContext {
    pub fn new(worker: Rc<Worker>) -> Rc<Self> {
        Rc::new(Self {
            worker,
            pools: Rc::default(),
            server_first: ServerFirstCache::default(),
        })
    }

    /// Drives the worker's timers and closes idle upstream connections. Runs beside the
    /// connections, for as long as they do.
    pub async fn run(&self, timer_fd: TimerFd) {
        let sweeping = restart_on_panic(|| self.pools.sweep(&self.worker));
        tokio::join!(self.worker.run(timer_fd), sweeping);
    }
}

impl Deref for ListenerContext {
    type Target = Rc<Worker>;

    fn deref(&self) -> &Self::Target {
        &self.worker
    }
}
