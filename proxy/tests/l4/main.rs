//! The L4 path over real sockets: TLS, the relay, listeners. One binary, so that they share what
//! they need.

#![allow(clippy::unwrap_used)] // tests: a failed unwrap is a failed test

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
