//! The proxy itself under a control plane that a test plays: what it waits for, when it says that
//! it has taken something in, and what it does with bad input.
//!
//! - `ads`: the control plane; `process`: the proxy, and how it is asked
//! - `outlier`: what it does by its own clock
//! - `bootstrap`: what else a bootstrap says
//! - `warming`: static resources that lead to what comes over ADS
//! - `acknowledged`: an ACK can be counted on
//! - `ending`: told to end, with connections of listeners that are gone
//! - `hostile`: a control plane that sends junk, goes away, or goes back in time

#![allow(clippy::unwrap_used)] // tests: a failed unwrap is a failed test

mod acknowledged;
mod ads;
mod bootstrap;
mod ending;
mod hostile;
mod outlier;
mod process;
mod warming;
