//! Which workloads a service covers: its port declarations and its policies apply to them. These
//! are its endpoints and the workloads that its selector matches, because a cluster's
//! EndpointSlices list a pod only some time after it can be called.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::backend_tls::BackendTls;
use super::endpoints::{resolve_port, retargeted};
use super::objects::Objects;
use super::{Mesh, PortEntry, ServiceEntry, WorkloadEntry, join};
use crate::model::manifest::object::Key;
use crate::model::manifest::policy::BackendPolicy;
use crate::model::manifest::workload::Workload;

impl ServiceEntry {
    /// The ports of a workload that `port` declares: its target ports as an endpoint, and the ports
    /// that calls will reach once EndpointSlices list it, if the selector matches.
    pub fn covers(&self, port: &PortEntry, workload: &Workload) -> BTreeSet<u16> {
        let mut all = self.targets(port, workload);
        if join::selects(&self.service, workload) {
            all.extend(resolve_port(&port.target, workload));
        }
        all
    }

    /// Whether both declare the same ports, regardless of the routes that are attached to them.
    pub fn has_same_ports(&self, other: &ServiceEntry) -> bool {
        let mut both = self.ports.iter().zip(&other.ports);
        self.ports.len() == other.ports.len() && both.all(|(one, other)| one.is_same_port(other))
    }
}

impl Mesh {
    /// The services that cover a workload. Slices of another namespace do not count: they declare
    /// nothing about its ports and policies.
    pub fn own_services<'a>(
        &'a self,
        entry: &'a WorkloadEntry,
    ) -> impl Iterator<Item = &'a Arc<ServiceEntry>> {
        let own = entry.covered_by.iter();
        own.filter_map(|key| self.service(key))
    }

    /// The policy for calls to a port of a workload by the workload's own address: that of the
    /// headless service that has it among its endpoints, of several the oldest policy.
    pub fn policy_at<'a>(
        &'a self,
        entry: &'a WorkloadEntry,
        port: u16,
    ) -> Option<&'a Arc<BackendPolicy>> {
        let headless = self.headless_ports(entry, port);
        let policies = headless.filter_map(|(service, _)| service.policy.as_ref());
        policies.min_by(|a, b| a.meta.precedence().cmp(&b.meta.precedence()))
    }

    /// What the app behind a port of a workload speaks to callers of the workload's own address, by a
    /// BackendTLSPolicy: that of the headless service that has it among its endpoints, of several
    /// services the first by name.
    pub fn tls_at<'a>(
        &'a self,
        entry: &'a WorkloadEntry,
        port: u16,
    ) -> Option<&'a Arc<BackendTls>> {
        let mut headless = self.headless_ports(entry, port);
        headless.find_map(|(_, port)| port.tls.as_ref())
    }

    /// Ports of headless services that lead to a port of a workload at its own address.
    fn headless_ports<'a>(
        &'a self,
        entry: &'a WorkloadEntry,
        port: u16,
    ) -> impl Iterator<Item = (&'a Arc<ServiceEntry>, &'a PortEntry)> {
        let workload = &entry.workload;
        let key = workload.meta.key();
        let headless = self
            .own_services(entry)
            .filter(move |service| service.service.headless && service.has_member(&key));
        headless.flat_map(move |service| {
            let ports = service.ports.iter();
            ports
                .filter(move |it| service.targets(it, workload).contains(&port))
                .map(move |it| (service, it))
        })
    }
}

/// Workloads that a service covers, and endpoints of the service in other namespaces.
pub fn covered(objects: &Objects, entry: &ServiceEntry) -> BTreeSet<Key> {
    let mut all: BTreeSet<Key> = entry.members.iter().cloned().collect();
    if entry.slices.is_some() {
        all.extend(objects.index().members(&entry.service));
    }
    all
}

/// Workloads for which a service has changed, except those that have changed themselves.
pub fn concerned(
    objects: &Objects,
    (old, before): (&Mesh, Option<&ServiceEntry>),
    (new, after): (&Mesh, Option<&ServiceEntry>),
) -> BTreeSet<Key> {
    let (Some(before), Some(after)) = (before, after) else {
        let either = before.into_iter().chain(after);
        return either.flat_map(|entry| covered(objects, entry)).collect();
    };
    if !before.has_same_ports(after) {
        return &covered(objects, before) | &covered(objects, after);
    }
    let members = |entry: &ServiceEntry| entry.members.iter().cloned().collect::<BTreeSet<Key>>();
    let mut all = &members(before) ^ &members(after);
    if before.service.selector != after.service.selector {
        let selected = |entry: &ServiceEntry| -> BTreeSet<Key> {
            let keys = objects.index().members(&entry.service);
            keys.into_iter().collect()
        };
        all.extend(&selected(before) ^ &selected(after));
    }
    all.extend(retargeted((old, before), (new, after)).into_iter().cloned());
    all
}
