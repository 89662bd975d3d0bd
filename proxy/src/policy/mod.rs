//! Authorisation: evaluates compiled RBAC rules for a connection or request.
//!
//! A repeated header is matched value by value, and against the client: a rule that denies matches
//! when any value does, one that allows only when all do. Rules that join the values, or match only
//! the first, have been bypassed. A path is matched likewise, in each form in which an app may read
//! it.
//!
//! - `subject`: the facts of a connection that rules are evaluated on
#![cfg_attr(
    not(test),
    deny(
        clippy::arithmetic_side_effects,
        clippy::expect_used,
        clippy::indexing_slicing,
        clippy::panic,
        clippy::string_slice,
        clippy::unreachable,
        clippy::unwrap_used
    )
)]

mod subject;

use std::net::{IpAddr, SocketAddr};

use crate::config::Name;
use crate::config::policy::{Permission, Policy, Principal, Rbac, RbacAction, Rules};
use crate::matcher::{HeaderMatch, HeaderMatcher, HeaderName, Quantifier, StringMatch};
use crate::message::path::Readings;
use crate::metadata::Metadata;
use crate::tls::ConnectionInfo;

pub use subject::{Addresses, DetectedProtocol, PolicySubject, Readmission};

/// What is known of a connection or request, for rules to match.
#[derive(Clone, Copy)]
pub struct Facts<'a> {
    /// The TLS connection it came by.
    pub tls: Option<&'a ConnectionInfo>,
    /// The socket's other end.
    pub direct_remote: IpAddr,
    /// The client, from `x-forwarded-for` where that is trusted.
    pub remote: IpAddr,
    /// The client's destination address.
    pub destination: SocketAddr,
    pub sni: Option<&'a str>,
    /// `None` for a connection.
    pub request: Option<&'a dyn RequestFacts>,
    /// Dynamic metadata of the request.
    pub metadata: Option<&'a Metadata>,
}

/// What is known of a request.
pub trait RequestFacts {
    /// The normalised path without its query, and the other forms in which an app may read it.
    fn path(&self) -> &Readings<'_>;
    /// Calls `each` with every value of a header (or pseudo-header), in order.
    fn values(&self, name: &HeaderName, each: &mut dyn FnMut(&[u8]));
}

/// The result of a filter's rules.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RbacDecision {
    pub denied: Option<Denial>,
    /// By the shadow rules.
    pub shadow_denied: Option<Denial>,
}

/// Why rules deny a connection or request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Denial {
    /// This policy matches, and its action is DENY.
    Policy(Name),
    /// The action is ALLOW, and no policy matches.
    NoPolicyAllows,
}

impl Denial {
    pub fn policy(&self) -> Option<&str> {
        match self {
            Self::Policy(name) => Some(name),
            Self::NoPolicyAllows => None,
        }
    }
}

/// Evaluates one filter's rules.
pub fn evaluate(rbac: &Rbac, facts: &Facts<'_>) -> RbacDecision {
    let denial = |rules: &Option<Rules>| rules.as_ref().and_then(|rules| denies(rules, facts));
    RbacDecision {
        denied: denial(&rbac.enforced),
        shadow_denied: denial(&rbac.shadow),
    }
}

fn denies(rules: &Rules, facts: &Facts<'_>) -> Option<Denial> {
    let with = |quantifier| Evaluation { facts, quantifier };
    match rules.action {
        RbacAction::Allow => {
            let allowed = rules
                .policies
                .iter()
                .any(|p| with(Quantifier::All).policy(p));
            (!allowed).then_some(Denial::NoPolicyAllows)
        }
        RbacAction::Deny => {
            let by = rules
                .policies
                .iter()
                .find(|p| with(Quantifier::Any).policy(p));
            by.map(|policy| Denial::Policy(policy.name.clone()))
        }
        RbacAction::Log => None,
    }
}

/// The quantifier under a negation: "all match" turns into "any matches", and back.
fn negated(quantifier: Quantifier) -> Quantifier {
    match quantifier {
        Quantifier::All => Quantifier::Any,
        Quantifier::Any => Quantifier::All,
    }
}

#[derive(Clone, Copy)]
struct Evaluation<'a> {
    facts: &'a Facts<'a>,
    quantifier: Quantifier,
}

impl Evaluation<'_> {
    fn policy(self, policy: &Policy) -> bool {
        policy
            .permissions
            .iter()
            .any(|permission| self.permission(permission))
            && policy
                .principals
                .iter()
                .any(|principal| self.principal(principal))
    }

    fn negated(self) -> Self {
        Evaluation {
            quantifier: negated(self.quantifier),
            ..self
        }
    }

    fn permission(self, permission: &Permission) -> bool {
        let facts = self.facts;
        match permission {
            Permission::Any => true,
            Permission::And(all) => all.iter().all(|one| self.permission(one)),
            Permission::Or(any) => any.iter().any(|one| self.permission(one)),
            Permission::Not(one) => !self.negated().permission(one),
            Permission::Header(header) => self.header(header),
            Permission::Metadata(wanted) => wanted.matches(facts.metadata),
            Permission::UrlPath(path) => self.path(path),
            Permission::DestinationIp(range) => range.contains(facts.destination.ip()),
            Permission::DestinationPort(port) => facts.destination.port() == *port,
            Permission::DestinationPortRange { start, end } => {
                (*start..*end).contains(&facts.destination.port().into())
            }
            Permission::RequestedServerName(name) => {
                name.matches(facts.sni.unwrap_or_default().as_bytes())
            }
        }
    }

    fn principal(self, principal: &Principal) -> bool {
        let facts = self.facts;
        match principal {
            Principal::Any => true,
            Principal::And(all) => all.iter().all(|one| self.principal(one)),
            Principal::Or(any) => any.iter().any(|one| self.principal(one)),
            Principal::Not(one) => !self.negated().principal(one),
            Principal::Authenticated(wanted) => self.authenticated(wanted.as_ref()),
            Principal::DirectRemoteIp(range) => range.contains(facts.direct_remote),
            Principal::RemoteIp(range) => range.contains(facts.remote),
            Principal::Header(header) => self.header(header),
            Principal::Metadata(wanted) => wanted.matches(facts.metadata),
            Principal::UrlPath(path) => self.path(path),
        }
    }

    fn authenticated(self, wanted: Option<&StringMatch>) -> bool {
        let Some(tls) = self.facts.tls.filter(|tls| tls.peer_verified) else {
            return false;
        };
        match (wanted, &tls.peer) {
            (None, _) => true,
            (Some(wanted), Some(peer)) => wanted.matches(peer.as_str().as_bytes()),
            (Some(_), None) => false,
        }
    }

    /// With and without its `;params`. Its decoded forms can only deny: `/a%20b` in an ALLOW policy
    /// means the escaped form.
    fn path(self, wanted: &StringMatch) -> bool {
        let Some(request) = self.facts.request else {
            return false;
        };
        let Readings {
            received,
            without_params,
            decoded,
        } = request.path();
        let matches = |path: &Vec<u8>| wanted.matches(path);
        match self.quantifier {
            Quantifier::All => {
                wanted.matches(received) && without_params.as_ref().is_none_or(matches)
            }
            Quantifier::Any => {
                wanted.matches(received)
                    || without_params.as_ref().is_some_and(matches)
                    || decoded.iter().any(matches)
            }
        }
    }

    fn header(self, wanted: &HeaderMatch) -> bool {
        let mut values = HeaderMatcher::new(wanted);
        if let Some(request) = self.facts.request {
            request.values(&wanted.name, &mut |value| values.value(value));
        }
        values.matches(self.quantifier)
    }
}

#[cfg(test)]
mod tests;
