//! The captured resolver: names of the mesh answered here, everything else forwarded.
//!
//! - `question`: what a message asks, and answers to it (no I/O)
//! - `resolve`: mesh or elsewhere, with search paths
//! - `forward`: upstream resolvers
//! - `server`: UDP and TCP sockets, bounded

mod forward;
mod question;
mod resolve;
pub mod server;

#[cfg(test)]
mod tests;

use std::net::SocketAddr;

/// anyam.bootstrap.v1.DnsProxy, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    pub listen: SocketAddr,
    /// Empty: names outside the mesh are refused.
    pub upstream: Vec<SocketAddr>,
    /// Tried behind a name, in order; they are the mesh's own.
    pub search: Vec<String>,
}
