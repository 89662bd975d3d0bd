//! Aggregated discovery.
//!
//! - [`resources`]: the trait that translation implements.
//! - [`session`]: one stream as a sans-IO state machine, with [`subscription`] for its state of one
//!   type, and `delta` and `sotw` for what the two protocols do differently; `budget`: how much state
//!   that is.
//! - [`debounce`]: how long changes are gathered; `dispatch`: which streams a change wakes.
//! - [`listen`]: accept and TLS; [`admission`]: limits of connections; [`node`]: what a node claims,
//!   checked against its certificate; [`streams`]: limits of streams; [`outbound`]: their ends.
//! - [`service`]: the gRPC service that drives sessions, [`wire`](self) their messages;
//!   [`registry`]: the connected nodes.
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

pub mod admission;
mod budget;
pub mod debounce;
mod delta;
mod dispatch;
pub mod listen;
pub mod node;
pub mod outbound;
pub mod registry;
pub mod resources;
pub mod service;
pub mod session;
mod sotw;
pub mod streams;
pub mod subscription;
mod wire;

#[cfg(test)]
mod session_tests;
#[cfg(test)]
pub(crate) mod testing;

pub use resources::{Extent, History, Resource, Resources, Scope, TlsFiles, Touched, View};
pub use session::{KindStatus, Push, RequestError, Session, SessionLimits};
pub use subscription::{ProtocolVariant, label};
