//! What users write: one typed object a manifest, checked while it is read.
//!
//! - [`object`], [`values`], [`families`]: what all objects share; values checked while they are read
//! - [`read`]: a manifest into one of [`service`] (with `session_affinity`), [`endpoint_slice`],
//!   [`workload`], [`route`] (with [`route_spec`], [`match_spec`], [`filter_spec`], [`cors_spec`],
//!   [`path_edit_spec`], [`session_spec`], [`reference`](mod@reference)), [`authorization`], [`policy`]
//!   (with [`resilience`], [`balancing`]), [`grant`]; [`selector`]: which workloads a policy is for
//! - [`schema`]: JSON schemas of the values in our own kinds

pub mod authorization;
pub mod balancing;
pub mod cors_spec;
pub mod endpoint_slice;
pub mod families;
pub mod filter_spec;
pub mod grant;
pub mod match_spec;
pub mod object;
pub mod path_edit_spec;
pub mod policy;
pub mod read;
pub mod reference;
pub mod resilience;
pub mod route;
pub mod route_spec;
pub mod schema;
pub mod selector;
pub mod service;
mod session_affinity;
pub mod session_spec;
pub mod values;
pub mod workload;
