//! An API server without nodes, as tests that need no pods use it.
//!
//! `objects`: watch, Lease, tokens; `webhook`: calls of the API server; `life`: restarts, several
//! at once, nothing left behind; `status`: conditions that the control plane writes; `connections`: those
//! of TCPRoutes, TLSRoutes and BackendTLSPolicies, with the ConfigMaps that these name; `unknown_fields`:
//! what it does with fields of policies that it does not know.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod connections;
mod life;
mod objects;
mod status;
mod unknown_fields;
mod webhook;
