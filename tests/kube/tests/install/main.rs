//! The Helm chart on a real API server.
//!
//! - `release`: install, upgrade, rollback, uninstall
//! - `definitions`: validation of our own kinds by the API server, and their columns in kubectl

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod definitions;
mod release;
