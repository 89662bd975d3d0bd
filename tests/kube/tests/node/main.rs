//! A cluster with a node: the mesh as a user installs it, with real pods.
//!
//! - `mesh`: installed once by the chart; `shop`: an app in it, and load
//! - `join`: injected pods use mTLS, others do not; `life`: Jobs, CronJobs, and pods that opt out;
//!   `stateful`: pods with names
//! - under load: `rollout`: pods come and go; `scale`: by an autoscaler; `upgrade`: of the mesh;
//!   `faults`: pods that are killed or not ready; `drain`: a node is drained
//! - `uninstall`: nothing is left

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod drain;
mod faults;
mod join;
mod life;
mod mesh;
mod rollout;
mod scale;
mod shop;
mod stateful;
mod uninstall;
mod upgrade;
