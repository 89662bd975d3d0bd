//! How the parents of a route take it, and what its references came to: its conditions (Gateway
//! API's RouteParentStatus), for each parent that is a Service, and for people in sum.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::attach::{AttachRefusal, attachment, is_carried};
use super::backend::BadBackend;
use super::change::{LeftOut, LeftOutEffect, Origin};
use super::endpoints::EndpointsBy;
use super::server_names::{self, NameShare};
use super::status::{Condition, ParentStatus, fields_left_out};
use super::{Mesh, ServiceEntry};
use crate::model::manifest::object::{Key, Kind};
use crate::model::manifest::route::{BackendKind, Destination, Parent, Route};

const ACCEPTED: &str = "Accepted";
const UNSUPPORTED_VALUE: &str = "UnsupportedValue";

/// The conditions of a route.
pub struct RouteConditions {
    /// For people.
    pub sum: Vec<Condition>,
    pub parents: Vec<ParentStatus>,
}

/// Of a route that stands at `origin`.
pub fn conditions(mesh: &Mesh, route: &Route, origin: &Origin) -> RouteConditions {
    let refs = resolved_refs(mesh, route);
    let invalid = invalid_rules(route, origin.left_out());
    let fields = fields_left_out(origin.left_out());
    let mut parents = Vec::new();
    let mut taken = Vec::new();
    for parent in &route.parents {
        let outcome = acceptance(mesh, route, parent);
        if parent.service {
            let (accepted, partially) = conditions_of(&outcome, &invalid);
            let conditions = [
                Some(accepted),
                Some(refs.clone()),
                partially,
                fields.clone(),
            ];
            parents.push(ParentStatus {
                parent: parent.clone(),
                conditions: conditions.into_iter().flatten().collect(),
            });
        }
        taken.push((parent, outcome));
    }
    // In a cluster it is for the controllers of its Gateways.
    let sum = match parents.is_empty() && is_in_cluster(mesh) {
        true => Vec::new(),
        false => vec![summary(mesh, route, &taken, &invalid), refs],
    };
    RouteConditions { sum, parents }
}

fn is_in_cluster(mesh: &Mesh) -> bool {
    mesh.options.endpoints == EndpointsBy::Slices
}

/// How a parent takes a route: what limits that, or why not.
type Outcome = Result<Vec<String>, AttachRefusal>;

fn acceptance(mesh: &Mesh, route: &Route, parent: &Parent) -> Outcome {
    let key = Key::new(&parent.namespace, &parent.name);
    let entry = mesh.service(&key).map(|entry| &**entry);
    let attachment = attachment(route, parent, entry.map(|entry| &*entry.service))?;
    let conflict = |number: &u16| conflict(entry?, *number, route);
    let mut notes: Vec<String> = attachment.ports.iter().filter_map(conflict).collect();
    if notes.len() == attachment.ports.len() {
        return Err(("Conflicted", notes.join("; ")));
    }
    if !attachment.refused.is_empty() {
        let ports: Vec<String> = attachment.refused.iter().map(u16::to_string).collect();
        notes.push(format!(
            "not for port {} of Service {key}, declared to carry something else than {}",
            ports.join(", "),
            route.kind
        ));
    }
    notes.extend(shared_names(entry, &attachment.ports, route));
    if !route.hostnames.is_empty() && !route.kind.is_connection_route() {
        notes.push("hostnames have no effect: the address called says which Service".into());
    }
    if route.kind.is_connection_route() && route.rules.len() > 1 {
        notes.push("only the first of its rules is used: nothing distinguishes the others".into());
    }
    Ok(notes)
}

/// What governs a port in place of `route`.
fn conflict(service: &ServiceEntry, number: u16, route: &Route) -> Option<String> {
    let port = service.port(number)?;
    let key = service.key();
    let at = format!("port {number} of Service {key}");
    let group = port.group(&route.meta.namespace, &key.namespace);
    let governs = |other: &Route| format!("{} {} governs {at}", other.kind, other.meta.key());
    if !is_carried(route.kind, port.protocol) {
        let own = port.producers.first();
        return own.map(|own| format!("{}, for all callers", governs(own)));
    }
    match (group.first()?, route.kind) {
        (first, Kind::TcpRoute) if first.meta.key() != route.meta.key() => Some(governs(first)),
        (first, kind) if first.kind != kind => Some(governs(first)),
        (_, Kind::TlsRoute) => {
            let share = share(group, route).filter(|share| share.names.is_empty())?;
            let (_, other) = share.lost.first()?;
            let other = other.meta.key();
            Some(format!("TLSRoute {other} has its hostnames on {at}"))
        }
        _ => None,
    }
}

/// The server names that a TLSRoute has on a port, among the routes there.
fn share<'a>(group: &'a [Arc<Route>], route: &Route) -> Option<NameShare<'a>> {
    let mut all = server_names::divide(group).into_iter();
    all.find(|share| share.route.kind == route.kind && share.route.meta.key() == route.meta.key())
}

/// Where a TLSRoute has some of its hostnames only.
fn shared_names(entry: Option<&ServiceEntry>, ports: &[u16], route: &Route) -> Vec<String> {
    let Some(entry) = entry.filter(|_| route.kind == Kind::TlsRoute) else {
        return Vec::new();
    };
    let on = |number: &u16| {
        let port = entry.port(*number)?;
        let group = port.group(&route.meta.namespace, &entry.service.meta.namespace);
        let share = share(group, route).filter(|share| !share.names.is_empty())?;
        let (name, other) = share.lost.first()?;
        let (lost, other) = (share.lost.len(), other.meta.key());
        Some(format!(
            "on port {number} of Service {} other TLSRoutes have {lost} of its hostnames: {other} has {name}",
            entry.key()
        ))
    };
    ports.iter().filter_map(on).collect()
}

/// `Accepted` and, where some rules of an accepted route are invalid, `PartiallyInvalid`.
fn conditions_of(outcome: &Outcome, invalid: &InvalidRules) -> (Condition, Option<Condition>) {
    match outcome {
        Err((reason, message)) => (Condition::no(ACCEPTED, reason, message.clone()), None),
        Ok(_) if invalid.all => {
            let message = invalid.messages.join("; ");
            (Condition::no(ACCEPTED, UNSUPPORTED_VALUE, message), None)
        }
        Ok(notes) => {
            let accepted = Condition {
                message: notes.join("; "),
                ..Condition::accepted()
            };
            let partially = Condition {
                message: invalid.messages.join("; "),
                ..Condition::yes("PartiallyInvalid", UNSUPPORTED_VALUE)
            };
            let partially = (!invalid.messages.is_empty()).then_some(partially);
            (accepted, partially)
        }
    }
}

/// Rules of which an essential part cannot be read.
struct InvalidRules {
    /// One a part; each begins as Gateway API wants it of `PartiallyInvalid`.
    messages: Vec<String>,
    /// No rule is in effect.
    all: bool,
}

fn invalid_rules(route: &Route, left_out: &[LeftOut]) -> InvalidRules {
    let mut messages = Vec::new();
    let (mut dropped, mut failing) = (BTreeSet::new(), BTreeSet::new());
    for part in left_out {
        match part.effect {
            LeftOutEffect::RuleDropped(rule) => drop(dropped.insert(rule)),
            LeftOutEffect::RuleFails(rule) => drop(failing.insert(rule)),
            LeftOutEffect::MatchDropped => {}
            // The last four are of policies.
            LeftOutEffect::ShareFails
            | LeftOutEffect::Unused
            | LeftOutEffect::Bounded
            | LeftOutEffect::RuleRefuses
            | LeftOutEffect::StrictestMode
            | LeftOutEffect::Strictest
            | LeftOutEffect::StrictestInNamespace
            | LeftOutEffect::CallsFail => continue,
        }
        messages.push(format!("Dropped Rule: {part}"));
    }
    // Dropped ones are no longer among the route's.
    let failing = failing.difference(&dropped).count();
    InvalidRules {
        all: dropped.len() + failing > 0 && failing == route.rules.len(),
        messages,
    }
}

/// Of all parents together.
fn summary(
    mesh: &Mesh,
    route: &Route,
    taken: &[(&Parent, Outcome)],
    invalid: &InvalidRules,
) -> Condition {
    let mut notes = Vec::new();
    let mut reason = "NoMatchingParent";
    let mut accepted = false;
    for (parent, outcome) in taken {
        match outcome {
            Ok(more) => {
                accepted = true;
                let known: Vec<_> = more.iter().filter(|it| !notes.contains(*it)).collect();
                notes.extend(known.into_iter().cloned());
            }
            Err(_) if !parent.service && is_in_cluster(mesh) => {}
            Err((why, message)) => {
                reason = why;
                notes.push(message.clone());
            }
        }
    }
    if route.parents.is_empty() {
        notes.push("there are no parentRefs; name the Service it governs".to_owned());
    }
    if accepted && invalid.all {
        accepted = false;
        reason = UNSUPPORTED_VALUE;
        notes.extend(invalid.messages.iter().cloned());
    }
    let message = notes.join("; ");
    match accepted {
        true => Condition {
            message,
            ..Condition::accepted()
        },
        false => Condition::no(ACCEPTED, reason, message),
    }
}

/// What a route's backends and mirrors came to.
fn resolved_refs(mesh: &Mesh, route: &Route) -> Condition {
    let mut reason = None;
    let mut messages = Vec::new();
    for (rule, one) in route.rules.iter().enumerate() {
        let backends = one.backends.iter().enumerate().map(|(index, backend)| {
            let at = format!("spec.rules[{rule}].backendRefs[{index}]");
            (at, &backend.to)
        });
        let mirrors = one.filters.mirrors.iter().map(|mirror| {
            let at = format!("spec.rules[{rule}].filters: requestMirror.backendRef");
            (at, &mirror.to)
        });
        for (at, to) in backends.chain(mirrors) {
            // Another condition names a reference that cannot be read.
            if to.kind == BackendKind::Unreadable {
                continue;
            }
            if let Err(error) = mesh.backend(route, to) {
                let (why, message) = unresolved(error, to);
                reason.get_or_insert(why);
                messages.push(format!("{at}: {message}"));
            }
        }
    }
    match reason {
        None => Condition::yes("ResolvedRefs", "ResolvedRefs"),
        Some(reason) => Condition::no("ResolvedRefs", reason, messages.join("; ")),
    }
}

fn unresolved(error: BadBackend, to: &Destination) -> AttachRefusal {
    let key = Key::new(&to.namespace, &to.name);
    match error {
        BadBackend::InvalidKind(kind) => (
            "InvalidKind",
            format!("{kind} {key} is no Service (group \"\"), which alone can be a backend"),
        ),
        BadBackend::RefNotPermitted => (
            "RefNotPermitted",
            format!("no ReferenceGrant in {} allows {key}", to.namespace),
        ),
        BadBackend::UnsupportedProtocol(message) => ("UnsupportedProtocol", message),
        BadBackend::NotFound(message) => ("BackendNotFound", message),
    }
}
