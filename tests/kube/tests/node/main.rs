//! A cluster with a node: the mesh as a user installs it, with real pods.
//!
//! `mesh`: installed once by the chart; `shop`: an app in it; `join`: injected pods use mTLS, others
//! do not; `rollout`: restarts under load.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod join;
mod mesh;
mod rollout;
mod shop;
