//! TLS that callers' sidecars originate to the apps of a service: which BackendTLSPolicy holds for a
//! port, and what it trusts.

use std::sync::Arc;

use super::PortEntry;
use super::index::Facet;
use super::objects::Objects;
use crate::model::manifest::backend_tls_policy::{BackendTlsPolicy, CaRef, CaSource, SubjectName};
use crate::model::manifest::config_map::{CaBundle, KEY, MAX_BUNDLE};
use crate::model::manifest::object::{Key, Kind, Target};
use crate::model::manifest::read::Object;

/// Of a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackendTls {
    pub policy: Key,
    /// The server name (SNI).
    pub hostname: String,
    /// Any of them must be in the endpoint's certificate; at least one.
    pub names: Vec<SubjectName>,
    pub trust: Trust,
}

/// By what certificates are verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trust {
    System,
    /// PEM, as the ConfigMaps have it.
    Roots(Vec<Arc<str>>),
    /// There is nothing to verify with, so nothing may be sent.
    Nothing,
}

/// A reference to CA certificates that cannot be used: the reason of a `ResolvedRefs` condition, and a
/// sentence.
pub type BadCaRef = (&'static str, String);

/// Puts into each port the TLS of the policy that holds for it.
pub fn place(objects: &Objects, service: &Key, ports: &mut [PortEntry]) {
    let policies = of_service(objects, service);
    for port in ports {
        let policy = governing(&policies, service, Some(&port.name))
            .or_else(|| governing(&policies, service, None));
        port.tls = policy.map(|policy| Arc::new(tls(objects, policy)));
    }
}

/// BackendTLSPolicies of a service, by precedence.
pub fn of_service(objects: &Objects, service: &Key) -> Vec<Arc<BackendTlsPolicy>> {
    let facet = Facet::OfService(Kind::BackendTlsPolicy, service.clone());
    let policies = objects.all(&facet, |object| match object {
        Object::BackendTls(it) => Some(Arc::clone(it)),
        _ => None,
    });
    policies.unwrap_or_default()
}

/// Of those that have a port of the service, or `None`, the whole of it, as a target, the one that
/// holds.
pub fn governing<'a>(
    policies: &'a [Arc<BackendTlsPolicy>],
    service: &Key,
    port: Option<&String>,
) -> Option<&'a Arc<BackendTlsPolicy>> {
    policies.iter().find(|policy| {
        policy.targets.iter().any(|target| match target {
            Target::Service { name, port: at } => *name == service.name && at.as_ref() == port,
            Target::Workload(_) | Target::Labels(_) => false,
        })
    })
}

fn tls(objects: &Objects, policy: &BackendTlsPolicy) -> BackendTls {
    let names = match policy.names.is_empty() {
        true => vec![SubjectName::Dns(policy.hostname.clone())],
        false => policy.names.clone(),
    };
    BackendTls {
        policy: policy.meta.key(),
        hostname: policy.hostname.clone(),
        names,
        trust: trust(objects, policy).0,
    }
}

/// What a policy trusts: all certificates of the references that can be used. Also those that cannot.
pub fn trust(objects: &Objects, policy: &BackendTlsPolicy) -> (Trust, Vec<BadCaRef>) {
    let CaSource::Refs(refs) = &policy.trust else {
        return (Trust::System, Vec::new());
    };
    let (mut roots, mut bad) = (Vec::new(), Vec::new());
    // Each cluster that trusts them has all of them.
    let mut room = MAX_BUNDLE;
    for one in refs {
        match resolve(objects, &policy.meta.namespace, one, room) {
            Ok(pem) => {
                room = room.saturating_sub(pem.len());
                roots.push(pem);
            }
            Err(error) => bad.push(error),
        }
    }
    match roots.is_empty() {
        true => (Trust::Nothing, bad),
        false => (Trust::Roots(roots), bad),
    }
}

/// `room`: how many bytes the certificates may have.
fn resolve(
    objects: &Objects,
    namespace: &str,
    one: &CaRef,
    room: usize,
) -> Result<Arc<str>, BadCaRef> {
    let invalid = |message: String| Err(("InvalidCACertificateRef", message));
    let name = match one {
        CaRef::ConfigMap(name) => name,
        CaRef::Other(kind, name) => {
            let message =
                format!("{kind} {name} is no ConfigMap (group \"\"), which alone is read");
            return Err(("InvalidKind", message));
        }
        CaRef::Unreadable => return invalid("it cannot be read".to_owned()),
    };
    let key = Key::new(namespace, name);
    match objects.object(Kind::ConfigMap, &key) {
        Some(Object::ConfigMap(map)) => match &map.ca {
            CaBundle::Roots(pem) if pem.len() > room => {
                let limit = MAX_BUNDLE >> 10;
                invalid(format!(
                    "with ConfigMap {key} there are more than {limit} KiB of certificates"
                ))
            }
            CaBundle::Roots(pem) => Ok(Arc::clone(pem)),
            CaBundle::Missing => invalid(format!("ConfigMap {key} has no {KEY}")),
            CaBundle::Invalid(why) => invalid(format!("{KEY} of ConfigMap {key} {why}")),
        },
        _ => invalid(format!("there is no ConfigMap {key}")),
    }
}
