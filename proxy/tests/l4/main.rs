//! The L4 path over real sockets: TLS, the relay, listeners. One test binary, which shares its
//! support code.
//!
//! - `tls`, `tls_peers`: the TLS stream; `trusted`, `hostile_certificates`: which certificates it
//!   accepts; `refusals`: what it says of the others
//! - `relay`, `stalled`: relays between two sockets, and peers that stop reading
//! - `panics`: what a panic costs
//! - `listener`: chains, detection, policy, destinations on demand; `tunnel`: TCP inside HTTP/2
//! - `dialler`: dialling without a worker; `checks`: the health checker
//! - `envoy`: a stock Envoy as peer; `support`: shared code

#![allow(clippy::unwrap_used)] // tests: a failed unwrap is a failed test

mod checks;
mod dialler;
#[path = "../shared/envoy.rs"]
mod envoy;
mod hostile_certificates;
mod listener;
#[path = "../shared/namespace.rs"]
mod namespace;
mod panics;
mod refusals;
mod relay;
mod stalled;
mod support;
mod tls;
mod tls_peers;
mod trusted;
mod tunnel;
