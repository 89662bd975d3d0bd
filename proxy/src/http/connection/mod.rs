//! A downstream HTTP connection.
//!
//! - `serve`: which codec (configuration, ALPN, or the HTTP/2 preface)
//! - `conn`: what the requests of a connection share; `io`: its socket and buffers

pub mod conn;
pub mod io;
pub mod serve;
