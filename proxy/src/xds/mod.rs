//! The ADS client, incremental or state of the world.
//!
//! - `resource_type`: the resource types; `message`: requests and responses without their encoding
//! - `cache`: the client as a sans-IO state machine: subscriptions, ACK/NACK, warming, on demand
//! - `client`: the gRPC stream, with reconnects by `backoff`; `stream`, `codec`: its two protocol
//!   variants, to and from protobuf; `handle`: queries of the client's state; `versions`: one
//!   version for all resources of a type
//! - `channel`: connections to the control plane, shared by ADS, CA and Inspect
//! - `apply`: validated resources → compiler → snapshot → store; answers the data path
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

pub mod apply;
pub mod backoff;
pub mod cache;
pub mod channel;
pub mod client;
pub mod codec;
mod handle;
pub mod message;
pub mod resource_type;
mod stream;
mod versions;
