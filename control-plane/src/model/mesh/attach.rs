//! Which route governs which port of which service (Gateway API for service meshes, GEP-1294 and
//! GEP-1426), and what its references came to.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::status::Condition;
use super::{BadBackend, Mesh, PortEntry};
use crate::model::manifest::object::{Key, Kind};
use crate::model::manifest::route::{Destination, Parent, Route};
use crate::model::manifest::service::{AppProtocol, Service, ServicePort};

/// How a route's parents take it.
pub fn accepted(mesh: &Mesh, route: &Route) -> Condition {
    let mut refusals = Vec::new();
    let mut reason = "NoMatchingParent";
    let mut accepted = false;
    for parent in &route.parents {
        let key = Key::new(&parent.namespace, &parent.name);
        let service = mesh.service(&key).map(|entry| &*entry.service);
        match ports_of(route, parent, service) {
            Ok(_) => accepted = true,
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

/// Whether a GRPCRoute governs a port that `route` is attached to, which leaves `route` out there.
pub fn is_conflicted(mesh: &Mesh, route: &Route) -> bool {
    route.parents.iter().any(|parent| {
        let key = Key::new(&parent.namespace, &parent.name);
        let Some(entry) = mesh.service(&key) else {
            return false;
        };
        let ports = ports_of(route, parent, Some(&entry.service)).unwrap_or_default();
        ports.into_iter().any(|number| {
            let governs = |port: &PortEntry| {
                let mut routes = port.group(&route.meta.namespace, &key.namespace).iter();
                routes.any(|other| other.kind == route.kind && other.meta.key() == route.meta.key())
            };
            entry.port(number).is_some_and(|port| !governs(port))
        })
    })
}

/// The ports of a service, each with those of `routes` that it takes. GRPCRoutes take a port whole:
/// HTTPRoutes beside them are left out.
pub fn ports(service: &Service, routes: &[Arc<Route>]) -> Vec<PortEntry> {
    let attached: Vec<_> = routes
        .iter()
        .map(|route| (route, attached_to(route, service)))
        .collect();
    let on = |number: u16| {
        let on = attached.iter().filter(|(_, ports)| ports.contains(&number));
        let mut on: Vec<_> = on.map(|(route, _)| Arc::clone(route)).collect();
        on.sort_by(|a, b| a.meta.precedence().cmp(&b.meta.precedence()));
        on
    };
    let port = |declared: &ServicePort| port(service, declared, on(declared.number));
    service.ports.iter().map(port).collect()
}

/// The ports of `service` that name it as parent and take it.
fn attached_to(route: &Route, service: &Service) -> Vec<u16> {
    let meta = &service.meta;
    let parents = route.parents.iter().filter(|parent| {
        parent.service && parent.namespace == meta.namespace && parent.name == meta.name
    });
    parents
        .filter_map(|parent| ports_of(route, parent, Some(service)).ok())
        .flatten()
        .collect()
}

/// `routes` by precedence.
fn port(service: &Service, declared: &ServicePort, routes: Vec<Arc<Route>>) -> PortEntry {
    let mut entry = PortEntry {
        name: declared.name.clone(),
        number: declared.number,
        protocol: declared.protocol,
        target: declared.target.clone(),
        producers: Vec::new(),
        consumers: BTreeMap::new(),
    };
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
            routes.retain(|route| route.kind == Kind::GrpcRoute);
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
    entry
}

type Refusal = (&'static str, String);

/// The ports of `service`, which is the parent's if there is such, that take the route.
fn ports_of(
    route: &Route,
    parent: &Parent,
    service: Option<&Service>,
) -> Result<Vec<u16>, Refusal> {
    let key = Key::new(&parent.namespace, &parent.name);
    if !parent.service {
        return Err((
            "NoMatchingParent",
            format!("parent {key} is no Service; the mesh takes only those"),
        ));
    }
    let Some(service) = service else {
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
            AppProtocol::Tcp | AppProtocol::Tls => refused = Some(port.number),
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
            "the port is declared to carry TCP or TLS".to_owned(),
        ),
        BadBackend::NotFound(message) => ("BackendNotFound", message),
    }
}
