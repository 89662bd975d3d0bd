//! `anyam` in a cluster, as a process: its credentials, its messages, and what it asks a control plane
//! through a real API server.
//!
//! - `credentials`: kubeconfigs, plugins, contexts; `refusals`: what the API server's errors become
//! - `preflight`: `anyam check --pre`
//! - `workloads`: a mesh with sidecars, asked by an administrator and by users of a namespace
//! - `anyam`: the process

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod anyam;
mod credentials;
mod preflight;
mod refusals;
mod workloads;

use std::time::Duration;

const TIMEOUT: Duration = Duration::from_secs(60);
