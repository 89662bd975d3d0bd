//! Access logs, taps, and the edges that a connection's requests are counted on.
//!
//! - `calls`: the edges of one connection, its caller looked up by address
//! - `tap`: live requests for subscribers
//! - `log_format`: lines of diagnostics
//! - `access_log`: lines buffered for a [`Sink`](crate::log_sink::Sink); `record`: the values of a
//!   line; `format`, `escape`: how they are written
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

pub mod access_log;
pub mod calls;
pub mod escape;
pub mod format;
pub mod log_format;
pub mod record;
pub mod tap;

pub use access_log::WorkerLogs;
pub use calls::{Call, Callers, Calls, Telemetry};
pub use format::render;
pub use record::{Headers, Record};
