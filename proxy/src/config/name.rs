//! DNS names of the mesh.

use std::net::IpAddr;
use std::time::Duration;

/// The records of a name. One without any exists, but has no data.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NameRecords {
    pub addresses: Vec<IpAddr>,
    pub services: Vec<Srv>,
    pub ttl: Duration,
}

/// An SRV record (RFC 2782) of priority 0.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Srv {
    /// A valid domain name, without trailing dot.
    pub target: String,
    pub port: u16,
    pub weight: u16,
    /// What the target resolves to, for the answer's additional section.
    pub addresses: Vec<IpAddr>,
}

impl NameRecords {
    pub fn is_empty(&self) -> bool {
        self.addresses.is_empty() && self.services.is_empty()
    }
}
