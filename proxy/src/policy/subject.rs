//! A connection's facts for RBAC rules.

use std::net::SocketAddr;

use crate::config::listener::FilterChain;
use crate::snapshot::Listener;
use crate::tls::ConnectionInfo;

/// The facts that decide whether an open connection is still allowed.
pub struct PolicySubject<'a> {
    pub listener: &'a Listener,
    pub chain: &'a FilterChain,
    pub ends: Addresses,
    pub tls: Option<&'a ConnectionInfo>,
}

/// The addresses of a connection: the client's and its destination.
#[derive(Clone, Copy)]
pub struct Addresses {
    pub peer: SocketAddr,
    pub destination: SocketAddr,
}
