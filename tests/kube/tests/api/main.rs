//! The API server alone: what tests that need no pods stand on.
//!
//! `objects`: watch, Lease, tokens; `webhook`: the API server calls back; `life`: restarts, several at
//! once, nothing left behind.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod life;
mod objects;
mod webhook;
