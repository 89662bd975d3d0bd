//! The routes that are attached to each port of a Service (Gateway API for service meshes, GEP-1294 and
//! GEP-1426).

use std::collections::BTreeMap;
use std::sync::Arc;

use super::PortEntry;
use crate::model::manifest::object::{Key, Kind};
use crate::model::manifest::route::{Parent, Route};
use crate::model::manifest::service::{AppProtocol, Service, ServicePort};

/// A route that is attached to a port.
struct Attached<'a> {
    route: &'a Arc<Route>,
    /// One of its parentRefs names this port.
    named: bool,
}

/// The ports of a service, each with those of `routes` that govern it: of one kind in each namespace.
pub fn ports(service: &Service, routes: &[Arc<Route>]) -> Vec<PortEntry> {
    let attached: Vec<_> = routes
        .iter()
        .map(|route| (route, attached_to(route, service)))
        .collect();
    let on = |number: u16| {
        let mut on: Vec<Attached<'_>> = Vec::new();
        for (route, ports) in &attached {
            let mut refs = ports.iter().filter(|(port, _)| *port == number).peekable();
            if refs.peek().is_some() {
                let named = refs.any(|(_, named)| *named);
                on.push(Attached { route, named });
            }
        }
        on.sort_by(|a, b| a.route.meta.precedence().cmp(&b.route.meta.precedence()));
        on
    };
    let port = |declared: &ServicePort| port(service, declared, on(declared.number));
    service.ports.iter().map(port).collect()
}

/// The ports of `service` that a parentRef of the route is attached to, and whether that names them.
fn attached_to(route: &Route, service: &Service) -> Vec<(u16, bool)> {
    let meta = &service.meta;
    let parents = route.parents.iter().filter(|parent| {
        parent.service && parent.namespace == meta.namespace && parent.name == meta.name
    });
    let attached = parents.filter_map(|parent| {
        let named = parent.port.is_some() || parent.section.is_some();
        let ports = attachment(route, parent, Some(service)).ok()?.ports;
        Some(ports.into_iter().map(move |port| (port, named)))
    });
    attached.flatten().collect()
}

/// `routes` by precedence.
fn port(service: &Service, declared: &ServicePort, routes: Vec<Attached<'_>>) -> PortEntry {
    let own = |route: &Route| route.meta.namespace == service.meta.namespace;
    let mut entry = PortEntry {
        name: declared.name.clone(),
        number: declared.number,
        protocol: declared.protocol,
        target: declared.target.clone(),
        producers: Vec::new(),
        consumers: BTreeMap::new(),
        tls: None,
    };
    for Attached { route, .. } in &routes {
        match own(route) {
            true => entry.producers.push(Arc::clone(route)),
            false => {
                let namespace = route.meta.namespace.clone();
                let consumers = entry.consumers.entry(namespace).or_default();
                consumers.push(Arc::clone(route));
            }
        }
    }
    for routes in std::iter::once(&mut entry.producers).chain(entry.consumers.values_mut()) {
        let first = routes.iter().map(|route| rank(route.kind)).min();
        routes.retain(|route| Some(rank(route.kind)) == first);
    }
    // A route of the Service's own namespace says what a port carries that declares nothing, if it
    // is about that port: one for all ports of a Service does not turn its database into HTTP. What
    // another namespace writes changes nothing for callers elsewhere.
    let alone = service.ports.len() == 1;
    if let Some(governing) = entry.producers.first().map(|route| route.kind) {
        let of_connections = governing.is_connection_route();
        let mut says = routes.iter().filter(|it| {
            own(it.route)
                && (it.named || alone)
                && it.route.kind.is_connection_route() == of_connections
        });
        if entry.protocol == AppProtocol::Undeclared && says.next().is_some() {
            entry.protocol = said(governing);
        }
    }
    let protocol = entry.protocol;
    entry.consumers.retain(|_, routes| {
        routes.retain(|route| is_carried(route.kind, protocol));
        !routes.is_empty()
    });
    entry
}

/// Which kind governs a port where several do: the lowest (GEP-1294, route types).
fn rank(kind: Kind) -> u8 {
    match kind {
        Kind::GrpcRoute => 0,
        Kind::HttpRoute => 1,
        Kind::TlsRoute => 2,
        _ => 3,
    }
}

/// What a port carries that declares nothing and that routes of this kind govern.
fn said(kind: Kind) -> AppProtocol {
    match kind {
        Kind::GrpcRoute => AppProtocol::Grpc,
        Kind::TcpRoute => AppProtocol::Tcp,
        Kind::TlsRoute => AppProtocol::Tls,
        _ => AppProtocol::Http,
    }
}

/// Whether routes of this kind can govern what a port carries, be it by a route of the Service's
/// namespace: another namespace's routes are of no use on a port that this made another one.
pub fn is_carried(kind: Kind, protocol: AppProtocol) -> bool {
    match protocol {
        AppProtocol::Undeclared => true,
        protocol if protocol.is_opaque() => is_taken(kind, protocol),
        _ => !kind.is_connection_route(),
    }
}

/// Whether a port that declares this takes routes of this kind.
fn is_taken(kind: Kind, protocol: AppProtocol) -> bool {
    match protocol {
        AppProtocol::Tcp => kind == Kind::TcpRoute,
        AppProtocol::Tls => kind.is_connection_route(),
        AppProtocol::Http => kind == Kind::HttpRoute,
        AppProtocol::Http2 | AppProtocol::Grpc => !kind.is_connection_route(),
        AppProtocol::Undeclared => true,
    }
}

/// Why a parent does not take a route: a reason of its `Accepted` condition, and a sentence.
pub type AttachRefusal = (&'static str, String);

/// What of a parent takes a route.
pub struct Attachment {
    /// By number.
    pub ports: Vec<u16>,
    /// Ports that the parentRef selects and that cannot take it.
    pub refused: Vec<u16>,
}

/// The ports of `service`, which is the parent's if there is such, that take the route.
///
/// # Errors
/// When none does.
pub fn attachment(
    route: &Route,
    parent: &Parent,
    service: Option<&Service>,
) -> Result<Attachment, AttachRefusal> {
    let key = Key::new(&parent.namespace, &parent.name);
    let no_match = |message: String| Err(("NoMatchingParent", message));
    if !parent.service {
        return no_match(format!(
            "parent {key} is no Service (group \"\", kind Service); the mesh takes only those"
        ));
    }
    let Some(service) = service else {
        return no_match(format!("there is no Service {key}"));
    };
    if let Some(name) = &service.external_name {
        return no_match(format!(
            "Service {key} is of type ExternalName ({name}): it has no address that a route could \
             govern"
        ));
    }
    if service.headless {
        return no_match(format!(
            "Service {key} is headless: its callers use addresses of pods, which no route governs"
        ));
    }
    let selected = service.ports.iter().filter(|port| {
        parent.port.is_none_or(|number| number == port.number)
            && parent
                .section
                .as_ref()
                .is_none_or(|name| *name == port.name)
    });
    let mut attachment = Attachment {
        ports: Vec::new(),
        refused: Vec::new(),
    };
    for port in selected {
        match is_taken(route.kind, port.protocol) {
            true => attachment.ports.push(port.number),
            false => attachment.refused.push(port.number),
        }
    }
    match (attachment.ports.is_empty(), attachment.refused.first()) {
        (false, _) => Ok(attachment),
        (true, Some(port)) => Err((
            "UnsupportedProtocol",
            format!(
                "port {port} of Service {key} is declared to carry something else than {}",
                route.kind
            ),
        )),
        (true, None) => {
            let which = match (parent.port, &parent.section) {
                (Some(port), Some(name)) => format!("port {port} named {name}"),
                (Some(port), None) => format!("port {port}"),
                (None, Some(name)) => format!("port named {name}"),
                (None, None) => "TCP port".to_owned(),
            };
            no_match(format!("Service {key} has no {which}"))
        }
    }
}
