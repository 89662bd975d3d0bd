//! HTTP/2, on the `h2` crate.
//!
//! - `server`: a downstream stream; `client`: an upstream connection and its streams
//! - `stream`: what both ends of a stream have in common: bounded sending, body reading
//! - `convert`: our head type and `http`'s, both ways; nowhere else do `http` types show
//! - `cross`: one [`Stream`](crate::stream::Stream) as h2 wants it, with what was read already

mod client;
mod convert;
mod cross;
mod server;
mod stream;

pub use client::{ClientStream, Connected, handshake, keepalive};
pub use convert::{Bounds, request_in};
pub use cross::Prefixed;
pub use server::ServerStream;
