//! The Anyam sidecar proxy.
//!
//! Module map, in the order a connection meets them:
//! `listener` (accept, detect, conn) → `tls` → `policy` → `tcp` or `http` → `upstream`;
//! beside them `config` (the snapshot and its compiler), `xds` (where configuration comes from),
//! `telemetry`, `admin`, `drain`; `bootstrap` and `app` put it all together.

pub mod admin;
pub mod app;
pub mod args;
pub mod bootstrap;
pub mod config;
pub mod dispatcher;
pub mod dns;
pub mod drain;
pub mod hbone;
pub mod http;
pub mod identity;
pub mod inspect;
pub mod lifecycle;
pub mod listener;
pub mod memory;
pub mod metrics;
pub mod policy;
pub mod redirect;
pub mod snapshot;
pub mod socket;
pub mod stream;
pub mod tcp;
pub mod telemetry;
pub mod tls;
pub mod upstream;
pub mod worker;
pub mod xds;
