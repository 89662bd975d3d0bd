//! A connection as rules see it.

use std::net::SocketAddr;

use crate::config::listener::{FilterChain, Listener};
use crate::tls::ConnectionInfo;

/// What decides whether a connection may stay.
pub struct PolicySubject<'a> {
    pub listener: &'a Listener,
    pub chain: &'a FilterChain,
    pub ends: Addresses,
    pub tls: Option<&'a ConnectionInfo>,
}

/// Who called, and whom they meant to reach.
#[derive(Clone, Copy)]
pub struct Addresses {
    pub peer: SocketAddr,
    pub destination: SocketAddr,
}
