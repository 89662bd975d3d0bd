//! The servers over real sockets, with real clients.

mod ads;
mod agent;
mod api;
pub(crate) mod bench;
mod broken_answers;
mod browser;
mod claims;
mod credential;
mod dashboard;
mod inspect;
pub(crate) mod log;
mod replicas;
mod serving;
mod shop;
mod state;
mod unauthenticated;
