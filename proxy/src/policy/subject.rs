//! What is known of a connection: it is admitted by this, and evaluated again while it is open.

use std::net::SocketAddr;
use std::time::Instant;

use crate::config::listener::FilterChain;
use crate::snapshot::Listener;
use crate::tls::ConnectionInfo;
use crate::tls::hello::ClientHello;

/// The facts that decide whether an open connection is still allowed.
pub struct PolicySubject<'a> {
    pub listener: &'a Listener,
    pub chain: &'a FilterChain,
    pub addresses: Addresses,
    /// As it was detected at admission.
    pub protocol: &'a DetectedProtocol,
    pub tls: Option<&'a ConnectionInfo>,
}

/// Whether a snapshot would admit an open connection.
pub enum Readmission<'a> {
    /// It would not be accepted.
    Refused,
    /// Its listener was removed, which revokes nothing: its connections are drained, and those that
    /// are left at this time are closed (`None`: beyond the clock's range).
    Removed { until: Option<Instant> },
    /// It would be accepted, by this chain of this listener.
    By(&'a Listener, &'a FilterChain),
}

/// The addresses of a connection: the client's and its destination.
#[derive(Clone, Copy)]
pub struct Addresses {
    pub peer: SocketAddr,
    pub destination: SocketAddr,
}

/// The protocol of a connection's first bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DetectedProtocol {
    Tls(ClientHello),
    /// HTTP/1.1, and what came after 1.0.
    Http11,
    Http10,
    /// HTTP/2 with prior knowledge.
    Http2,
    /// Anything else, and what was not inspected.
    Tcp,
}
