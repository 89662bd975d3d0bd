//! The L4 path over real sockets: TLS, the relay, listeners. One binary, so that they share what
//! they need.
//!
//! - `tls`, `tls_peers`: the TLS stream; `trusted`, `hostile_certificates`: whose certificates it
//!   accepts
//! - `relay`, `stalled`: bytes between two sockets, and peers that stop taking them
//! - `listener`: chains, detection, policy, destinations on demand; `tunnel`: TCP inside HTTP/2
//! - `dialler`: without a worker
//! - `envoy`: a stock Envoy as peer; `support`: what they share

#![allow(clippy::unwrap_used)] // tests: a failed unwrap is a failed test

mod dialler;
#[path = "../shared/envoy.rs"]
mod envoy;
mod hostile_certificates;
mod listener;
mod relay;
mod stalled;
mod support;
mod tls;
mod tls_peers;
mod trusted;
mod tunnel;
