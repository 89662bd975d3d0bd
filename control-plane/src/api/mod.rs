//! The HTTP API.
//!
//! - [`types`]: what it answers, shared with the CLI.

pub mod types;
