//! The hypothetical request, in the types of the data path's matchers.

use std::fmt::Write;
use std::net::{IpAddr, SocketAddr};

use bytes::Bytes;
use xds_proto::anyam::inspect::v1 as pb;

use crate::config::listener::Direction;
use crate::policy;
use crate::policy::DetectedProtocol;
use crate::tls::{ConnectionInfo, PeerIdentity, SpiffeId};

/// A parsed question.
pub(super) struct Question {
    pub(super) inbound: bool,
    pub(super) destination: SocketAddr,
    pub(super) source: SocketAddr,
    /// A head of HTTP/1; `None`: an opaque TCP connection.
    pub(super) request: Option<Bytes>,
    pub(super) tls: Option<ConnectionInfo>,
}

impl Question {
    pub(super) fn parse(asked: &pb::Explain) -> Result<Self, String> {
        let ip: IpAddr = asked
            .address
            .parse()
            .map_err(|_| format!("address: {:?} is not an IP address", asked.address))?;
        let port = u16::try_from(asked.port).map_err(|_| "port: is above 65535".to_owned())?;
        let source = match asked.peer_address.as_str() {
            "" => IpAddr::from([127, 0, 0, 1]),
            text => text
                .parse()
                .map_err(|_| format!("peer_address: {text:?} is not an IP address"))?,
        };
        let tls = match asked.peer_identity.as_str() {
            "" => None,
            text => Some(peer(text)?),
        };
        let destination = SocketAddr::new(ip, port);
        let request = match asked.method.as_str() {
            "" => None,
            _ => Some(written(asked, destination)?),
        };
        Ok(Question {
            inbound: asked.inbound,
            destination,
            source: SocketAddr::new(source, 0),
            request,
            tls,
        })
    }

    pub(super) fn direction(&self) -> Direction {
        match self.inbound {
            true => Direction::Inbound,
            false => Direction::Outbound,
        }
    }

    /// What detection would find.
    pub(super) fn protocol(&self) -> DetectedProtocol {
        match (&self.tls, &self.request) {
            (Some(_), request) => DetectedProtocol::Tls(crate::tls::hello::ClientHello {
                sni: None,
                alpn: vec![match request {
                    Some(_) => Box::from(&b"anyam-http/1.1"[..]),
                    None => Box::from(&b"anyam-tcp"[..]),
                }],
            }),
            (None, Some(_)) => DetectedProtocol::Http11,
            (None, None) => DetectedProtocol::Tcp,
        }
    }

    pub(super) fn facts(&self) -> policy::Facts<'_> {
        policy::Facts {
            tls: self.tls.as_ref(),
            direct_remote: self.source.ip(),
            remote: self.source.ip(),
            destination: self.destination,
            sni: None,
            request: None,
            metadata: None,
        }
    }
}

fn peer(text: &str) -> Result<ConnectionInfo, String> {
    let id = SpiffeId::parse(text).map_err(|error| format!("peer_identity: {error}"))?;
    Ok(ConnectionInfo {
        version: "TLSv1.3",
        cipher: "TLS_AES_128_GCM_SHA256",
        group: None,
        alpn: None,
        sni: None,
        peer: Some(PeerIdentity::new(id)),
        peer_verified: true,
        resumed: false,
        peer_certificate: None,
    })
}

/// The request as an HTTP/1 client would send it.
fn written(asked: &pb::Explain, destination: SocketAddr) -> Result<Bytes, String> {
    let or = |given: &str, default: String| match given {
        "" => default,
        given => given.to_owned(),
    };
    let authority = or(&asked.authority, destination.to_string());
    let path = match asked.method.as_str() {
        "CONNECT" => authority.clone(),
        _ => or(&asked.path, "/".to_owned()),
    };
    let mut text = String::new();
    let method = asked.method.as_str();
    for (what, part) in [
        ("method", method),
        ("path", &path),
        ("authority", &authority),
    ] {
        on_one_line(what, part)?;
    }
    let _ = write!(text, "{method} {path} HTTP/1.1\r\nhost: {authority}\r\n");
    for header in &asked.headers {
        on_one_line("headers", &header.name)?;
        on_one_line("headers", &header.value)?;
        let _ = write!(text, "{}: {}\r\n", header.name, header.value);
    }
    text.push_str("\r\n");
    Ok(text.into())
}

/// Rejects line breaks: they would make another field, or another request.
fn on_one_line(what: &str, part: &str) -> Result<(), String> {
    match part.contains(['\r', '\n']) {
        true => Err(format!("{what}: {part:?} has a line break")),
        false => Ok(()),
    }
}
