//! What the data path reads: plain Rust types, immutable once published in a
//! [`Snapshot`](crate::snapshot::Snapshot).
//!
//! - `listener`, `http`, `route`, `cluster`, `endpoint`, `secret`, `policy`: one file per resource,
//!   named as in the control plane's `translate/` and in `compile/`
//! - `filter`: HTTP filters, and the routes' overrides of them
//! - `balancing`: slow start, localities, subsets; `hash`: how requests are hashed for balancing
//! - `access_log`: compiled formats; `local_reply`: changes of responses made here; `outlier`: settings
//!   of outlier detection; `health`: of active health checks
//! - `name`: DNS names of the mesh; `cidr`: ranges of addresses
//! - `demand`: on-demand discovery, requested by the data path
//! - `compile`: protobuf → these types; nothing else here uses protobufs
//!
//! Everything is decided at compile time: names are resolved to indices, metric handles to
//! atomics, patterns to automata. A request looks up no strings but its own host and path.

pub mod access_log;
pub mod balancing;
pub mod cidr;
pub mod cluster;
pub mod compile;
pub mod demand;
pub mod endpoint;
pub mod filter;
pub mod hash;
pub mod health;
pub mod http;
pub mod listener;
pub mod local_reply;
pub mod name;
pub mod outlier;
pub mod policy;
pub mod route;
pub mod secret;

use std::sync::Arc;

/// A resource's name, shared by all that refer to it.
pub type Name = Arc<str>;

/// Index into the [`ClusterLinks`](crate::snapshot::ClusterLinks) of a listener or route
/// configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ClusterRef(pub u32);

/// Index into the [`RouteLinks`](crate::snapshot::RouteLinks) of a listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RouteRef(pub u32);
