//! What became of a BackendTLSPolicy: its conditions for each service that it targets (Gateway API's
//! PolicyAncestorStatus: in a mesh the ancestor is the Service itself), and for people in sum.

use std::collections::BTreeSet;

use super::backend_tls::{self, Trust};
use super::change::Origin;
use super::objects::Objects;
use super::status::{Condition, ParentStatus, fields_left_out};
use super::{Mesh, PortEntry, ServiceEntry};
use crate::model::manifest::backend_tls_policy::{BackendTlsPolicy, CaRef, CaSource};
use crate::model::manifest::object::{Key, Target};
use crate::model::manifest::policy::MtlsMode;
use crate::model::manifest::route::Parent;
use crate::model::manifest::service::AppProtocol;

const ACCEPTED: &str = "Accepted";
/// Workloads that one condition names.
const MAX_NAMED: usize = 3;

/// In sum, and for each target.
pub fn conditions(
    mesh: &Mesh,
    objects: &Objects,
    policy: &BackendTlsPolicy,
    origin: &Origin,
) -> (Vec<Condition>, Vec<ParentStatus>) {
    let context = PolicyContext {
        mesh,
        objects,
        policy,
        origin,
    };
    let mut parents = Vec::new();
    let mut sum: Vec<Condition> = Vec::new();
    for target in &policy.targets {
        let Target::Service { name, port } = target else {
            continue;
        };
        let mut conditions = vec![context.accepted(name, port.as_ref()), context.resolved()];
        conditions.extend(context.strict(name, port.as_ref()));
        for condition in &conditions {
            match sum.iter_mut().find(|it| it.kind == condition.kind) {
                None => sum.push(condition.clone()),
                Some(known) if known.status && !condition.status => *known = condition.clone(),
                Some(_) => {}
            }
        }
        conditions.extend(fields_left_out(origin.left_out()));
        let parent = ancestor(policy, name, port.clone());
        parents.push(ParentStatus { parent, conditions });
    }
    (sum, parents)
}

fn ancestor(policy: &BackendTlsPolicy, name: &str, section: Option<String>) -> Parent {
    Parent {
        service: true,
        group: String::new(),
        kind: "Service".to_owned(),
        namespace: policy.meta.namespace.clone(),
        has_namespace: true,
        name: name.to_owned(),
        port: None,
        section,
    }
}

struct PolicyContext<'a> {
    mesh: &'a Mesh,
    objects: &'a Objects,
    policy: &'a BackendTlsPolicy,
    origin: &'a Origin,
}

impl PolicyContext<'_> {
    fn service(&self, name: &str) -> (Key, Option<&ServiceEntry>) {
        let key = Key::new(&self.policy.meta.namespace, name);
        let entry = self.mesh.service(&key).map(|entry| &**entry);
        (key, entry)
    }

    fn accepted(&self, name: &str, port: Option<&String>) -> Condition {
        let no = |reason, message: String| Condition::no(ACCEPTED, reason, message);
        let (key, entry) = self.service(name);
        let Some(entry) = entry else {
            return no("TargetNotFound", format!("there is no Service {key}"));
        };
        if let Some(name) = &entry.service.external_name {
            return no(
                "Invalid",
                format!(
                    "Service {key} is of type ExternalName ({name}): calls to it leave the mesh"
                ),
            );
        }
        let has = |name: &String| entry.ports.iter().any(|port| port.name == *name);
        if let Some(port) = port.filter(|port| !has(port)) {
            let message = format!("Service {key} has no port named {port}");
            return no("TargetNotFound", message);
        }
        let all = backend_tls::of_service(self.objects, &key);
        let holds = backend_tls::governing(&all, &key, port);
        if let Some(other) = holds.filter(|other| other.meta.key() != self.policy.meta.key()) {
            let message = format!("BackendTLSPolicy {} holds for it", other.meta.key());
            return no("Conflicted", message);
        }
        if self.is_unreadable() {
            let parts = self.origin.left_out().iter().map(ToString::to_string);
            return no("Invalid", parts.collect::<Vec<_>>().join("; "));
        }
        let (trust, bad) = backend_tls::trust(self.objects, self.policy);
        if trust == Trust::Nothing {
            let messages: Vec<String> = bad.into_iter().map(|(_, message)| message).collect();
            let message = format!("so calls fail: {}", messages.join("; "));
            return no("NoValidCACertificate", message);
        }
        Condition {
            message: self.notes(entry, port).join("; "),
            ..Condition::accepted()
        }
    }

    fn is_unreadable(&self) -> bool {
        matches!(&self.policy.trust, CaSource::Refs(refs) if refs.contains(&CaRef::Unreadable))
    }

    /// What limits it.
    fn notes(&self, entry: &ServiceEntry, port: Option<&String>) -> Vec<String> {
        let mut notes = Vec::new();
        if self.policy.options {
            notes.push("options have no effect: none is known".to_owned());
        }
        if entry.service.headless {
            let message = "the Service is headless: calls go to pods' own addresses, and those to endpoints that are no workload of the mesh, or are on their node's network, are sent as they are";
            notes.push(message.to_owned());
        }
        for port in ports(entry, port) {
            let number = port.number;
            match port.protocol {
                AppProtocol::Tls => notes.push(format!(
                    "port {number} is declared to carry TLS: callers' own TLS is forwarded as it is"
                )),
                AppProtocol::Undeclared => notes.push(format!(
                    "port {number} declares nothing: callers' own TLS is forwarded as it is, and what is neither HTTP nor TLS is closed"
                )),
                _ => {}
            }
        }
        notes
    }

    fn resolved(&self) -> Condition {
        let (_, bad) = backend_tls::trust(self.objects, self.policy);
        let messages: Vec<&str> = bad.iter().map(|(_, message)| message.as_str()).collect();
        match bad.first() {
            None => Condition::yes("ResolvedRefs", "ResolvedRefs"),
            Some((reason, _)) => Condition::no("ResolvedRefs", reason, messages.join("; ")),
        }
    }

    /// Endpoints that accept nothing but mTLS of the mesh refuse the app's TLS.
    fn strict(&self, name: &str, port: Option<&String>) -> Option<Condition> {
        let (_, entry) = self.service(name);
        let entry = entry?;
        let mut refusing = BTreeSet::new();
        for port in ports(entry, port) {
            for member in self.mesh.members(entry) {
                let workload = &member.workload;
                let meta = &workload.meta;
                let strict = entry.targets(port, workload).into_iter().find(|number| {
                    let mode = self.mesh.mtls(&meta.namespace, &meta.name, *number);
                    workload.sidecar
                        && workload.redirected.has_port(*number)
                        && mode == MtlsMode::Strict
                });
                refusing.extend(strict.map(|number| format!("{} port {number}", meta.key())));
            }
        }
        let more = refusing.len().saturating_sub(MAX_NAMED);
        let mut refusing: Vec<String> = refusing.into_iter().take(MAX_NAMED).collect();
        if more > 0 {
            refusing.push(format!("{more} more"));
        }
        (!refusing.is_empty()).then(|| {
            let message = format!(
                "the app's TLS goes from the caller's sidecar to the app, in place of mTLS, and these sidecars refuse it: {}; let a MeshPolicy make mTLS Permissive there",
                refusing.join(", ")
            );
            Condition::no("EndpointsTakeTls", "StrictMtls", message)
        })
    }
}

/// The ports that a target means.
fn ports<'a>(
    entry: &'a ServiceEntry,
    named: Option<&'a String>,
) -> impl Iterator<Item = &'a PortEntry> {
    let fits = move |port: &&PortEntry| named.is_none_or(|name| *name == port.name);
    entry.ports.iter().filter(fits)
}
