//! The Anyam sidecar proxy.
//!
//! Modules, in the order a connection meets them: [`listener`] (accept, detect, filter chain) →
//! [`tls`] → [`policy`] → [`tcp`], [`hbone`] or [`http`] → [`upstream`]. Beside them [`config`]
//! (plain settings and their compiler), [`snapshot`] (what is in force), [`xds`] (where
//! configuration comes from), [`telemetry`] over [`metrics`], [`inspect`], [`admin`], [`drain`].
//! [`dispatcher`] is a worker thread's event loop, [`worker`] composes it; [`bootstrap`] and
//! [`app`] put everything together.

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
