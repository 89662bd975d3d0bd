//! The proxy itself under a control plane scripted by a test: what it waits for, when it ACKs, and
//! what it does with bad input.
//!
//! - `ads`: the control plane; `process`: the proxy, and requests to it
//! - `outlier`, `health`, `slow_start`: what it does by its own clock; `zones`: what it does when the
//!   local cluster changes
//! - `bootstrap`: what else a bootstrap has
//! - `warming`: static resources that lead to what comes over ADS
//! - `acknowledged`: an ACK can be counted on
//! - `ending`: SIGTERM, with connections of listeners that are gone
//! - `hostile`: a control plane that sends junk, goes away, or returns to older versions

#![allow(clippy::unwrap_used)] // tests: a failed unwrap is a failed test

mod acknowledged;
mod ads;
mod bootstrap;
mod ending;
mod health;
mod hostile;
mod outlier;
#[path = "../shared/ports.rs"]
mod ports;
mod process;
#[path = "../shared/running.rs"]
#[expect(
    dead_code,
    reason = "shared with the process tests, which use more of it"
)]
mod running;
mod slow_start;
mod warming;
mod zones;
