//! Whole meshes, each in network namespaces of its own: control plane, sidecars, netfilter rules
//! and programs that do not depend on it.
//!
//! - `harness`: starting a mesh and waiting for what must come; `process`: one of its processes;
//!   `manifests`: its configuration; `traffic`: calls as one of its programs makes them
//! - `attach`: upgrades other than WebSocket's
//! - `control_plane`: what goes on when the control plane is killed, and what does not
//! - `envoy`: stock Envoy as a peer
//! - `ipv6`: the same over IPv6; `ports`: sidecars that listen elsewhere
//! - `misdeclared`: ports that are declared as something else than they are
//! - `mirror`: requests that are also sent to another service
//! - `names`: services, ports and members of headless services by DNS
//! - `peers`: Go programs on both ends, sidecars and a stock Envoy between them
//! - `policy`: what policy was evaluated on is what the app receives, for every spelling by every
//!   way in
//! - `probes`: the kubelet's, of an app under strict mTLS
//! - `swap`: configuration and certificates change under load of every kind
//! - `scale`: thousands of services, of which a sidecar uses two
//! - `tunnel`: TCP inside few HTTP/2 connections

#![allow(clippy::unwrap_used)]

mod attach;
mod control_plane;
mod envoy;
mod harness;
#[path = "../../../proxy/tests/shared/hex.rs"]
mod hex;
mod ipv6;
mod manifests;
mod mirror;
mod misdeclared;
mod names;
mod peers;
mod policy;
mod ports;
mod probes;
mod process;
mod scale;
mod swap;
mod traffic;
mod tunnel;
