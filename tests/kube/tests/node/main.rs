//! A cluster with a node: the mesh as a user installs it, with real pods.
//!
//! `mesh`: installed once by the chart; `shop`: an app in it; `join`: injected pods use mTLS, others
//! do not; `life`: Jobs, and pods that opt out; `rollout`: pods come and go under load; `look`: what
//! `anyam` shows of it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod join;
mod life;
mod look;
mod mesh;
mod rollout;
mod shop;
