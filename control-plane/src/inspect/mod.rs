//! The server side of the Inspect stream: one per proxy, over which the API taps, dumps and
//! explains.
//!
//! - [`graph`]: reported edges in a short sliding window, merged from both ends; sans-IO.
//!   `tally`: what one end counted; `reports`: of replicas, or of a namespace; `merge`: both reports of
//!   an edge made one.
//! - [`latency`]: percentiles from bucket counts.
//! - [`agents`]: connected proxies; tap, dump and explain with deadlines; [`page`]: what a dump answers.
//! - [`service`]: the gRPC service.
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

pub mod agents;
pub mod graph;
pub mod latency;
mod merge;
pub mod page;
mod reports;
pub mod service;
mod tally;

pub use agents::{Agents, AskError};
pub use graph::Graph;
pub use page::ProxyPage;
pub use reports::GraphReports;
