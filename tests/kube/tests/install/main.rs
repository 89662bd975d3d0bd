//! The Helm chart on a real API server.
//!
//! - `release`: install, upgrade, rollback, uninstall
//! - `definitions`: which objects of our own kinds the API server takes, and what it shows of them

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod definitions;
mod release;
