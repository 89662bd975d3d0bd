//! Which names of a certificate are accepted.

use super::leaf::Leaf;
use crate::matcher::StringMatch;

/// envoy.extensions.transport_sockets.tls.v3.SubjectAltNameMatcher.
#[derive(Clone, Debug)]
pub enum SanMatch {
    /// Matches only when the certificate has exactly one URI name.
    Uri(StringMatch),
    Dns(StringMatch),
}

impl SanMatch {
    pub(super) fn matches(&self, leaf: &Leaf) -> bool {
        match self {
            SanMatch::Uri(wanted) => match &leaf.uris[..] {
                [uri] => wanted.matches(uri.as_bytes()),
                _ => false,
            },
            SanMatch::Dns(wanted) => leaf.dns.iter().any(|name| dns_matches(wanted, name)),
        }
    }
}

/// An exact DNS matcher also accepts a wildcard name in the certificate, for one label.
fn dns_matches(wanted: &StringMatch, name: &str) -> bool {
    let lower = name.to_ascii_lowercase();
    if wanted.matches(lower.as_bytes()) {
        return true;
    }
    match (wanted, lower.strip_prefix("*.")) {
        (StringMatch::Exact { value, .. }, Some(parent)) => value
            .split_once('.')
            .is_some_and(|(label, rest)| !label.is_empty() && rest.eq_ignore_ascii_case(parent)),
        _ => false,
    }
}
