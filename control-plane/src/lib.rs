//! The Anyam control plane.
//!
//! - [`ads`]: discovery, as a sans-IO state machine and its gRPC server.
//! - [`api`]: HTTP API and dashboard.

pub mod ads;
pub mod api;
