//! Aggregated discovery.
//!
//! - [`resources`]: the trait that translation implements.

pub mod resources;

pub use resources::{History, Resource, Resources, Scope, TlsFiles, Touched, View};
