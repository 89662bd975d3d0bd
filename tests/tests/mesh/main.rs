//! Whole meshes, each in network namespaces of its own: control plane, sidecars, netfilter rules
//! and programs that do not depend on it.
//!
//! - `harness`: starts a mesh and waits for conditions; `process`: one of its processes;
//!   `manifests`: its configuration; `traffic`: calls of its apps
//! - `attach`: upgrades other than WebSocket's
//! - `backend_tls`: apps that speak TLS to callers that do not; `certificates`: such apps, and theirs
//! - `connections`: TCPRoutes and TLSRoutes
//! - `control_plane`: which traffic continues when the control plane is killed; its authentication
//! - `egress`: connections out of the mesh, and their end
//! - `envoy`: stock Envoy as a peer
//! - `ipv6`: the same over IPv6; `ports`: sidecars that listen on other ports
//! - `misdeclared`: ports that are declared as something else than they are
//! - `mirror`: requests that are also sent to another service
//! - `names`: services, ports and members of headless services by DNS
//! - `peers`: Go programs on both ends, sidecars and a stock Envoy between them
//! - `policy`: the path and headers that policy is evaluated on are those that the app receives,
//!   for every spelling and every way in
//! - `probes`: the kubelet's probes of an app under strict mTLS
//! - `routes`: what an HTTPRoute does to requests and responses
//! - `swap`: configuration and certificates change under load of every kind
//! - `scale`: thousands of services, of which a sidecar uses two
//! - `tunnel`: TCP inside few HTTP/2 connections
//! - `unprocessed`: requests to a sidecar whose app does not listen any more

#![allow(clippy::unwrap_used)]

mod attach;
mod backend_tls;
mod certificates;
mod connections;
mod control_plane;
mod egress;
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
mod routes;
mod scale;
#[path = "../../../proxy/tests/shared/envoy.rs"]
mod stock_envoy;
mod swap;
mod traffic;
mod tunnel;
mod unprocessed;
