//! Authorisation: envoy.config.rbac.v3.RBAC, compiled. Evaluated by [`crate::policy`].

use super::Name;
use super::cidr::Cidr;
use crate::matcher::{HeaderMatch, MetadataMatch, StringMatch};

/// One RBAC filter: rules that are enforced and rules that are only counted and logged.
pub struct Rbac {
    pub enforced: Option<Rules>,
    pub shadow: Option<Rules>,
}

impl Rbac {
    /// Whether a decision depends on the server name of a ClientHello.
    pub fn needs_server_name(&self) -> bool {
        let rules = [&self.enforced, &self.shadow].into_iter().flatten();
        let mut permissions = rules
            .flat_map(|rules| &rules.policies)
            .flat_map(|policy| &policy.permissions);
        permissions.any(Permission::needs_server_name)
    }
}

impl Permission {
    fn needs_server_name(&self) -> bool {
        match self {
            Self::RequestedServerName(_) => true,
            Self::And(all) | Self::Or(all) => all.iter().any(Self::needs_server_name),
            Self::Not(one) => one.needs_server_name(),
            _ => false,
        }
    }
}

pub struct Rules {
    pub action: RbacAction,
    /// Sorted by name, as Envoy evaluates them.
    pub policies: Vec<Policy>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RbacAction {
    Allow,
    Deny,
    /// Never decides; records.
    Log,
}

pub struct Policy {
    pub name: Name,
    /// Any of them.
    pub permissions: Vec<Permission>,
    /// Any of them.
    pub principals: Vec<Principal>,
}

pub enum Permission {
    Any,
    And(Vec<Permission>),
    Or(Vec<Permission>),
    Not(Box<Permission>),
    Header(HeaderMatch),
    /// The normalised path without its query.
    UrlPath(StringMatch),
    DestinationIp(Cidr),
    DestinationPort(u16),
    /// Half-open; the end may be 65536.
    DestinationPortRange {
        start: u32,
        end: u32,
    },
    RequestedServerName(StringMatch),
    /// Dynamic metadata set by earlier filters.
    Metadata(MetadataMatch),
}

pub enum Principal {
    Any,
    And(Vec<Principal>),
    Or(Vec<Principal>),
    Not(Box<Principal>),
    /// A verified peer certificate; `None`: any.
    Authenticated(Option<StringMatch>),
    DirectRemoteIp(Cidr),
    RemoteIp(Cidr),
    Header(HeaderMatch),
    UrlPath(StringMatch),
    Metadata(MetadataMatch),
}
