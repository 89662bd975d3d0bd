//! HTTP filters.
//!
//! - `rbac`: role-based access control of requests

pub(crate) mod rbac;
