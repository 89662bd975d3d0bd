//! HBONE: connections inside an HTTP/2 connection; what follows a CONNECT with a 2xx response.
//!
//! - `client`: sends CONNECT; `server`: receives it
//! - `pool`: upstream connections that carry tunnels

pub(crate) mod client;
pub(crate) mod pool;
pub(crate) mod server;

pub use self::client::Connect;
pub use self::server::{BadTarget, ConnectRequest, ConnectTarget, Server};
