//! Which route governs which port of which service (Gateway API for service meshes, GEP-1294 and
//! GEP-1426), and what its references came to.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::status::Condition;
use super::{BadBackend, Mesh, PortEntry};
use crate::model::manifest::object::{Key, Kind};
use crate::model::manifest::route::{Destination, Parent, Route};
use crate::model::manifest::service::{AppProtocol, Service};

/// Routes by the port they are attached to.
#[derive(Debug, Default)]
pub struct Attached {
    by_port: BTreeMap<(Key, u16), Vec<Arc<Route>>>,
}

impl Attached {
    /// Attaches `route` to those of its parents that take it, and says how that went.
    pub fn add(&mut self, route: &Arc<Route>, services: &BTreeMap<Key, Arc<Service>>) -> Condition {
        let mut refusals = Vec::new();
        let mut reason = "NoMatchingParent";
        let mut accepted = false;
        for parent in &route.parents {
            match ports_of(route, parent, services) {
                Ok(ports) => {
                    accepted = true;
                    for port in ports {
                        let key = Key::new(&parent.namespace, &parent.name);
                        let routes = self.by_port.entry((key, port)).or_default();
                        if !routes.iter().any(|other| Arc::ptr_eq(other, route)) {
                            routes.push(route.clone());
                        }
                    }
                }
                Err((why, message)) => {
                    reason = why;
                    refusals.push(message);
                }
            }
        }
        if route.parents.is_empty() {
            refusals.push("there are no parentRefs; name the Service it governs".to_owned());
        }
        if route.hostnames {
            refusals.push("hostnames have no effect: the address called says which Service".into());
        }
        match (accepted, refusals.is_empty()) {
            (true, true) => Condition::accepted(),
            (true, false) => Condition {
                message: refusals.join("; "),
                ..Condition::accepted()
            },
            (false, _) => Condition::no("Accepted", reason, refusals.join("; ")),
        }
    }

    /// A port with its routes. GRPCRoutes take a port whole: HTTPRoutes beside them are left out
    /// and given to `conflicts`.
    pub fn port(
        &self,
        service: &Service,
        number: u16,
        conflicts: &mut Vec<Arc<Route>>,
    ) -> Option<PortEntry> {
        let declared = service.port(number)?;
        let key = service.meta.key();
        let mut entry = PortEntry {
            name: declared.name.clone(),
            number,
            protocol: declared.protocol,
            target: declared.target.clone(),
            producers: Vec::new(),
            consumers: BTreeMap::new(),
        };
        let mut routes = self
            .by_port
            .get(&(key, number))
            .cloned()
            .unwrap_or_default();
        routes.sort_by(|a, b| a.meta.precedence().cmp(&b.meta.precedence()));
        for route in routes {
            match route.meta.namespace == service.meta.namespace {
                true => entry.producers.push(route),
                false => {
                    let namespace = route.meta.namespace.clone();
                    entry.consumers.entry(namespace).or_default().push(route);
                }
            }
        }
        for routes in std::iter::once(&mut entry.producers).chain(entry.consumers.values_mut()) {
            if routes.iter().any(|route| route.kind == Kind::GrpcRoute) {
                let (grpc, http) = std::mem::take(routes)
                    .into_iter()
                    .partition(|route| route.kind == Kind::GrpcRoute);
                *routes = grpc;
                conflicts.extend::<Vec<_>>(http);
            }
        }
        if entry.protocol == AppProtocol::Undeclared {
            let mut all = entry
                .producers
                .iter()
                .chain(entry.consumers.values().flatten());
            entry.protocol = match all.next().map(|route| route.kind) {
                None => AppProtocol::Undeclared,
                Some(Kind::GrpcRoute) => AppProtocol::Grpc,
                Some(_) => AppProtocol::Http,
            };
        }
        Some(entry)
    }
}

type Refusal = (&'static str, String);

fn ports_of(
    route: &Route,
    parent: &Parent,
    services: &BTreeMap<Key, Arc<Service>>,
) -> Result<Vec<u16>, Refusal> {
    let key = Key::new(&parent.namespace, &parent.name);
    if !parent.service {
        return Err((
            "NoMatchingParent",
            format!("parent {key} is no Service; the mesh takes only those"),
        ));
    }
    let Some(service) = services.get(&key) else {
        return Err(("NoMatchingParent", format!("there is no Service {key}")));
    };
    let mut ports = service.ports.iter().filter(|port| {
        parent.port.is_none_or(|number| number == port.number)
            && parent
                .section
                .as_ref()
                .is_none_or(|name| *name == port.name)
    });
    let mut taken = Vec::new();
    let mut refused = None;
    for port in ports.by_ref() {
        match port.protocol {
            AppProtocol::Tcp => refused = Some(port.number),
            AppProtocol::Http if route.kind == Kind::GrpcRoute => refused = Some(port.number),
            _ => taken.push(port.number),
        }
    }
    match (taken.is_empty(), refused) {
        (false, _) => Ok(taken),
        (true, Some(port)) => Err((
            "UnsupportedProtocol",
            format!(
                "port {port} of Service {key} is declared to carry something else than {}",
                route.kind
            ),
        )),
        (true, None) => {
            let which = match (parent.port, &parent.section) {
                (Some(port), _) => format!("port {port}"),
                (None, Some(name)) => format!("port named {name}"),
                (None, None) => "TCP port".to_owned(),
            };
            Err(("NoMatchingParent", format!("Service {key} has no {which}")))
        }
    }
}

/// What a route's backends and mirrors came to.
pub fn resolved_refs(mesh: &Mesh, route: &Route) -> Condition {
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

fn unresolved(error: BadBackend, to: &Destination) -> Refusal {
    let key = Key::new(&to.namespace, &to.name);
    match error {
        BadBackend::InvalidKind => ("InvalidKind", "only a Service can be a backend".to_owned()),
        BadBackend::RefNotPermitted => (
            "RefNotPermitted",
            format!("no ReferenceGrant in {} allows {key}", to.namespace),
        ),
        BadBackend::UnsupportedProtocol => (
            "UnsupportedProtocol",
            "the port is declared to carry TCP".to_owned(),
        ),
        BadBackend::NotFound(message) => ("BackendNotFound", message),
    }
}
