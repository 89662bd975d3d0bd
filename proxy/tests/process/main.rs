//! `anyam-proxy` as a process, started as Envoy is, and what hostile peers and a poor machine do to it.
//!
//! - `proxy`: a process with a bootstrap of its own, and what its admin page says
//! - `resources`: descriptors run out; the end of a process
//! - `splice`: long bodies through kernel pipes
//! - `tls`: storms, floods and stalls of TLS, from OpenSSL's client
//! - `edge`: what strangers say of themselves, in headers, names and logs
//! - `flags`: Envoy's command line; `logs`: rotated, and not read
//! - `authorisation`: hosts and headers in every disguise against RBAC

#![allow(clippy::unwrap_used)]

mod authorisation;
mod edge;
mod flags;
mod logs;
mod proxy;
mod resources;
mod splice;
mod tls;
