//! The Anyam control plane.
//!
//! - [`ads`]: discovery, as a sans-IO state machine and its gRPC server.
//! - [`api`]: HTTP API and dashboard; [`aggregated`]: the same as a part of a cluster's API.
//! - [`app`]: composition and commands; [`args`]: the command line.
//! - [`ca`]: certificates, and the tokens that buy the first.
//! - [`context`]: how a user's `anyam` finds control planes.
//! - [`crd`]: CustomResourceDefinitions of our own kinds.
//! - [`declared`]: the folder of manifests as the rest sees it; [`findings`]: what is wrong with them.
//! - [`identity`]: the identity in a certificate; `descriptors`: open files; `state_file`: files of
//!   the state folder; [`incumbents`]: which of several declarations was in service before a
//!   restart.
//! - [`inject`]: pods with sidecars; the webhook.
//! - `injected`: names by which a sidecar is recognised in a pod.
//! - [`inspect`]: what proxies report of themselves and their traffic, and requests to them.
//! - [`kubernetes`]: what is kept in a cluster, and asked of it.
//! - [`model`]: typed objects, indexed, with their status; [`source`]: manifests from a folder.
//! - [`translate`]: the mesh into xDS resources.
//! - [`types`]: what the API says, in JSON; [`metrics`]: the control plane's own; [`text`]: from peers.
//! - [`replicas`]: what the replicas of a control plane ask each other.
//! - [`server`]: the sockets, over whatever resources they are given; [`supervise`]: what runs as long
//!   as the process.

pub mod ads;
pub mod aggregated;
pub mod api;
pub mod app;
pub mod args;
pub mod ca;
pub mod context;
pub mod crd;
pub mod declared;
mod descriptors;
mod findings;
pub mod identity;
pub mod incumbents;
pub mod inject;
mod injected;
pub mod inspect;
pub mod kubernetes;
pub mod load;
pub mod metrics;
pub mod model;
pub mod replicas;
pub mod server;
pub mod source;
mod state_file;
pub mod supervise;
pub mod text;
pub mod translate;
pub mod types;

#[cfg(test)]
mod tests;
