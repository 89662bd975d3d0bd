//! What the guide says of the declared objects, computed with plain loops and none of the model's
//! code: deltas and rebuilds share that, so a fault in it would show in neither.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use anyam_control::model::manifest::endpoint_slice::{Conditions, EndpointSlice, SliceEndpoint};
use anyam_control::model::manifest::object::{Kind, Meta, Target};
use anyam_control::model::manifest::route::{Parent, Route};
use anyam_control::model::manifest::service::{AppProtocol, PortRef, Service, ServicePort};
use anyam_control::model::manifest::workload::Workload;
use anyam_control::model::{Mesh, Object};

use super::Declared;

/// `namespace/service:port`.
type PortName = String;

/// Of each port of each service.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Expected {
    /// Workloads among each service's endpoints, both as `namespace/name`.
    pub members: BTreeMap<String, BTreeSet<String>>,
    /// Workloads that a policy for the service holds for, by service.
    pub covered: BTreeMap<String, BTreeSet<String>>,
    /// Where calls go, by a caller of IPv4.
    pub endpoints: BTreeMap<PortName, BTreeSet<SocketAddr>>,
    /// Routes for callers in the service's namespace, as `kind namespace/name`.
    pub producers: BTreeMap<PortName, BTreeSet<String>>,
    /// The same for callers in another namespace, with that.
    pub consumers: BTreeMap<(PortName, String), BTreeSet<String>>,
    /// The MeshPolicy for each workload that has one by its name or labels, by workload.
    pub governing: BTreeMap<String, String>,
    /// AuthorizationPolicies in the same way.
    pub authorizing: BTreeMap<String, BTreeSet<String>>,
}

pub fn expected(declared: &Declared) -> Expected {
    let mut all = Expected::default();
    for (object, _) in declared.values() {
        if let Object::Workload(workload) = object {
            policies(declared, workload, &mut all);
        }
    }
    for (object, _) in declared.values() {
        let Object::Service(service) = object else {
            continue;
        };
        let name = format!("{}/{}", service.meta.namespace, service.meta.name);
        let slices = slices(declared, service);
        let by_slices = !slices.is_empty() || service.selector.is_empty();
        let members = match by_slices {
            true => named(declared, &slices),
            false => members(declared, service),
        };
        for port in &service.ports {
            let at = format!("{name}:{}", port.number);
            let endpoints = match by_slices {
                // The caller is on no known node.
                _ if service.local => BTreeSet::new(),
                true => written(declared, &slices, port),
                false => {
                    let ready = members.iter().filter(|workload| workload.ready);
                    let endpoints = ready.filter_map(|workload| endpoint(workload, port));
                    endpoints.collect()
                }
            };
            all.endpoints.insert(at.clone(), endpoints);
            routes(declared, service, port, &at, &mut all);
        }
        let key = |it: &&Workload| format!("{}/{}", it.meta.namespace, it.meta.name);
        let own = members.iter().copied();
        let own = own.filter(|it| it.meta.namespace == service.meta.namespace);
        let selected = self::members(declared, service);
        let covered = own.chain(selected).map(|it| key(&it)).collect();
        all.covered.insert(name.clone(), covered);
        all.members.insert(name, members.iter().map(key).collect());
    }
    all
}

/// Workloads of the service's namespace that have all labels of its selector, if it has one.
fn members<'a>(declared: &'a Declared, service: &Service) -> Vec<&'a Workload> {
    let mut members = Vec::new();
    for (object, _) in declared.values() {
        if let Object::Workload(workload) = object
            && workload.meta.namespace == service.meta.namespace
            && !service.selector.is_empty()
            && service
                .selector
                .iter()
                .all(|label| workload.meta.labels.iter().any(|has| has == label))
        {
            members.push(&**workload);
        }
    }
    members
}

fn slices<'a>(declared: &'a Declared, service: &Service) -> Vec<&'a EndpointSlice> {
    let mut slices = Vec::new();
    for (object, _) in declared.values() {
        if let Object::Slice(slice) = object
            && slice.meta.namespace == service.meta.namespace
            && slice.meta.labels.get("kubernetes.io/service-name") == Some(&service.meta.name)
        {
            slices.push(&**slice);
        }
    }
    slices
}

/// The workload that an endpoint of a slice is: the one that it names, if that has the address; else
/// of those that may have it the oldest pod, else the oldest.
fn workload<'a>(declared: &'a Declared, endpoint: &SliceEndpoint) -> Option<&'a Workload> {
    let mut having = Vec::new();
    for (object, _) in declared.values() {
        if let Object::Workload(workload) = object
            && workload.addresses.contains(&endpoint.address)
        {
            having.push(&**workload);
        }
    }
    let named = having
        .iter()
        .find(|workload| endpoint.target.as_ref() == Some(&workload.meta.key()));
    let outside = endpoint.address.to_string().starts_with("10.1.");
    let oldest = having
        .iter()
        .filter(|workload| workload.pod || !outside)
        .min_by_key(|workload| (!workload.pod, workload.meta.created.clone()));
    named.or(oldest).copied()
}

fn named<'a>(declared: &'a Declared, slices: &[&EndpointSlice]) -> Vec<&'a Workload> {
    let endpoints = slices.iter().flat_map(|slice| &slice.endpoints);
    endpoints.filter_map(|it| workload(declared, it)).collect()
}

/// For each workload and port number one address, IPv4 if the slices have it; for addresses of no
/// workload, all. Ready endpoints; else those that terminate and still serve.
fn written(
    declared: &Declared,
    slices: &[&EndpointSlice],
    port: &ServicePort,
) -> BTreeSet<SocketAddr> {
    let mut all = Vec::new();
    for slice in slices {
        for at in slice.ports.iter().filter(|it| it.name == port.name) {
            for it in &slice.endpoints {
                let who = workload(declared, it).map(|it| it.meta.key());
                all.push((who, at.number, it));
            }
        }
    }
    let mut chosen = Vec::new();
    for (who, number, it) in &all {
        let better = all.iter().any(|(other, at, that)| {
            who.is_some()
                && who == other
                && number == at
                && that.address.is_ipv4()
                && it.address.is_ipv6()
        });
        if !better {
            chosen.push((SocketAddr::new(it.address, *number), it.conditions));
        }
    }
    let of = |which: fn(&Conditions) -> bool| {
        let found = chosen.iter().filter(|(_, conditions)| which(conditions));
        found.map(|(at, _)| *at).collect::<BTreeSet<SocketAddr>>()
    };
    let ready = of(|it| it.ready);
    match ready.is_empty() {
        false => ready,
        true => of(|it| it.serving && it.terminating),
    }
}

fn endpoint(workload: &Workload, port: &ServicePort) -> Option<SocketAddr> {
    let number = match &port.target {
        PortRef::Number(number) => number.get(),
        PortRef::Name(name) => {
            workload
                .ports
                .iter()
                .find(|port| port.name == *name)?
                .number
        }
    };
    let v4 = workload.addresses.iter().find(|ip| ip.is_ipv4());
    let ip: IpAddr = *v4.or(workload.addresses.first())?;
    Some(SocketAddr::new(ip, number))
}

/// Routes with the port, or the whole service, as parent; a headless one takes none. On a port that is declared to be TCP or TLS there
/// are those of connections alone (of TCP no TLSRoutes), on one of HTTP none of these, and of HTTP/1 no GRPCRoutes. In each
/// namespace the first of these kinds governs: GRPCRoute, HTTPRoute, TLSRoute, TCPRoute. Where routes of the service's namespace said what the port carries, those of others
/// that do not fit that are left out.
fn routes(
    declared: &Declared,
    service: &Service,
    port: &ServicePort,
    at: &str,
    all: &mut Expected,
) {
    let mut by_namespace: BTreeMap<&str, Vec<&Route>> = BTreeMap::new();
    for (object, _) in declared.values() {
        let Object::Route(route) = object else {
            continue;
        };
        let named = route.parents.iter().any(|it| selects(it, service, port));
        let fits = match port.protocol {
            AppProtocol::Tcp => route.kind == Kind::TcpRoute,
            AppProtocol::Tls => is_bytes(route),
            AppProtocol::Http => route.kind == Kind::HttpRoute,
            AppProtocol::Http2 | AppProtocol::Grpc => !is_bytes(route),
            AppProtocol::Undeclared => true,
        };
        if named && fits {
            by_namespace
                .entry(&route.meta.namespace)
                .or_default()
                .push(route);
        }
    }
    let of = |routes: &[&Route], kind| routes.iter().any(|route| route.kind == kind);
    let order = [
        Kind::GrpcRoute,
        Kind::HttpRoute,
        Kind::TlsRoute,
        Kind::TcpRoute,
    ];
    for routes in by_namespace.values_mut() {
        let governs = order.into_iter().find(|kind| of(routes, *kind));
        routes.retain(|route| Some(route.kind) == governs);
    }
    let own = by_namespace.get(service.meta.namespace.as_str());
    let own = own.and_then(|routes| routes.first().copied());
    let said = own.filter(|own| {
        // One that names the port, or is for a service of one port.
        let about = |it: &Parent| {
            let named = it.port.is_some() || it.section.is_some();
            selects(it, service, port) && (named || service.ports.len() == 1)
        };
        declared.values().any(|(object, _)| match object {
            Object::Route(route) => {
                is_bytes(route) == is_bytes(own)
                    && route.meta.namespace == service.meta.namespace
                    && route.parents.iter().any(about)
                    && port.protocol == AppProtocol::Undeclared
            }
            _ => false,
        })
    });
    let said = said.map(|route| route.kind);
    for (namespace, mut routes) in by_namespace {
        if namespace != service.meta.namespace {
            routes.retain(|route| match said {
                None => true,
                Some(Kind::TcpRoute) => route.kind == Kind::TcpRoute,
                Some(Kind::TlsRoute) => is_bytes(route),
                Some(_) => !is_bytes(route),
            });
        }
        let names: BTreeSet<String> = routes.iter().map(|route| name(route)).collect();
        if names.is_empty() {
            continue;
        }
        match namespace == service.meta.namespace {
            true => all.producers.insert(at.to_owned(), names),
            false => all
                .consumers
                .insert((at.to_owned(), namespace.to_owned()), names),
        };
    }
}

/// Policies of its namespace that name it, or labels that it has; of MeshPolicies the oldest.
fn policies(declared: &Declared, workload: &Workload, all: &mut Expected) {
    let key = workload.meta.key().to_string();
    let own = |meta: &Meta, targets: &[Target]| {
        meta.namespace == workload.meta.namespace
            && targets.iter().any(|target| match target {
                Target::Service { .. } => false,
                Target::Workload(name) => *name == workload.meta.name,
                Target::Labels(labels) => {
                    let mut labels = labels.iter();
                    labels.all(|label| workload.meta.labels.iter().any(|has| has == label))
                }
            })
    };
    let mut oldest = None;
    for (object, _) in declared.values() {
        match object {
            Object::Mesh(it) if own(&it.meta, &it.targets) => {
                let age = (it.meta.created.clone(), it.meta.name.clone());
                oldest = oldest.into_iter().chain([age]).min();
            }
            Object::Authorization(it) if own(&it.meta, &it.targets) => {
                let names = all.authorizing.entry(key.clone()).or_default();
                names.insert(it.meta.name.clone());
            }
            _ => {}
        }
    }
    if let Some((_, name)) = oldest {
        all.governing.insert(key, name);
    }
}

fn is_bytes(route: &Route) -> bool {
    matches!(route.kind, Kind::TcpRoute | Kind::TlsRoute)
}

/// Whether a parentRef means the port.
fn selects(parent: &Parent, service: &Service, port: &ServicePort) -> bool {
    parent.service
        && !service.headless
        && parent.namespace == service.meta.namespace
        && parent.name == service.meta.name
        && parent.port.is_none_or(|number| number == port.number)
        && parent
            .section
            .as_ref()
            .is_none_or(|name| *name == port.name)
}

fn name(route: &Route) -> String {
    format!(
        "{} {}/{}",
        route.kind.name(),
        route.meta.namespace,
        route.meta.name
    )
}

/// The same of a mesh; endpoints come from its resources.
pub fn found(mesh: &Mesh, endpoints: BTreeMap<PortName, BTreeSet<SocketAddr>>) -> Expected {
    let mut all = Expected {
        endpoints,
        ..Expected::default()
    };
    for entry in mesh.workloads.values() {
        let key = entry.workload.meta.key();
        if let Some(policy) = mesh.policies.by_workload.get(&key) {
            let name = policy.meta.name.clone();
            all.governing.insert(key.to_string(), name);
        }
        if let Some(policies) = mesh.authorization.by_workload.get(&key) {
            let names = policies.iter().map(|policy| policy.meta.name.clone());
            all.authorizing.insert(key.to_string(), names.collect());
        }
        for service in &entry.covered_by {
            let covered = all.covered.entry(service.to_string()).or_default();
            covered.insert(entry.workload.meta.key().to_string());
        }
    }
    for (key, service) in mesh.services.iter() {
        all.covered.entry(key.to_string()).or_default();
        let members = service.members.iter().map(ToString::to_string);
        all.members.insert(key.to_string(), members.collect());
        for port in &service.ports {
            let at = format!("{key}:{}", port.number);
            let names =
                |routes: &[std::sync::Arc<Route>]| routes.iter().map(|it| name(it)).collect();
            if !port.producers.is_empty() {
                all.producers.insert(at.clone(), names(&port.producers));
            }
            for (namespace, routes) in &port.consumers {
                let key = (at.clone(), namespace.clone());
                all.consumers.insert(key, names(routes));
            }
        }
    }
    all
}
