//! The replicas of a control plane ask each other, so that whichever is asked answers for all proxies. Each
//! shows its own certificate: mutual TLS by the mesh's CA, and the identity must be the control plane's.
//!
//! - [`addresses`]: where the others are, by the EndpointSlices of the control plane's Service
//! - [`client`]: asks them, with a deadline for each; `connection`: one request
//! - [`server`]: answers them
//! - [`mod@start`]: runs both beside a control plane
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

pub mod addresses;
mod client;
mod connection;
mod server;
mod start;

pub use self::start::{ReplicasError, ReplicasOptions, RunningReplicas, start};

/// Before the paths of what replicas ask each other.
const BASE: &str = "/replica/v1";
