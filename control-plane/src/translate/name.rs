//! Names of the mesh for the sidecars' DNS, as Kubernetes' DNS specification has them.
//!
//! - `<service>.<namespace>.svc.<domain>`: the service's addresses, or those of its ready members
//!   if it is headless
//! - `_<port>._tcp.` before it: where a port that has a name is served (SRV)
//! - `<member>.` before it: a member of a headless service
//!
//! What these names stand below exists too, without records.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use xds_proto::anyam::dns::v1 as dns;

use crate::model::manifest::endpoint_slice::SliceEndpoint;
use crate::model::manifest::workload::Workload;
use crate::model::mesh::endpoints::resolve_port;
use crate::model::mesh::{PortEntry, ServiceEntry};
use crate::model::{Key, Mesh};

/// TTLs in seconds. Addresses of services are stable; those of headless services are not.
const TTL: u32 = 30;
const TTL_HEADLESS: u32 = 5;
/// Of the one target that a service with addresses has.
const WEIGHT: u32 = 100;
/// Characters of a domain name (RFC 1035).
const MAX_NAME: usize = 253;

/// The label above those of ports. Services of the mesh have only TCP ports.
const PROTOCOL: &str = "_tcp";

/// `anyam.dns.v1.Name` of a fully qualified name.
pub fn name(mesh: &Mesh, host: &str) -> Option<dns::Name> {
    let domain = mesh.options.cluster_domain.as_str();
    let inside = host.strip_suffix(domain)?.strip_suffix("svc.")?;
    if inside.is_empty() {
        return Some(empty(host));
    }
    let mut labels = inside.strip_suffix('.')?.rsplitn(3, '.');
    let namespace = labels.next()?;
    let Some(service) = labels.next() else {
        let there = mesh.namespaces.contains_key(namespace);
        return there.then(|| empty(host));
    };
    let service = mesh.service(&Key::new(namespace, service))?;
    // Left to the resolver outside, which resolves the external name.
    if service.service.external_name.is_some() {
        return None;
    }
    let mut found = match labels.next() {
        None => dns::Name {
            addresses: texts(addresses(mesh, service)),
            ..empty(host)
        },
        Some(PROTOCOL) => service.ports.iter().any(has_name).then(|| empty(host))?,
        Some(label) => match label.strip_suffix(PROTOCOL) {
            Some(port) => {
                let port = port.strip_prefix('_')?.strip_suffix('.')?;
                dns::Name {
                    services: targets(mesh, service, port)?,
                    ..empty(host)
                }
            }
            None => dns::Name {
                addresses: texts(member(mesh, service, label, host)?),
                ..empty(host)
            },
        },
    };
    if service.service.headless {
        found.ttl_seconds = TTL_HEADLESS;
    }
    Some(found)
}

/// The names that a service has, but for those of its members.
pub fn names(mesh: &Mesh, service: &ServiceEntry) -> Vec<String> {
    let host = &service.host;
    let domain = &mesh.options.cluster_domain;
    let ports = service.ports.iter().filter(|port| has_name(port));
    let mut all: Vec<String> = ports
        .map(|port| format!("_{}.{PROTOCOL}.{host}", port.name))
        .collect();
    if !all.is_empty() {
        all.push(format!("{PROTOCOL}.{host}"));
    }
    let namespace = &service.service.meta.namespace;
    all.extend([
        host.clone(),
        format!("{namespace}.svc.{domain}"),
        format!("svc.{domain}"),
    ]);
    all
}

/// The names of the members of a service, if it is headless.
pub fn member_names(mesh: &Mesh, service: &ServiceEntry) -> Vec<String> {
    match &service.slices {
        _ if !service.service.headless => Vec::new(),
        Some(slices) => {
            let labels = slices.labels().map(|(label, _)| label);
            labels.filter_map(|label| below(label, service)).collect()
        }
        None => {
            let members = mesh.members(service).map(|entry| &entry.workload);
            members.filter_map(|it| member_name(service, it)).collect()
        }
    }
}

/// The name of a workload as a member of a headless service that selects it: its `hostname`, where
/// its `subdomain` is the service, else its own name. `None`: it has none in that service.
pub fn member_name(service: &ServiceEntry, workload: &Workload) -> Option<String> {
    if !service.service.headless || service.slices.is_some() {
        return None;
    }
    let hostname = workload.hostname.as_ref().filter(|_| {
        let subdomain = workload.subdomain.as_deref();
        subdomain == Some(service.service.meta.name.as_str())
    });
    below(hostname.unwrap_or(&workload.meta.name), service)
}

/// The name of a member. `None`: the name would be too long for DNS.
pub fn below(label: &str, service: &ServiceEntry) -> Option<String> {
    Some(format!("{label}.{}", service.host)).filter(|name| name.len() <= MAX_NAME)
}

fn empty(host: &str) -> dns::Name {
    dns::Name {
        host: host.to_owned(),
        ttl_seconds: TTL,
        ..dns::Name::default()
    }
}

fn has_name(port: &PortEntry) -> bool {
    !port.name.is_empty()
}

fn texts(addresses: impl IntoIterator<Item = IpAddr>) -> Vec<String> {
    addresses.into_iter().map(|ip| ip.to_string()).collect()
}

fn addresses(mesh: &Mesh, service: &ServiceEntry) -> Vec<IpAddr> {
    match (service.service.headless, &service.slices) {
        (false, _) => service.vips.clone(),
        (true, None) => live(mesh, service)
            .flat_map(|workload| workload.addresses.iter().copied())
            .collect(),
        (true, Some(slices)) => {
            let endpoints = slices.all().iter().flat_map(|slice| &slice.endpoints);
            let shown = endpoints.filter(|it| is_shown(service, it));
            let all: BTreeSet<IpAddr> = shown.map(|it| it.address).collect();
            all.into_iter().collect()
        }
    }
}

fn is_shown(service: &ServiceEntry, endpoint: &SliceEndpoint) -> bool {
    endpoint.conditions.ready || service.service.publish_not_ready
}

/// The members of a service with a selector that DNS answers with.
fn live<'a>(mesh: &'a Mesh, service: &'a ServiceEntry) -> impl Iterator<Item = &'a Workload> {
    let publish = service.service.publish_not_ready;
    mesh.members(service)
        .map(|entry| &*entry.workload)
        .filter(move |workload| publish || workload.ready)
}

/// Addresses of the members that have the name `host`, which is `label` below the service's.
/// `None`: no such member is there, ready or not. Costs the same however many others are there.
fn member(
    mesh: &Mesh,
    service: &ServiceEntry,
    label: &str,
    host: &str,
) -> Option<BTreeSet<IpAddr>> {
    if let Some(slices) = &service.slices {
        let mut called = slices.labelled(label).peekable();
        called.peek()?;
        let shown = called.filter(|it| is_shown(service, it));
        return Some(shown.map(|it| it.address).collect());
    }
    let (key, publish) = (service.key(), service.service.publish_not_ready);
    let of_name = Key::new(&key.namespace, label);
    let by_hostname = mesh.by_hostname.get(&(key.clone(), label.to_owned()));
    let candidates = by_hostname.into_iter().flatten().chain([&of_name]);
    let mut called = candidates
        .filter_map(|candidate| mesh.workloads.get(candidate))
        .filter(|entry| entry.services.contains(&key))
        .map(|entry| &*entry.workload)
        .filter(|workload| member_name(service, workload).as_deref() == Some(host))
        .peekable();
    called.peek()?;
    let live = called.filter(|workload| publish || workload.ready);
    let addresses = live.flat_map(|workload| workload.addresses.iter().copied());
    Some(addresses.collect())
}

/// Where a port is served. `None`: the service has no port of that name.
fn targets(mesh: &Mesh, service: &ServiceEntry, port: &str) -> Option<Vec<dns::Srv>> {
    let port = service
        .ports
        .iter()
        .find(|it| it.name == port && has_name(it))?;
    if !service.service.headless {
        return Some(vec![dns::Srv {
            target: service.host.clone(),
            port: port.number.into(),
            weight: WEIGHT,
            addresses: texts(service.vips.iter().copied()),
        }]);
    }
    // Members with the same name and port are one SRV target.
    let mut all: BTreeMap<(String, u16), (u32, BTreeSet<IpAddr>)> = BTreeMap::new();
    let mut add = |target: Option<String>, number: Option<u16>, weight: u32, at: &[IpAddr]| {
        if let (Some(target), Some(number)) = (target, number) {
            let (sum, addresses) = all.entry((target, number)).or_default();
            *sum = sum.saturating_add(weight).min(u16::MAX.into());
            addresses.extend(at);
        }
    };
    match &service.slices {
        None => {
            for workload in live(mesh, service) {
                let number = resolve_port(&port.target, workload);
                let name = member_name(service, workload);
                add(name, number, workload.weight, &workload.addresses);
            }
        }
        Some(slices) => {
            for (label, endpoints) in slices.labels() {
                for (slice, it) in endpoints {
                    if is_shown(service, it) {
                        let number = slice.number(&port.name);
                        add(below(label, service), number, 1, &[it.address]);
                    }
                }
            }
        }
    }
    let of = |((target, port), (weight, addresses)): ((String, u16), (u32, BTreeSet<IpAddr>))| {
        dns::Srv {
            target,
            port: port.into(),
            weight,
            addresses: texts(addresses),
        }
    };
    Some(all.into_iter().map(of).collect())
}
