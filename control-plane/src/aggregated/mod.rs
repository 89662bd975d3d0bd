//! The control plane's API as a part of the cluster's: `inspect.mesh.anyam.dev/v1alpha1`, an aggregated API
//! (APIService) that each replica serves. Users come with whatever their kubeconfig has; the API server
//! authenticates them, forwards their requests here, and says who they are.
//!
//! - [`server`]: the port, authentication and authorisation of each request
//! - [`path`]: what a path asks for; [`discovery`]: the documents by which clients find it;
//!   [`status`]: errors as Kubernetes has them
//! - [`mod@start`]: runs it beside a control plane
//!
//! What is answered is the HTTP API's ([`crate::api`]), limited to what the user may see.
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

mod discovery;
mod path;
mod server;
mod start;
mod status;

pub use self::start::{AggregatedApiError, AggregatedOptions, RunningAggregatedApi, start};

/// Of the API group.
pub const VERSION: &str = "v1alpha1";
/// The APIService's name, which the API server prescribes.
pub const API_SERVICE: &str = "v1alpha1.inspect.mesh.anyam.dev";
