//! A sidecar's status port, with apps of every kind behind it.
//!
//! - `app`: apps; `sidecar`: a sidecar without a control plane, and requests to it
//! - `http`, `others`: probes by kind; `metrics`: merged expositions

mod app;
mod http;
mod metrics;
mod others;
mod sidecar;

pub use self::sidecar::Sidecar;
