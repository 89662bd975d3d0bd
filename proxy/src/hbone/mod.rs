//! HBONE: connections inside an HTTP/2 connection; what follows a CONNECT with a 2xx response.
//!
//! - `client`: sends CONNECT; `server`: receives it
//! - `pool`: upstream connections that carry tunnels
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

pub(crate) mod client;
pub(crate) mod pool;
pub(crate) mod server;

pub use self::client::Connect;
pub use self::server::{BadTarget, ConnectRequest, ConnectTarget, TunnelServer};
