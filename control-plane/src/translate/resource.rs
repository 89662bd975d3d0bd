//! A type, a name and a scope into encoded bytes.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use bytes::Bytes;
use prost::Message;
use xds_proto::type_url;

use super::naming::{self, Carries, OutboundName};
use super::route_filters::RouteFilters;
use super::{cluster, connection_route, endpoint, inbound, listener, name, route, workload};
use crate::ads::resources::{Ports, Resource, Scope, TlsFiles};
use crate::model::manifest::families::Families;
use crate::model::manifest::policy::{EgressMode, EscapedSlashes, LogFormat};
use crate::model::mesh::ServiceEntry;
use crate::model::mesh::bypass;
use crate::model::mesh::endpoints::Caller;
use crate::model::{Key, Mesh};
use crate::text::hex;

/// Bytes of a content hash that make a version.
const VERSION: usize = 12;

/// The part of a scope that a resource depends on: scopes that agree in it share its bytes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Variant {
    All,
    Namespace(String),
    Tls {
        anyam: bool,
        files: Option<TlsFiles>,
        /// A workload is called by an address at which the caller's connections bypass its sidecar.
        bypassed: bool,
    },
    Outbound {
        anyam: bool,
        log: LogFormat,
        escaped_slashes: Option<EscapedSlashes>,
        filters: RouteFilters,
        /// The caller's namespace, where its routes of connections are its own.
        consumer: Option<String>,
    },
    Egress {
        mode: EgressMode,
        log: LogFormat,
        at: ListenScope,
    },
    Own {
        node: Key,
        files: Option<TlsFiles>,
        at: ListenScope,
    },
    /// What a caller can dial; where it is, if the service has hints or endpoints for its own node
    /// only; and where it bypasses sidecars.
    Reach(Caller),
}

impl Variant {
    #[cfg(test)]
    pub(super) fn own(node: Key) -> Self {
        let at = ListenScope {
            anyam: true,
            families: None,
            ports: Ports::default(),
        };
        let files = None;
        Variant::Own { node, files, at }
    }

    /// The workload whose proxy alone it is for.
    pub fn node(&self) -> Option<&Key> {
        match self {
            Variant::Own { node, .. } => Some(node),
            _ => None,
        }
    }
}

/// The address that a name stands for, of a service or of a workload.
pub fn address(kind: &str, name: &str) -> Option<IpAddr> {
    match kind {
        type_url::LISTENER => Some(naming::parse_listener(name)?.ip()),
        type_url::CLUSTER | type_url::ROUTE => OutboundName::parse(name)?.ip(),
        _ => None,
    }
}

/// The addresses at which a sidecar listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ListenScope {
    anyam: bool,
    families: Option<Families>,
    ports: Ports,
}

/// Which part of `scope` the resource depends on. `None`: there is no such type.
pub fn variant(mesh: &Mesh, kind: &str, name: &str, scope: &Scope) -> Option<Variant> {
    let log = || mesh.access_log(&scope.namespace, &scope.workload);
    let files = || scope.tls_files.clone();
    let at = || ListenScope {
        anyam: scope.anyam,
        families: mesh
            .families(&scope.namespace, &scope.workload)
            .filter(|_| !scope.anyam),
        ports: scope.ports,
    };
    let own = || Variant::Own {
        node: Key::new(&scope.namespace, &scope.workload),
        files: files(),
        at: at(),
    };
    Some(match kind {
        type_url::LISTENER => match name {
            naming::INBOUND => own(),
            naming::OUTBOUND => {
                let mode = mesh.egress(&scope.namespace, &scope.workload);
                Variant::Egress {
                    mode,
                    log: log(),
                    at: at(),
                }
            }
            _ => {
                let at = naming::parse_listener(name);
                let own =
                    at.is_some_and(|at| connection_route::is_consumed(mesh, &scope.namespace, at));
                Variant::Outbound {
                    anyam: scope.anyam,
                    log: log(),
                    escaped_slashes: mesh.escaped_slashes(&scope.namespace, &scope.workload),
                    filters: at
                        .map(|at| RouteFilters::at(mesh, &scope.namespace, at))
                        .unwrap_or_default(),
                    consumer: own.then(|| scope.namespace.clone()),
                }
            }
        },
        type_url::CLUSTER => match name {
            naming::PASSTHROUGH | naming::BLACK_HOLE => Variant::All,
            _ if name.starts_with("outbound|") => Variant::Tls {
                anyam: scope.anyam,
                files: files(),
                bypassed: is_bypassed_at(mesh, name, scope),
            },
            _ => own(),
        },
        type_url::ROUTE => {
            let service = OutboundName::parse(name).and_then(|it| {
                Some(
                    mesh.service_by_host(&it.host)?
                        .port(it.port)?
                        .consumers
                        .keys(),
                )
            });
            let mut consumers = service.into_iter().flatten();
            match consumers.any(|namespace| *namespace == scope.namespace) {
                true => Variant::Namespace(scope.namespace.clone()),
                false => Variant::All,
            }
        }
        type_url::ENDPOINT => Variant::Reach(caller(mesh, name, scope)),
        type_url::WORKLOAD | type_url::NAME => Variant::All,
        _ => return None,
    })
}

fn is_bypassed_at(mesh: &Mesh, name: &str, scope: &Scope) -> bool {
    let both = || {
        let ip = OutboundName::parse(name)?.ip()?;
        let callee = mesh.workload_by_ip(ip)?;
        let caller = mesh.workload(&scope.namespace, &scope.workload)?;
        Some(bypass::is_bypassed(&caller.workload, &callee.workload, ip))
    };
    both().unwrap_or(false)
}

/// The caller of `name`'s endpoints. An undeclared workload is taken to have both families.
fn caller(mesh: &Mesh, name: &str, scope: &Scope) -> Caller {
    let families = mesh.families(&scope.namespace, &scope.workload);
    let service = OutboundName::parse(name).and_then(|it| mesh.service_by_host(&it.host));
    let slices = service.and_then(|it| it.slices.as_ref());
    let own = mesh.workload(&scope.namespace, &scope.workload);
    let bypassed = own
        .zip(service)
        .map(|(own, service)| mesh.bypassed(&own.workload, service));
    let hinted = slices.is_some_and(|it| it.hinted);
    let local = service.is_some_and(|it| it.service.local);
    let zone = own.filter(|_| hinted);
    let zone = zone.and_then(|it| Some(it.workload.locality.as_ref()?.zone.clone()));
    let node = own.filter(|_| hinted || local);
    Caller {
        families: families.unwrap_or(Families::BOTH),
        zone: zone.unwrap_or_default(),
        node: node.map_or_else(String::new, |it| it.workload.node.clone()),
        bypassed: bypassed.unwrap_or_default(),
    }
}

/// Makes the resource. `None`: there is none of that name in that scope.
pub fn make(mesh: &Mesh, kind: &str, name: &str, scope: &Scope) -> Option<Resource> {
    let body = match kind {
        type_url::LISTENER => match name {
            naming::OUTBOUND => listener::catch_all(mesh, scope).encode_to_vec(),
            naming::INBOUND => inbound::inbound(mesh, scope)?.encode_to_vec(),
            _ => {
                let at = naming::parse_listener(name)?;
                listener::outbound(mesh, scope, at)?.encode_to_vec()
            }
        },
        type_url::ROUTE => {
            route::outbound(mesh, scope, &OutboundName::parse(name)?)?.encode_to_vec()
        }
        type_url::CLUSTER => match name {
            naming::PASSTHROUGH => cluster::passthrough(),
            naming::BLACK_HOLE => cluster::black_hole(),
            naming::INBOUND_PASSTHROUGH => cluster::inbound_passthrough(mesh, scope)?,
            _ => match naming::parse_inbound_cluster(name) {
                Some(port) => cluster::inbound(mesh, scope, port)?,
                None => cluster::outbound(mesh, scope, &OutboundName::parse(name)?)?,
            },
        }
        .encode_to_vec(),
        type_url::ENDPOINT => {
            let caller = caller(mesh, name, scope);
            endpoint::assignment(mesh, &caller, &OutboundName::parse(name)?)?.encode_to_vec()
        }
        type_url::WORKLOAD => {
            let ip: std::net::IpAddr = name.parse().ok()?;
            workload::workload(mesh, ip)?.encode_to_vec()
        }
        type_url::NAME => name::name(mesh, name)?.encode_to_vec(),
        _ => return None,
    };
    // Bytes and version are the content's, whatever order its maps happen to be in.
    let message = kind.strip_prefix(type_url::PREFIX).unwrap_or(kind);
    let body = xds_proto::canonical(message, body);
    Some(Resource {
        name: Arc::from(name),
        version: version(&body),
        body: Bytes::from(body),
    })
}

fn version(body: &[u8]) -> Arc<str> {
    let hash = digest(&SHA256, body);
    let bytes = hash.as_ref();
    Arc::from(hex(bytes.get(..VERSION).unwrap_or(bytes)))
}

/// All names of a type in a scope.
pub fn names(mesh: &Mesh, kind: &str, scope: &Scope) -> BTreeSet<String> {
    let mut all = BTreeSet::new();
    let own = mesh.workload(&scope.namespace, &scope.workload);
    match kind {
        type_url::LISTENER => {
            all.insert(naming::OUTBOUND.to_owned());
            all.extend(own.map(|_| naming::INBOUND.to_owned()));
        }
        type_url::CLUSTER => {
            all.extend([naming::PASSTHROUGH, naming::BLACK_HOLE].map(str::to_owned));
            all.extend(own.map(|_| naming::INBOUND_PASSTHROUGH.to_owned()));
            let ports = own.into_iter().flat_map(|entry| entry.ports.keys());
            all.extend(ports.map(|port| naming::inbound_cluster(*port)));
        }
        type_url::WORKLOAD => {
            all.extend(mesh.by_ip.keys().map(ToString::to_string));
            return all;
        }
        _ => {}
    }
    for service in mesh.services.values() {
        all.extend(of_service(mesh, kind, service));
        if kind == type_url::NAME {
            all.extend(name::member_names(mesh, service));
        }
    }
    if kind != type_url::ENDPOINT && kind != type_url::NAME {
        for entry in mesh.workloads.values() {
            for ip in &entry.workload.addresses {
                let ports = entry.ports.iter();
                all.extend(ports.flat_map(|(port, protocol)| {
                    let at = SocketAddr::new(*ip, *port);
                    of_address(kind, at, Carries::of(*protocol))
                }));
            }
        }
    }
    all
}

/// Names of a type that a service has, but for DNS names of its members.
pub fn of_service(mesh: &Mesh, kind: &str, service: &ServiceEntry) -> Vec<String> {
    let ports = service.ports.iter();
    match kind {
        type_url::LISTENER => ports
            .flat_map(|port| {
                service
                    .vips
                    .iter()
                    .map(|vip| SocketAddr::new(*vip, port.number))
            })
            .map(naming::listener)
            .collect(),
        type_url::CLUSTER | type_url::ROUTE | type_url::ENDPOINT => ports
            .flat_map(|port| {
                Carries::of(port.protocol)
                    .iter()
                    .map(move |carries| (port, *carries))
            })
            .map(|(port, carries)| {
                OutboundName::new(port.number, carries, &service.host).to_string()
            })
            .collect(),
        type_url::NAME => name::names(mesh, service),
        _ => Vec::new(),
    }
}

/// Names of a type that a workload's address and port have.
pub fn of_address(kind: &str, at: SocketAddr, carried: &[Carries]) -> Vec<String> {
    match kind {
        type_url::LISTENER => vec![naming::listener(at)],
        type_url::CLUSTER | type_url::ROUTE => carried
            .iter()
            .map(|carries| OutboundName::new(at.port(), *carries, at.ip().to_string()).to_string())
            .collect(),
        _ => Vec::new(),
    }
}
