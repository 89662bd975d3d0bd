//! One stream to the control plane, by which operators inspect this proxy.
//!
//! - `agent`: the stream: hello, reports, taps, dumps; reconnects
//! - `report`: edges and versions since the last report
//! - `explain` (with `question`): a hypothetical request, evaluated by the data path's own matchers
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

pub mod agent;
pub mod explain;
mod question;
mod report;
