//! The HTTP engine over real sockets: clients and upstreams send exactly the bytes that a test
//! writes, with a worker in between.
//!
//! - `harness`, `front`, `settings`: the proxy under test; `peers`: its clients and upstreams; `pki`
//! - `panicked`: fails a test if a thread of the proxy panicked
//! - `http1`, `http2`, `ends`, `through`, `large`, `hpack`, `hosts`, `logs`, `mesh`: what is
//!   forwarded, and how
//! - `again`, `life`, `lifecycle`, `bounds`, `starving`, `mirrors`: retries, mirrors, limits, the life
//!   of a connection
//! - `balanced`: what each endpoint gets while endpoints come and go
//! - `hostile1`, `hostile2`, `strict`, `faults`, `floods`, `queued`: hostile peers
//! - `compressed`, `decoded`: bodies of responses and of requests that a filter changes
//! - `delayed`, `leaving`, `panics`: clients that disconnect, tasks that panic
//! - `explained`: `explain` against the data path

#![allow(clippy::unwrap_used)] // tests: a failed unwrap is a failed test

mod again;
mod balanced;
mod bounds;
mod compressed;
mod decoded;
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
mod interim;
mod large;
mod leaving;
mod life;
mod lifecycle;
mod logs;
mod mesh;
mod mirrors;
#[path = "../shared/namespace.rs"]
mod namespace;
mod panicked;
mod panics;
mod peers;
#[path = "../l4/support/pki.rs"]
#[expect(dead_code, reason = "shared with the L4 tests, which use more of it")]
mod pki;
mod queued;
mod revoked;
mod settings;
mod starving;
mod strict;
mod through;
mod untimed;
