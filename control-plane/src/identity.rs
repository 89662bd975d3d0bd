//! The identity in a certificate, and the identity of a connection's peer.

use std::fmt;
use std::net::SocketAddr;

use crate::text::hex;
use aws_lc_rs::digest;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::prelude::{FromDer, X509Certificate};

/// `spiffe://<trust domain>/ns/<namespace>/sa/<service account>`, in canonical form only.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Identity {
    pub trust_domain: String,
    pub namespace: String,
    pub service_account: String,
}

impl Identity {
    /// `None` for whatever is not exactly a workload's id: nothing is normalised, because two
    /// spellings of one identity would be two chances to get around a policy.
    pub fn parse(uri: &str) -> Option<Self> {
        if uri.len() > 2048 {
            return None;
        }
        let (trust_domain, path) = uri.strip_prefix("spiffe://")?.split_once('/')?;
        let (namespace, service_account) = path.strip_prefix("ns/")?.split_once("/sa/")?;
        let whole = is_trust_domain(trust_domain) && is_segment(namespace);
        (whole && is_segment(service_account)).then(|| Identity {
            trust_domain: trust_domain.to_owned(),
            namespace: namespace.to_owned(),
            service_account: service_account.to_owned(),
        })
    }

    /// Whether every part may stand in a SPIFFE id.
    pub fn is_valid(&self) -> bool {
        is_trust_domain(&self.trust_domain)
            && is_segment(&self.namespace)
            && is_segment(&self.service_account)
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Identity {
            trust_domain,
            namespace,
            service_account,
        } = self;
        write!(
            f,
            "spiffe://{trust_domain}/ns/{namespace}/sa/{service_account}"
        )
    }
}

pub(super) fn is_trust_domain(name: &str) -> bool {
    let allowed = |b: u8| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'-' | b'_');
    !name.is_empty() && name.len() <= 255 && name.bytes().all(allowed)
}

pub(crate) fn is_segment(segment: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_');
    !matches!(segment, "" | "." | "..") && segment.bytes().all(allowed)
}

/// The other end of a connection to the gRPC port, put into every request's extensions.
#[derive(Clone, Debug)]
pub struct Peer {
    pub address: Option<SocketAddr>,
    /// `None`: no client certificate; only a join token can help.
    pub verified: Option<VerifiedPeer>,
    /// The plaintext port for tests on loopback: claims are accepted without proof.
    pub insecure: bool,
}

/// The identity in a certificate that chains to our root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifiedPeer {
    pub identity: Identity,
    /// The workload that the certificate was issued to; empty when its subject names none.
    pub workload: String,
    /// Seconds since 1970.
    pub not_after: i64,
    /// Lower-case hex.
    pub serial: String,
}

impl VerifiedPeer {
    /// Reads the leaf of a chain that TLS has verified already.
    ///
    /// # Errors
    /// When it does not carry exactly one SAN URI that is an identity, in words for the peer.
    pub fn from_certificate(der: &[u8]) -> Result<Self, String> {
        let (_, certificate) = X509Certificate::from_der(der)
            .map_err(|_| "the certificate is malformed".to_owned())?;
        let mut uris = Vec::new();
        for extension in certificate.extensions() {
            if let ParsedExtension::SubjectAlternativeName(names) = extension.parsed_extension() {
                uris.extend(names.general_names.iter().filter_map(|name| match name {
                    GeneralName::URI(uri) => Some(*uri),
                    _ => None,
                }));
            }
        }
        let [uri] = uris[..] else {
            let count = uris.len();
            return Err(format!(
                "the certificate has {count} URI SANs, and must have exactly one"
            ));
        };
        let identity = Identity::parse(uri)
            .ok_or("the certificate's URI SAN is not spiffe://<trust domain>/ns/…/sa/…")?;
        let names = certificate.subject().iter_common_name().next();
        let workload = names
            .and_then(|name| name.as_str().ok())
            .unwrap_or_default();
        Ok(VerifiedPeer {
            identity,
            workload: workload.to_owned(),
            not_after: certificate.validity().not_after.timestamp(),
            serial: format!("{:x}", certificate.serial),
        })
    }
}

const MAX_SUBJECT: usize = 64;
const SHORTENED: usize = 40;

/// The workload's name as the subject, so that two workloads of one service account can be
/// distinguished when they subscribe to configuration. Longer than X.509 allows: shortened, with a
/// hash.
pub fn subject_name(workload: &str) -> String {
    if workload.len() <= MAX_SUBJECT {
        return workload.to_owned();
    }
    let hash = hex(digest::digest(&digest::SHA256, workload.as_bytes()).as_ref());
    let short: String = workload.chars().take(SHORTENED).collect();
    format!("{short}-{}", &hash[..16])
}

/// Whether a subject may stand for a longer name, and so can't be looked up by.
pub fn is_shortened(subject: &str) -> bool {
    let hash = subject
        .get(SHORTENED..)
        .and_then(|rest| rest.strip_prefix('-'));
    hash.is_some_and(|hash| hash.len() == 16 && hash.bytes().all(|b| b.is_ascii_hexdigit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_canonical_spelling_is_an_identity() {
        let id = Identity::parse("spiffe://mesh.local/ns/shop/sa/web").unwrap();
        assert_eq!(id.to_string(), "spiffe://mesh.local/ns/shop/sa/web");
        for wrong in [
            "",
            "spiffe://mesh.local",
            "SPIFFE://mesh.local/ns/shop/sa/web",
            "spiffe://Mesh.local/ns/shop/sa/web",
            "spiffe:///ns/shop/sa/web",
            "spiffe://mesh.local/ns/shop/sa/",
            "spiffe://mesh.local/ns/shop/sa/web/x",
            "spiffe://mesh.local/ns/../sa/web",
            "spiffe://mesh.local/ns/sh%6fp/sa/web",
            "spiffe://mesh.local:1/ns/shop/sa/web",
            "spiffe://mesh.local/ns/shop/sa/web?x",
            "spiffe://mesh.local/ns/shop/sa/we\0b",
        ] {
            assert!(Identity::parse(wrong).is_none(), "{wrong:?}");
        }
    }
}
