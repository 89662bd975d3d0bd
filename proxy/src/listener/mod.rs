//! Where connections come in.
//!
//! - `bound`: which addresses are listened on, following the snapshot
//! - `socket`: listening sockets; where a redirected connection wanted to go
//! - `accept`: the accept loop, running out of descriptors; `connection_limit`: how many may be open
//! - `conn`: one connection, from accept to the path that serves it; `entry`: by whose rules
//! - `admission`: whether it would be let in still
//! - `refused`: why one was closed before
//! - `first`: its first bytes, and servers that speak before their clients
//! - `detect`: what those bytes are (sans-IO)
//! - `chain`: which filter chain that makes

mod accept;
pub(crate) mod admission;
mod bound;
pub mod chain;
pub(crate) mod conn;
pub mod connection_limit;
pub mod detect;
mod entry;
mod first;
pub(crate) mod refused;
pub mod socket;

pub use admission::would_admit;
pub use bound::Bound;
pub use first::ServerFirstCache;
