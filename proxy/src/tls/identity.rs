//! A certificate's identity: a SPIFFE id, taken from exactly one URI SAN and compared exactly.
//!
//! Parsing is strict: with two spellings of one identity a policy could be bypassed, so nothing is
//! normalised and an id that is not in canonical form is refused.

use std::fmt;
use std::sync::Arc;

/// `spiffe://<trust domain>/<path>`, in the canonical form of the SPIFFE-ID specification.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SpiffeId {
    uri: Arc<str>,
    /// Where the path begins (its leading slash), or the end when there is none.
    path: u16,
}

/// The specification's limits: 2048 bytes in all, 255 for the trust domain.
const MAX_ID: usize = 2048;
const MAX_TRUST_DOMAIN: usize = 255;
const SCHEME: &str = "spiffe://";

/// Why a string is no SPIFFE id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SpiffeError {
    #[error("longer than 2048 bytes")]
    TooLong,
    #[error("does not start with spiffe://")]
    Scheme,
    #[error("trust domain is empty, too long, or has other characters than a-z 0-9 . - _")]
    TrustDomain,
    #[error("path has an empty, `.` or `..` segment, or other characters than a-z A-Z 0-9 . - _")]
    Path,
}

impl SpiffeId {
    /// # Errors
    /// When `uri` is not a SPIFFE id in canonical form.
    pub fn parse(uri: &str) -> Result<Self, SpiffeError> {
        if uri.len() > MAX_ID {
            return Err(SpiffeError::TooLong);
        }
        let rest = uri.strip_prefix(SCHEME).ok_or(SpiffeError::Scheme)?;
        let (domain, path) = match rest.find('/') {
            Some(slash) => rest.split_at(slash),
            None => (rest, ""),
        };
        if !is_trust_domain(domain) {
            return Err(SpiffeError::TrustDomain);
        }
        if let Some(segments) = path.strip_prefix('/')
            && !segments.split('/').all(is_path_segment)
        {
            return Err(SpiffeError::Path);
        }
        let path = SCHEME.len().saturating_add(domain.len());
        let path = u16::try_from(path).map_err(|_| SpiffeError::TooLong)?;
        Ok(SpiffeId {
            uri: uri.into(),
            path,
        })
    }

    pub fn as_str(&self) -> &str {
        &self.uri
    }

    pub fn trust_domain(&self) -> &str {
        let domain = self.uri.get(SCHEME.len()..usize::from(self.path));
        domain.unwrap_or_default()
    }

    /// The path with its leading slash; empty for the id of a trust domain.
    pub fn path(&self) -> &str {
        self.uri.get(usize::from(self.path)..).unwrap_or_default()
    }

    /// `ns` of `/ns/<namespace>/sa/<service account>`; `None` for another form of path.
    pub fn namespace(&self) -> Option<&str> {
        Some(self.namespace_and_account()?.0)
    }

    /// `sa` of `/ns/<namespace>/sa/<service account>`; `None` for a path of another shape.
    pub fn service_account(&self) -> Option<&str> {
        Some(self.namespace_and_account()?.1)
    }

    fn namespace_and_account(&self) -> Option<(&str, &str)> {
        let (namespace, account) = self.path().strip_prefix("/ns/")?.split_once("/sa/")?;
        let single = |segment: &str| !segment.is_empty() && !segment.contains('/');
        (single(namespace) && single(account)).then_some((namespace, account))
    }
}

impl fmt::Display for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.uri)
    }
}

/// Whether `name` may stand as the trust domain of a SPIFFE id.
pub(crate) fn is_trust_domain(name: &str) -> bool {
    let allowed = |b: u8| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'-' | b'_');
    !name.is_empty() && name.len() <= MAX_TRUST_DOMAIN && name.bytes().all(allowed)
}

fn is_path_segment(segment: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_');
    !matches!(segment, "" | "." | "..") && segment.bytes().all(allowed)
}

/// The verified identity of a peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerIdentity {
    id: SpiffeId,
}

impl PeerIdentity {
    pub(crate) fn new(id: SpiffeId) -> Self {
        PeerIdentity { id }
    }

    pub fn id(&self) -> &SpiffeId {
        &self.id
    }

    /// The whole URI, as it stood in the certificate.
    pub fn as_str(&self) -> &str {
        self.id.as_str()
    }

    pub fn trust_domain(&self) -> &str {
        self.id.trust_domain()
    }

    pub fn namespace(&self) -> Option<&str> {
        self.id.namespace()
    }

    pub fn service_account(&self) -> Option<&str> {
        self.id.service_account()
    }
}

impl fmt::Display for PeerIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts() {
        let id = SpiffeId::parse("spiffe://mesh.local/ns/shop/sa/cart").unwrap();
        assert_eq!(id.trust_domain(), "mesh.local");
        assert_eq!(id.namespace(), Some("shop"));
        assert_eq!(id.service_account(), Some("cart"));
        assert_eq!(id.path(), "/ns/shop/sa/cart");
    }

    #[test]
    fn other_shapes_have_no_namespace() {
        for uri in [
            "spiffe://td",
            "spiffe://td/workload",
            "spiffe://td/ns/a/sa/b/c",
            "spiffe://td/ns/a/b/sa/c",
        ] {
            assert_eq!(SpiffeId::parse(uri).unwrap().namespace(), None, "{uri}");
        }
    }

    #[test]
    fn refuses_what_is_not_canonical() {
        for (uri, error) in [
            ("", SpiffeError::Scheme),
            ("SPIFFE://td/a", SpiffeError::Scheme),
            ("https://td/a", SpiffeError::Scheme),
            ("spiffe://", SpiffeError::TrustDomain),
            ("spiffe:///ns/a", SpiffeError::TrustDomain),
            ("spiffe://TD/a", SpiffeError::TrustDomain),
            ("spiffe://td:443/a", SpiffeError::TrustDomain),
            ("spiffe://user@td/a", SpiffeError::TrustDomain),
            ("spiffe://td?x", SpiffeError::TrustDomain),
            ("spiffe://t\0d/a", SpiffeError::TrustDomain),
            ("spiffe://td/", SpiffeError::Path),
            ("spiffe://td/a/", SpiffeError::Path),
            ("spiffe://td/a//b", SpiffeError::Path),
            ("spiffe://td/../b", SpiffeError::Path),
            ("spiffe://td/a/./b", SpiffeError::Path),
            ("spiffe://td/a%2Fb", SpiffeError::Path),
            ("spiffe://td/a?b", SpiffeError::Path),
            ("spiffe://td/a#b", SpiffeError::Path),
            ("spiffe://td/a\0", SpiffeError::Path),
        ] {
            assert_eq!(SpiffeId::parse(uri), Err(error), "{uri:?}");
        }
        let long = format!("spiffe://td/{}", "a".repeat(MAX_ID));
        assert_eq!(SpiffeId::parse(&long), Err(SpiffeError::TooLong));
    }
}
