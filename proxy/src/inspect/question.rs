//! The hypothetical request, in the types of the data path's matchers.

use std::net::{IpAddr, SocketAddr};

use xds_proto::anyam::inspect::v1 as pb;

use crate::listener::detect::DetectedProtocol;
use crate::message::head::Head;
use crate::policy;
use crate::tls::{ConnectionInfo, PeerIdentity, SpiffeId};

/// A parsed question.
pub(super) struct Question {
    pub(super) inbound: bool,
    pub(super) destination: SocketAddr,
    pub(super) source: SocketAddr,
    /// `None`: an opaque TCP connection.
    pub(super) head: Option<Head>,
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
        Ok(Question {
            inbound: asked.inbound,
            destination: SocketAddr::new(ip, port),
            source: SocketAddr::new(source, 0),
            head: (!asked.method.is_empty()).then(|| head(asked)),
            tls,
        })
    }

    /// What detection would find.
    pub(super) fn protocol(&self) -> DetectedProtocol {
        match (&self.tls, &self.head) {
            (Some(_), head) => DetectedProtocol::Tls(crate::tls::hello::ClientHello {
                sni: None,
                alpn: vec![match head {
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

fn head(asked: &pb::Explain) -> Head {
    let mut head = Head::new();
    head.set_method(asked.method.to_ascii_uppercase().as_bytes());
    head.set_scheme(b"http");
    head.set_authority(asked.authority.as_bytes());
    let path = if asked.path.is_empty() {
        "/"
    } else {
        &asked.path
    };
    head.set_path_and_query(path.as_bytes());
    for header in &asked.headers {
        head.append_named(header.name.as_bytes(), header.value.as_bytes());
    }
    head
}
