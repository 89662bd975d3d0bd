//! The tcp_proxy network filter.
//!
//! - `proxy`: a connection from dialling to its log line; `dial`: where to, and the way there
//! - `outcome`: how it ended, as access logs show it
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

pub mod dial;
pub(crate) mod outcome;
pub mod proxy;
