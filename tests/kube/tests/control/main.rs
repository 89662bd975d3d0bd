//! The control plane on a real API server: `anyam-control` and sidecars are processes, pods are objects
//! only. Each control plane has the rights of the chart and no others.
//!
//! - `identity`: certificates for pods' tokens; other tokens are refused
//! - `root`: the root's Secret and ConfigMap; `root_namespace`: policies of the whole mesh; `webhook`:
//!   its `caBundle`
//! - `aggregated`: the API for users, through the API server; who is refused
//! - `lease`: leader election of two replicas; `replicas`: whichever is asked answers for all proxies
//! - `rights`: no right of the chart is to spare
//! - `cert_manager`: a root below cert-manager's issuer; `source`: the API server's loss and return

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod aggregated;
mod cert_manager;
mod harness;
mod identity;
mod lease;
mod replicas;
mod rights;
mod root;
mod root_namespace;
mod source;
mod webhook;
