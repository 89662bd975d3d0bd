//! HTTP: codec, routing, forwarding.

pub mod authority;
pub mod h1;
pub mod head;
mod header_id;
pub mod observe;
pub mod path;
pub mod serve;
pub mod spelling;
