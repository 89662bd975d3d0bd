//! Clusters at run time.
//!
//! - `cluster`: picking an endpoint, reporting to outlier detection; `refresh`: publishing endpoints
//!   and what balancing is computed to be; `local`: where the proxy itself is
//! - `endpoint`: one, and the set of a cluster; `endpoints`: made for a cluster out of addresses,
//!   state carried over
//! - `lb`: priorities, panic, localities, subsets, slow start; round robin, least request, random, ring
//!   hash, Maglev; `hash`: hashes of requests and endpoints
//! - `host`: the state of one endpoint; `health`, `checks`: what active health checks found of it,
//!   and of a cluster; `limits`: circuit breakers; `outlier`: ejection
//! - `connect`: dialling
//! - `dns`: names resolved; periodic work is in `app::maintenance`
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

pub mod checks;
pub mod cluster;
pub mod connect;
pub mod dns;
pub mod endpoint;
pub mod endpoints;
pub mod hash;
pub mod health;
pub mod host;
pub mod lb;
pub mod limits;
pub mod local;
pub mod outlier;
mod refresh;
