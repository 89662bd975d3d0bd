//! The servers over real sockets, with real clients.

mod ads;
mod api;
mod bench;
mod credential;
mod dashboard;
mod inspect;
mod serving;
mod state;
mod unauthenticated;
