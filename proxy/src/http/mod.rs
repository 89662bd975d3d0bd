//! HTTP: codecs, routing, forwarding.
//!
//! In the order a request meets them:
//! - [`connection`]: which codec; what the requests of a connection share
//! - [`h1`], [`h2`]: the codecs, each with its server connection (`serve`)
//! - [`request`]: a request's life (`handle`): sanitise, route, filters, redirect, local reply, log
//! - [`filter`]: HTTP filters
//! - [`forward`]: attempts, retries, bodies, upgrades, mirrors
//! - [`pool`]: connections to upstreams
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

pub mod connection;
pub mod filter;
pub mod forward;
pub mod h1;
pub mod h2;
pub mod pool;
pub mod request;
