//! Names of resources, and back.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use crate::model::manifest::service::AppProtocol;

/// The listener of connections that no other listener takes.
pub const OUTBOUND: &str = "outbound";
pub const INBOUND: &str = "inbound";
/// Where a sidecar takes tunnels: HBONE's port. Redirected to its inbound listener like any other.
pub const TUNNEL_PORT: u16 = 15008;
/// To the connection's original destination.
pub const PASSTHROUGH: &str = "PassthroughCluster";
/// Refuses every connection.
pub const BLACK_HOLE: &str = "BlackHoleCluster";
/// To the app, at the address the caller dialled.
pub const INBOUND_PASSTHROUGH: &str = "InboundPassthroughCluster";
/// Named by shares of a route that have no valid backend; there is no such cluster, and the route
/// answers 500 for it.
pub const INVALID_BACKEND: &str = "InvalidBackend";

/// What travels to a service over one cluster. A port with an undeclared protocol has three, so
/// that the server's side gets the client's protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Carries {
    /// What the port declares; HTTP/1 for undeclared ports.
    Declared,
    /// HTTP/2 on an undeclared port.
    Http2,
    /// Bytes on an undeclared port.
    Tcp,
    /// HTTP/1 without TLS on a port that is declared to carry TLS.
    Http1,
}

impl Carries {
    fn subset(self) -> &'static str {
        match self {
            Carries::Declared => "",
            Carries::Http2 => "h2",
            Carries::Tcp => "tcp",
            Carries::Http1 => "http1",
        }
    }

    pub const ALL: [Carries; 4] = [
        Carries::Declared,
        Carries::Http2,
        Carries::Tcp,
        Carries::Http1,
    ];

    /// The clusters of a port.
    pub fn of(protocol: AppProtocol) -> &'static [Carries] {
        match protocol {
            AppProtocol::Undeclared => &[Carries::Declared, Carries::Http2, Carries::Tcp],
            AppProtocol::Tls => &[Carries::Declared, Carries::Http1],
            _ => &[Carries::Declared],
        }
    }

    /// Whether it is HTTP, to a port of this protocol.
    pub fn is_http(self, protocol: AppProtocol) -> bool {
        match self {
            Carries::Declared => !protocol.is_opaque(),
            Carries::Http2 | Carries::Http1 => true,
            Carries::Tcp => false,
        }
    }
}

/// `outbound|<port>|<subset>|<host>`: the name of a cluster, a route configuration or an
/// assignment. The host is an IP address where it stands for a workload.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct OutboundName {
    pub port: u16,
    pub carries: Carries,
    pub host: String,
}

impl OutboundName {
    pub fn new(port: u16, carries: Carries, host: impl Into<String>) -> Self {
        OutboundName {
            port,
            carries,
            host: host.into(),
        }
    }

    pub fn parse(name: &str) -> Option<Self> {
        let mut parts = name.strip_prefix("outbound|")?.splitn(3, '|');
        let port = parts.next()?.parse().ok()?;
        let carries = match parts.next()? {
            "" => Carries::Declared,
            "h2" => Carries::Http2,
            "tcp" => Carries::Tcp,
            "http1" => Carries::Http1,
            _ => return None,
        };
        let host = parts.next()?;
        let it = OutboundName::new(port, carries, host);
        // Only the canonical spelling, because names are compared as text elsewhere.
        (it.to_string() == name).then_some(it)
    }

    pub fn ip(&self) -> Option<IpAddr> {
        self.host.parse().ok()
    }
}

impl fmt::Display for OutboundName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "outbound|{}|{}|{}",
            self.port,
            self.carries.subset(),
            self.host
        )
    }
}

/// `inbound|<port>||`.
pub fn inbound_cluster(port: u16) -> String {
    format!("inbound|{port}||")
}

pub fn parse_inbound_cluster(name: &str) -> Option<u16> {
    let port = name
        .strip_prefix("inbound|")?
        .strip_suffix("||")?
        .parse()
        .ok()?;
    (inbound_cluster(port) == name).then_some(port)
}

/// `outbound/<address>:<port>`.
pub fn listener(at: SocketAddr) -> String {
    format!("outbound/{at}")
}

pub fn parse_listener(name: &str) -> Option<SocketAddr> {
    let at: SocketAddr = name.strip_prefix("outbound/")?.parse().ok()?;
    (listener(at) == name).then_some(at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_one_spelling() {
        for name in [
            "outbound|80||a.b.svc.cluster.local",
            "outbound|80|tcp|10.0.0.1",
        ] {
            assert_eq!(OutboundName::parse(name).unwrap().to_string(), name);
        }
        for name in [
            "outbound|080||a",
            "outbound|80|x|a",
            "outbound|70000||a",
            "outbound|1||",
        ] {
            assert!(
                OutboundName::parse(name).is_none_or(|it| it.host.is_empty()),
                "{name}"
            );
        }
        assert_eq!(parse_inbound_cluster("inbound|80||"), Some(80));
        assert_eq!(parse_inbound_cluster("inbound|+80||"), None);
        assert_eq!(
            parse_listener("outbound/[fd00::1]:80")
                .map(listener)
                .as_deref(),
            Some("outbound/[fd00::1]:80")
        );
        assert_eq!(parse_listener("outbound/10.0.0.01:80"), None);
    }
}
