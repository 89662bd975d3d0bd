//! Fuzzing: what peers and users send is mutated, and what must hold is checked after each round.
//!
//! - `whole`: a proxy process with everything on, mutated bytes on both of its sides, in TLS too
//! - `parsers`: one target a parser, in this process
//! - `inputs`: the corpus (`proxy/fuzz/corpus`), and mutations of it; `frames`: of HTTP/2
//! - `process`: the process and what is measured of it; `bootstrap`: its configuration, with `filters`
//! - `peers`: clients, an app that checks what reaches it, upstreams that send mutated responses
//! - `tap`: the control plane's end of a tap
//!
//! In `make test` the corpus is replayed, and some rounds follow from fixed seeds; `make fuzz MINUTES=n`
//! gives each target that long, from other seeds.

#![allow(clippy::unwrap_used)] // tests: a failed unwrap is a failed test

mod bootstrap;
mod filters;
mod frames;
#[path = "../shared/hex.rs"]
mod hex;
mod inputs;
mod parsers;
mod peers;
mod process;
#[path = "../shared/rounds.rs"]
mod rounds;
#[path = "../shared/running.rs"]
mod running;
mod tap;
mod whole;
