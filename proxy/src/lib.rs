//! The Anyam sidecar proxy.
//!
//! Modules in the order of dependencies, from the top (`tests/tests/architecture` rejects cycles):
//! - [`app`]: composition root, with [`bootstrap`] and [`args`]; [`inspect`], [`admin`],
//!   [`identity`], [`xds`], [`dns`], [`probe`], [`health`], `jwks`: the control thread's work;
//!   [`redirect`], [`ready`], [`drain_command`]: what runs beside a proxy
//! - [`listener`]: accept, detection, filter chains, tunnels accepted
//! - [`tcp`], [`hbone`], [`http`]: what a filter chain ends in
//! - [`worker`]: what a worker thread's connections share
//! - [`policy`]: RBAC; [`telemetry`]: access logs, taps, edges of a connection
//! - [`snapshot`]: the configuration in force (`config/compile`, which makes it, stands above it)
//! - [`upstream`]: clusters at run time; [`relay`]: bytes both ways
//! - [`config`]: plain settings
//! - [`stream`], [`tls`]; [`lifecycle`]: the end of a connection; [`overload`]: closes connections
//!   near a limit
//! - [`jwt`]: JSON Web Tokens and the keys that verify them
//! - [`bug`], [`dispatcher`], [`matcher`], [`message`], [`metrics`]
//! - [`drain`]: phases of the process's drain; uses a listener's direction of [`config`]
//! - [`connection_limit`], [`log_sink`], [`memory`], [`metadata`], [`socket`], [`stderr`],
//!   `supervise`, `token_bucket`: use no other module

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
pub mod drain_command;
pub mod hbone;
pub mod health;
pub mod http;
pub mod identity;
pub mod inspect;
mod jwks;
pub mod jwt;
pub mod lifecycle;
pub mod listener;
pub mod log_sink;
mod loopback;
pub mod matcher;
pub mod memory;
pub mod message;
pub mod metadata;
pub mod metrics;
pub mod overload;
pub mod policy;
pub mod probe;
pub mod ready;
pub mod redirect;
pub mod relay;
pub mod snapshot;
pub mod socket;
pub mod stderr;
pub mod stream;
mod supervise;
pub mod tcp;
pub mod telemetry;
pub mod tls;
mod token_bucket;
pub mod upstream;
pub mod worker;
pub mod xds;

#[cfg(test)]
#[path = "../../benches/tests/counters/budgets.rs"]
mod budgets;
