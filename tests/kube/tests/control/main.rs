//! The control plane's own part of a cluster, on a real API server: `anyam-control` and the sidecars of
//! pods are processes; the pods themselves are objects only. Each control plane has the rights of
//! the chart and no others.
//!
//! - `identity`: a pod's token buys a certificate, and what is no such token does not
//! - `root`: the root's Secret and ConfigMap; `webhook`: its `caBundle`
//! - `lease`: who of two writes
//! - `harness`, `sidecar`: the processes

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod harness;
mod identity;
mod lease;
mod root;
mod sidecar;
mod webhook;
