//! What a workload's ports carry, as the workload and all services that send to them declare it
//! together, and what contradicts itself in that.

use std::collections::BTreeMap;

use super::endpoints::EndpointsBy;
use super::status::Condition;
use super::{Mesh, PortEntry, ServiceEntry};
use crate::model::manifest::object::Key;
use crate::model::manifest::service::{AppProtocol, PortRef};
use crate::model::manifest::workload::{Workload, WorkloadPort};

/// By which callers take a port for one of TLS.
const HTTPS: u16 = 443;

/// Ports by number. The workload's own declaration has precedence; else what its services agree on.
/// Where they do not agree, the protocol is detected per connection, so that no service can break
/// another's.
pub fn declared<'a>(
    workload: &Workload,
    services: impl Iterator<Item = &'a ServiceEntry>,
) -> BTreeMap<u16, AppProtocol> {
    let own: BTreeMap<u16, AppProtocol> = workload
        .ports
        .iter()
        .map(|port| (port.number, port.protocol))
        .collect();
    // `None`: the declarations contradict each other.
    let mut declared: BTreeMap<u16, Option<AppProtocol>> = BTreeMap::new();
    for service in services {
        for port in &service.ports {
            for number in service.covers(port, workload) {
                let known = declared.entry(number).or_insert(Some(port.protocol));
                *known = match (*known, port.protocol) {
                    (Some(AppProtocol::Undeclared), other) => Some(other),
                    (Some(before), other) if before.agrees(other) => Some(before),
                    _ => None,
                };
            }
        }
    }
    let mut ports = own;
    for (number, protocol) in declared {
        let known = ports.entry(number).or_insert(AppProtocol::Undeclared);
        if *known == AppProtocol::Undeclared {
            *known = protocol.unwrap_or(AppProtocol::Undeclared);
        }
    }
    ports
}

/// What does not fit between a service's ports, its workloads and their other services.
pub fn conditions(mesh: &Mesh, service: &ServiceEntry) -> Vec<Condition> {
    let contradicted = service
        .ports
        .iter()
        .find_map(|port| contradiction(mesh, service, port));
    let missing = service
        .ports
        .iter()
        .find_map(|port| missing(mesh, service, port));
    let plaintext = service.ports.iter().find_map(plaintext_on_443);
    let mut conditions = Vec::new();
    if let Some(message) = contradicted {
        conditions.push(Condition::no("ProtocolsAgree", "ProtocolConflict", message));
    } else if let Some(message) = plaintext {
        conditions.push(Condition::no("ProtocolsAgree", "PlaintextOn443", message));
    }
    if let Some(message) = missing {
        conditions.push(Condition::no("TargetPortsFound", "NoSuchPort", message));
    }
    conditions
}

/// The protocol that a port declares.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Declaration {
    pub protocol: AppProtocol,
    /// "port `grpc` (80) says gRPC"
    pub words: String,
}

/// Of the ports that carry HTTP or TLS.
pub fn declarations(service: &ServiceEntry) -> Vec<Declaration> {
    let says = |port: &&PortEntry| port.protocol.is_http() || port.protocol == AppProtocol::Tls;
    let one = |port: &PortEntry| Declaration {
        protocol: port.protocol,
        words: declaration(port),
    };
    service.ports.iter().filter(says).map(one).collect()
}

fn declaration(port: &PortEntry) -> String {
    format!("port {} says {}", named(port), port.protocol.word())
}

/// Port 443 that is declared to carry HTTP without TLS.
fn plaintext_on_443(port: &PortEntry) -> Option<String> {
    (port.number == HTTPS && port.protocol.is_http()).then(|| {
        format!(
            "{}, but callers of port 443 use TLS, which is refused there; if the app takes TLS, declare it with `appProtocol: https`",
            declaration(port)
        )
    })
}

/// The other declaration of the same port of the same workload that differs, if any.
fn contradiction(mesh: &Mesh, service: &ServiceEntry, port: &PortEntry) -> Option<String> {
    if port.protocol == AppProtocol::Undeclared {
        return None;
    }
    let differs = |other: AppProtocol| !other.agrees(port.protocol);
    mesh.members(service).find_map(|entry| {
        let workload = &entry.workload;
        let number = service.targets(port, workload).into_iter().next()?;
        let here = declaration(port);
        let own = workload.ports.iter().find(|own| own.number == number);
        if let Some(own) = own.filter(|own| own.protocol != AppProtocol::Undeclared) {
            return differs(own.protocol).then(|| {
                format!(
                    "{here}, but Workload {} says {} of its port {number}, and that holds",
                    workload.meta.key(),
                    own.protocol.word()
                )
            });
        }
        let mut others = mesh.own_services(entry).filter(|other| other.key() != service.key());
        others.find_map(|other| {
            let declared = other.ports.iter().find(|declared| {
                other.covers(declared, workload).contains(&number) && differs(declared.protocol)
            })?;
            Some(format!(
                "{here}, but Service {} says {} by its port {} of the same port {number} of Workload {}: what comes in is detected by its first bytes, and calls through the wrong one fail",
                other.key(),
                declared.protocol.word(),
                named(declared),
                workload.meta.key()
            ))
        })
    })
}

/// A target that none of the workloads has.
fn missing(mesh: &Mesh, service: &ServiceEntry, port: &PortEntry) -> Option<String> {
    let mut members = mesh.members(service).peekable();
    members.peek()?;
    let has = |workload: &Workload| {
        let targets = service.targets(port, workload);
        let declared = |number: &u16| workload.ports.iter().any(|own| own.number == *number);
        // A workload that declares no port may listen on any; a pod may listen on ports that it
        // does not declare.
        let any = workload.ports.is_empty()
            || matches!(port.target, PortRef::Name(_))
            || mesh.options.endpoints == EndpointsBy::Slices;
        targets.iter().any(|number| any || declared(number))
    };
    if members.any(|entry| has(&entry.workload)) {
        return None;
    }
    if service.slices.is_some() {
        let name = named(port);
        return Some(format!(
            "port {name}: no EndpointSlice has a port of that name with its workloads, so calls answer 503"
        ));
    }
    let of: Vec<String> = mesh
        .members(service)
        .take(3)
        .map(|entry| ports(&entry.workload))
        .collect();
    let what = match &port.target {
        PortRef::Name(name) => {
            format!("no workload has a port named `{name}`, so calls answer 503")
        }
        PortRef::Number(number) => format!("no workload declares a port {number}"),
    };
    Some(format!("port {}: {what}; {}", named(port), of.join(", ")))
}

fn ports(workload: &Workload) -> String {
    let port = |port: &WorkloadPort| match port.name.as_str() {
        "" => port.number.to_string(),
        name => format!("{name} {}", port.number),
    };
    let all: Vec<String> = workload.ports.iter().map(port).collect();
    let key: Key = workload.meta.key();
    match all.is_empty() {
        true => format!("{key} declares none"),
        false => format!("{key} has {}", all.join(", ")),
    }
}

fn named(port: &PortEntry) -> String {
    match port.name.as_str() {
        "" => port.number.to_string(),
        name => format!("`{name}` ({})", port.number),
    }
}
