//! HTTP: codec, routing, forwarding.

pub mod head;
pub mod path;
