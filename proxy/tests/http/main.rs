//! The HTTP engine over real sockets: clients and upstreams that send exactly what a test writes,
//! a worker in between.

#![allow(clippy::unwrap_used)] // tests: a failed unwrap is a failed test

mod again;
mod bounds;
mod delayed;
mod ends;
mod explained;
mod faults;
mod floods;
mod front;
mod harness;
mod hostile1;
mod hostile2;
mod hosts;
mod hpack;
mod http1;
mod http2;
mod large;
mod leaving;
mod life;
mod lifecycle;
mod logs;
mod mesh;
mod mirrors;
mod panicked;
mod panics;
mod peers;
#[path = "../l4/support/pki.rs"]
#[expect(dead_code, reason = "shared with the L4 tests, which use more of it")]
mod pki;
mod settings;
mod starving;
mod strict;
mod through;
