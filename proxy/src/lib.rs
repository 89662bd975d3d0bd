//! The Anyam sidecar proxy.
//!
//! Rooms, from the top; arrows between them run downwards only (`tests/tests/architecture`):
//! - [`app`]: composition root, with [`args`] and [`bootstrap`]; [`admin`], [`inspect`], [`xds`],
//!   [`identity`], [`dns`], [`redirect`]: the control thread's work
//! - [`listener`]: accept, detection, filter chains, tunnels accepted
//! - [`tcp`], [`hbone`], [`http`]: what a filter chain ends in; [`relay`]: bytes both ways
//! - [`worker`]: what a worker thread's connections share
//! - [`policy`]: RBAC; [`telemetry`]: access logs, taps, edges of a connection
//! - [`snapshot`]: the configuration in force; [`upstream`]: clusters at work
//! - [`config`]: plain settings (`config/compile` makes them, and stands above `snapshot`)
//! - [`stream`], [`tls`], [`message`], [`matcher`], [`metrics`], [`dispatcher`], [`lifecycle`],
//!   [`drain`], [`memory`], [`socket`]: leaves, or nearly so

pub mod admin;
pub mod app;
pub mod args;
pub mod bootstrap;
pub mod bug;
pub mod config;
pub mod connection_limit;
pub mod dispatcher;
pub mod dns;
pub mod drain;
pub mod hbone;
pub mod http;
pub mod identity;
pub mod inspect;
pub mod lifecycle;
pub mod listener;
pub mod log_sink;
pub mod matcher;
pub mod memory;
pub mod message;
pub mod metadata;
pub mod metrics;
pub mod overload;
pub mod policy;
pub mod redirect;
pub mod relay;
pub mod snapshot;
pub mod socket;
pub mod stream;
mod supervise;
pub mod tcp;
pub mod telemetry;
pub mod tls;
mod token_bucket;
pub mod upstream;
pub mod worker;
pub mod xds;
