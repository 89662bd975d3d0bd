//! The filter that keeps the requests of a session on one endpoint.

use crate::config::hash::SetCookie;
use crate::matcher::HeaderName;

/// envoy.extensions.filters.http.stateful_session.v3.StatefulSession.
pub struct StatefulSession {
    pub state: SessionState,
    /// The status of requests whose endpoint is gone; `None`: they go to another.
    pub strict: Option<u16>,
}

/// Where a session's endpoint is written.
pub enum SessionState {
    Cookie(SessionCookie),
    /// A header of requests and responses.
    Header(HeaderName),
}

pub struct SessionCookie {
    pub name: Box<str>,
    /// Requests to other paths have no session; empty: all have.
    pub path: Box<str>,
    /// Seconds; 0: until the client forgets it.
    pub ttl: u64,
    pub set: SetCookie,
}

impl SessionCookie {
    /// Whether a request with this path has the session (RFC 6265 5.1.4).
    pub fn is_for(&self, path: &[u8]) -> bool {
        let own = self.path.as_bytes();
        if own.is_empty() {
            return true;
        }
        match path.strip_prefix(own) {
            Some(rest) => own.ends_with(b"/") || matches!(rest.first(), None | Some(b'/')),
            None => false,
        }
    }
}
