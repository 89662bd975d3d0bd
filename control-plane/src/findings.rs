//! What is wrong with the mesh as it is declared, object by object and between them, for
//! `anyam check`, the API's conditions and `anyam explain`.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use crate::api::declared::DeclaredPorts;
use crate::model::manifest::authorization::{Action, AuthorizationPolicy};
use crate::model::mesh::{ServiceEntry, WorkloadEntry, ports, status};
use crate::model::{Key, Kind, Mesh, ObjectId};
use crate::source::About;
use crate::translate::view::State;
use crate::types::{Condition, Finding, Object, Severity};

/// Workloads and ports that one finding names.
const NAMED: usize = 3;

/// Every object with its conditions: those of the model, and what only shows between objects.
pub fn objects(state: &State) -> Vec<Object> {
    let mut statuses: Vec<_> = state.mesh.statuses.values().collect();
    statuses.sort_by(|a, b| a.id.cmp(&b.id));
    let mut all: Vec<Object> = statuses.into_iter().map(|it| object(it)).collect();
    for object in &mut all {
        if object.kind == Kind::Service.name() {
            let key = Key::new(&object.namespace, &object.name);
            let service = state.mesh.service(&key);
            let more = service.map(|service| ports::conditions(&state.mesh, service));
            object
                .conditions
                .extend(more.iter().flatten().map(condition));
        }
    }
    for error in state.file_errors.iter() {
        let Some(about) = &error.about else { continue };
        let id = about.object();
        let is_it = |object: &Object| {
            object.kind == id.kind.name()
                && object.namespace == id.key.namespace
                && object.name == id.key.name
        };
        if matches!(about, About::Unreadable(_)) && !all.iter().any(is_it) {
            // No version of it has been read, so it has no status yet.
            all.push(unread(id));
        }
        if let Some(object) = all.iter_mut().find(|object| is_it(object)) {
            let not_met = match about {
                About::Duplicate(_) if error.line == 0 => {
                    status::Condition::no("Unique", "Duplicate", error.message.clone())
                }
                About::Duplicate(_) => {
                    let at = format!("{}:{}", error.file, error.line);
                    let message = format!("{at} declares it too and is not used");
                    status::Condition::no("Unique", "Duplicate", message)
                }
                About::LeftOut(_) => {
                    let message = format!("{}: {}", error.field, error.message);
                    status::Condition::no("AllFields", "FieldLeftOut", message)
                }
                About::Unreadable(_) => {
                    let message = format!("{}: {}", error.field, error.message);
                    status::Condition::no("AllFields", "Unreadable", message)
                }
            };
            object.conditions.push(condition(&not_met));
        }
    }
    all
}

fn unread(id: &ObjectId) -> Object {
    Object {
        kind: id.kind.name().to_owned(),
        namespace: id.key.namespace.clone(),
        name: id.key.name.clone(),
        file: format!("{} in the cluster", id.kind.name()),
        conditions: Vec::new(),
    }
}

fn object(status: &status::ObjectStatus) -> Object {
    Object {
        kind: status.id.kind.name().to_owned(),
        namespace: status.id.key.namespace.clone(),
        name: status.id.key.name.clone(),
        file: status.origin.to_string(),
        conditions: status.conditions.iter().map(condition).collect(),
    }
}

fn condition(condition: &status::Condition) -> Condition {
    Condition {
        kind: condition.kind.to_owned(),
        status: condition.status,
        reason: condition.reason.to_owned(),
        message: condition.message.clone(),
    }
}

/// Findings that are no condition of one object.
pub fn findings(mesh: &Mesh) -> Vec<Finding> {
    let mut findings = services_without_endpoints(mesh);
    findings.extend(uncovered_ports(mesh));
    findings
}

fn services_without_endpoints(mesh: &Mesh) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut services: Vec<_> = mesh.services.iter().collect();
    services.sort_by_key(|(key, _)| *key);
    for (key, service) in services {
        let served = mesh.is_served(service);
        // A service that only routes to others, or stands for an external name, needs no endpoints.
        let routed = service.ports.iter().any(|port| !port.producers.is_empty());
        if !served && !routed && service.service.external_name.is_none() {
            let (lacks, todo) = match service.slices {
                None => (
                    "workload",
                    "give a Workload the labels of its selector, or mend the selector",
                ),
                Some(_) => (
                    "endpoint",
                    "see whether its EndpointSlices (label kubernetes.io/service-name) have one that is ready",
                ),
            };
            findings.push(Finding {
                severity: Severity::Warning,
                what: format!("Service {key} has no ready {lacks}: calls to it answer 503"),
                location: format!("Service {key}"),
                todo: todo.to_owned(),
                namespace: key.namespace.clone(),
            });
        }
    }
    findings
}

/// `Allow` policies for a Service whose workloads have ports that no `Allow` covers: the policy's
/// author may take the workload for closed. Ports that are not declared are a finding of their own:
/// whether the app listens on any is not known.
fn uncovered_ports(mesh: &Mesh) -> Vec<Finding> {
    let mut open: BTreeMap<Key, Vec<String>> = BTreeMap::new();
    let mut undeclared: BTreeMap<Key, Vec<String>> = BTreeMap::new();
    let mut workloads: Vec<_> = mesh.workloads.iter().collect();
    workloads.sort_by_key(|(key, _)| *key);
    for (_, entry) in workloads {
        for policy in allowing(mesh, entry) {
            let ports = entry.ports.keys();
            let ports = ports.filter(|port| !is_covered(mesh, entry, Some(**port)));
            let ports: Vec<String> = ports.map(u16::to_string).collect();
            let workload = entry.workload.meta.key();
            if !is_covered(mesh, entry, None) {
                let of_policy = undeclared.entry(policy.meta.key()).or_default();
                of_policy.push(workload.to_string());
            }
            if !ports.is_empty() {
                let named = format!("{workload} ({})", ports.join(", "));
                open.entry(policy.meta.key()).or_default().push(named);
            }
        }
    }
    let open = open.into_iter().map(|(key, workloads)| Finding {
        severity: Severity::Warning,
        what: format!(
            "AuthorizationPolicy {key} covers the ports that its Service lists; other ports of the same workloads stay open to every caller: {}",
            named(&workloads)
        ),
        location: format!("AuthorizationPolicy {key}"),
        todo: "target the workloads, by name or selector, or the namespace, to cover all ports; or list the port in a Service with a policy".to_owned(),
        namespace: key.namespace,
    });
    let undeclared = undeclared.into_iter().map(|(key, workloads)| Finding {
        severity: Severity::Info,
        what: format!(
            "AuthorizationPolicy {key} covers the ports that its Service lists; undeclared ports stay open to every caller, should the app listen on any: {}",
            named(&workloads)
        ),
        location: format!("AuthorizationPolicy {key}"),
        todo: "target the workloads, by name or selector, or the namespace, to cover undeclared ports too".to_owned(),
        namespace: key.namespace,
    });
    open.chain(undeclared).collect()
}

/// The first few, and how many more.
fn named(workloads: &[String]) -> String {
    let more = workloads.len().saturating_sub(NAMED);
    let mut named = workloads[..workloads.len() - more].join(", ");
    if more > 0 {
        named.push_str(&format!(" and {more} more"));
    }
    named
}

/// `Allow` policies that hold for some port of a workload by one of its services.
fn allowing<'a>(
    mesh: &'a Mesh,
    entry: &'a WorkloadEntry,
) -> impl Iterator<Item = &'a Arc<AuthorizationPolicy>> {
    let services = entry.covered_by.iter();
    let policies = services.filter_map(|key| mesh.authorization.by_service.get(key));
    let mut all: Vec<_> = policies
        .flatten()
        .filter(|policy| policy.action == Action::Allow)
        .collect();
    all.sort_by(|a, b| a.meta.precedence().cmp(&b.meta.precedence()));
    // One that targets several of the services.
    all.dedup_by(|a, b| Arc::ptr_eq(a, b));
    all.into_iter()
}

fn is_covered(mesh: &Mesh, entry: &WorkloadEntry, port: Option<u16>) -> bool {
    let holding = mesh.authorization_for(entry, port);
    holding.iter().any(|policy| policy.action == Action::Allow)
}

/// See [`crate::api::Declared::uncovered`].
pub fn uncovered(mesh: &Mesh, at: SocketAddr) -> Vec<String> {
    let Some(entry) = mesh.workload_by_ip(at.ip()) else {
        return Vec::new();
    };
    let declared = entry.ports.contains_key(&at.port()).then_some(at.port());
    if is_covered(mesh, entry, declared) {
        return Vec::new();
    }
    let reason = |policy: &Arc<AuthorizationPolicy>| {
        format!(
            "AuthorizationPolicy {} holds for this workload, but its Service does not list this port: every caller may use it",
            policy.meta.key()
        )
    };
    allowing(mesh, entry).map(reason).collect()
}

/// See [`crate::api::Declared::ports_at`].
pub fn ports_at(mesh: &Mesh, address: IpAddr) -> Option<DeclaredPorts> {
    if let Some(key) = mesh.by_vip.get(&address) {
        let service: &ServiceEntry = mesh.service(key)?;
        return Some(DeclaredPorts {
            name: format!("{}.{}", key.name, key.namespace),
            ports: service.ports.iter().map(|port| port.number).collect(),
            others: false,
        });
    }
    let entry = mesh.workload_by_ip(address)?;
    Some(DeclaredPorts {
        name: entry.workload.meta.key().to_string(),
        ports: entry.ports.keys().copied().collect(),
        others: true,
    })
}
