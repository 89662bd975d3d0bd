//! `anyam-proxy` as a process, started as Envoy is, with hostile peers and with few descriptors.
//!
//! - `proxy`: a process with a bootstrap of its own, and its admin pages
//! - `resources`: descriptors run out; the end of a process
//! - `overload`: more connections than the limits allow
//! - `splice`: long bodies through kernel pipes
//! - `tls`: storms, floods and stalls of TLS, from OpenSSL's client
//! - `edge`: claims of untrusted clients, in headers, names and logs
//! - `flags`: Envoy's command line; `logs`: log files that are rotated or not read
//! - `authorisation`: hosts and headers in every spelling against RBAC
//! - `chains`: which filter chain a connection gets, compared with Envoy; `differential`: whole exchanges,
//!   byte by byte
//! - `names`: clusters whose endpoints are hostnames
//! - `probes`: the kubelet's probes of an app, performed by the sidecar; merged metrics
//! - `ready`: `anyam-proxy wait`
//! - `shutdown`: SIGTERM, with connections of either direction
//! - `redirect`: netfilter rules, in network namespaces of the test's own
//! - `filters`: each HTTP filter beside a stock Envoy; `balancing`: the choice of endpoints
//! - `heads`: limits of response heads; `health`: active health checks

#![allow(clippy::unwrap_used)]

mod authorisation;
mod balancing;
mod chains;
mod differential;
mod edge;
#[path = "../shared/envoy.rs"]
mod envoy;
mod filters;
mod flags;
mod heads;
mod health;
mod logs;
mod names;
#[path = "../shared/namespace.rs"]
mod namespace;
mod overload;
#[path = "../shared/ports.rs"]
mod ports;
mod probes;
mod proxy;
mod ready;
mod redirect;
mod resources;
#[path = "../shared/running.rs"]
mod running;
mod shutdown;
mod splice;
mod tls;
