//! HTTP/2, on the `h2` crate.
//!
//! - `serve`: a downstream connection; `server`: one of its streams
//! - `client`: an upstream connection and its streams; `interim`: the interim responses of one
//! - `keepalive`: pings to either; `failure`: what an upstream's errors mean
//! - `stream`: what both ends of a stream have in common: bounded sending, body reading
//! - `reset_limiter`: resets a client may cause before GOAWAY
//! - `convert`: our head type and `http`'s, both ways; `http` types are seen only there, where
//!   streams begin (`serve`, and [`hbone`](crate::hbone)), and in `stream`
//! - `prefixed`: one [`Stream`](crate::stream::Stream) for h2, with the bytes that were read
//!   before, in which the crate `http2_frames` counts control frames

pub(crate) mod client;
mod convert;
mod failure;
mod interim;
mod keepalive;
pub(crate) mod prefixed;
pub(crate) mod reset_limiter;
pub(super) mod serve;
pub(crate) mod server;
mod stream;

pub use crate::stream::chunk::Chunk;
pub use client::{ClientStream, Connected, handshake};
pub use convert::{HeadBounds, request_in};
pub(crate) use failure::blame_server;
pub use keepalive::keepalive;
pub use prefixed::{Prefixed, WireState};
pub use reset_limiter::{RAPID, ResetLimiter};
pub use server::ServerStream;
