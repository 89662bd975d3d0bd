//! What a worker thread's event loop provides to the tasks on it (Envoy's dispatcher). No module
//! here depends on connections or requests.
//!
//! - [`timer`]: coarse timers on one wheel; [`buffer`]: pooled read and write buffers
//! - [`pipe`]: pooled kernel pipes for `splice`; [`date`]: the `Date` header, formatted once a second
//! - [`future_slab`]: memory for the futures of requests
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

pub mod buffer;
pub mod date;
pub mod future_slab;
pub mod pipe;
pub mod timer;
