//! HTTP/2, on the `h2` crate.
//!
//! - `server`: a downstream stream; `client`: an upstream connection and its streams
//! - `stream`: what both ends of a stream have in common: bounded sending, body reading
//! - `tunnel`: connections inside an HTTP/2 connection, both ends
//! - `budget`: what a client may do that costs us and not it
//! - `convert`: our head type and `http`'s, both ways; nowhere else do `http` types show
//! - `chunk`: what h2 sends; `cross`: one [`Stream`](crate::stream::Stream) as h2 wants it, with
//!   what was read already

mod budget;
mod chunk;
mod client;
mod convert;
mod cross;
mod server;
mod stream;
pub mod tunnel;

pub use budget::{Budget, RAPID};
pub use chunk::Chunk;
pub use client::{ClientStream, Connected, handshake, keepalive};
pub use convert::{Bounds, request_in};
pub use cross::Prefixed;
pub use server::ServerStream;
