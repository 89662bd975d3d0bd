//! `anyam` in a cluster, as a process: its credentials, its messages, and what it asks a control plane
//! through a real API server.
//!
//! - `credentials`: kubeconfigs, plugins, contexts; `refusals`: what the API server's errors become
//! - `preflight`: `anyam check --pre`
//! - `workloads`: a mesh with sidecars, asked by an administrator and by users of a namespace
//! - `anyam`: the process; `harness` and `sidecar`, of the tests of the control plane: what it asks

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod anyam;
mod credentials;
// Not all of it is used here.
#[allow(dead_code)]
#[path = "../control/harness.rs"]
mod harness;
mod preflight;
mod refusals;
#[allow(dead_code)]
#[path = "../control/sidecar.rs"]
mod sidecar;
mod workloads;
