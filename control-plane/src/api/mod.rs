//! The HTTP API and the dashboard.
//!
//! - [`server`]: authentication, and the table of paths; `listen`: sockets and limits;
//!   `connections`: limits of connections that need no credential; `secure`: a port of HTTPS.
//! - [`auth`]: token, sessions, names; [`access`]: what a request may see; `limits`: what is of a
//!   namespace; [`reply`]: responses and errors.
//! - [`proxies`], [`routes`] (with `connection_routes`, `backend`), [`check`], [`explain`], [`tap`]: what is
//!   behind the paths;
//!   [`observed`]: conditions that only traffic shows; `query`: query strings; `clock`: points in
//!   time as people read them.
//! - [`replicas`]: the mesh as all replicas see it.
//! - [`declared`]: queries to the sources; [`metrics`](crate::metrics): our own, for Prometheus.
//! - [`dashboard`]: the one page, and its content security policy.
//! - [`types`](crate::types): what the API answers, shared with the CLI.
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

pub mod access;
pub mod auth;
mod backend;
pub mod check;
pub(crate) mod clock;
mod connection_routes;
pub(crate) mod connections;
mod dashboard;
pub mod declared;
mod explain;
mod limits;
mod listen;
mod observed;
mod proxies;
pub(crate) mod query;
pub mod replicas;
pub(crate) mod reply;
mod routes;
pub(crate) mod secure;
pub mod server;
pub(crate) mod tap;

pub use declared::{Declared, DeclaredWorkload};
pub use server::{Api, ApiPort};

use access::ApiAccess;
use reply::Problem;

/// `namespace/name`, or `name` in the only namespace that is shown, or in `default`.
fn workload<'a>(
    text: &'a str,
    access: &'a ApiAccess,
    field: &str,
) -> Result<(&'a str, &'a str), Problem> {
    let only = match access.namespace() {
        "" => "default",
        namespace => namespace,
    };
    let (namespace, name) = text.split_once('/').unwrap_or((only, text));
    if namespace.is_empty() || name.is_empty() || name.contains('/') {
        return Err(Problem::bad(
            format!("`{}` names no workload", crate::text::bounded(text)),
            field,
            "give namespace/name; `anyam proxies` lists them",
        ));
    }
    Ok((namespace, name))
}
