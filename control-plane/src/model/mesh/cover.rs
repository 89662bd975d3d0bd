//! Which workloads a service speaks for: it declares their ports, and its policies hold for them.
//! These are those that serve it and those that it selects: a cluster's EndpointSlices list a pod
//! some time after that can be called.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::endpoints::{resolve_port, retargeted};
use super::objects::Objects;
use super::{Mesh, PortEntry, ServiceEntry, WorkloadEntry, join};
use crate::model::manifest::object::Key;
use crate::model::manifest::workload::Workload;

impl ServiceEntry {
    /// The ports of a workload that `port` is about: those that calls to it reach, and those that
    /// they will reach once EndpointSlices list a workload that the service selects.
    pub fn covers(&self, port: &PortEntry, workload: &Workload) -> BTreeSet<u16> {
        let mut all = self.targets(port, workload);
        if join::selects(&self.service, workload) {
            all.extend(resolve_port(&port.target, workload));
        }
        all
    }

    /// Whether both declare the same ports, whatever routes govern them.
    pub fn has_same_ports(&self, other: &ServiceEntry) -> bool {
        let mut both = self.ports.iter().zip(&other.ports);
        self.ports.len() == other.ports.len() && both.all(|(one, other)| one.is_same_port(other))
    }
}

impl Mesh {
    /// The services that cover a workload. What slices of another namespace say of its ports and
    /// policies does not count.
    pub fn own_services<'a>(
        &'a self,
        entry: &'a WorkloadEntry,
    ) -> impl Iterator<Item = &'a Arc<ServiceEntry>> {
        let own = entry.covered_by.iter();
        own.filter_map(|key| self.service(key))
    }
}

/// Workloads that a service covers, and those of other namespaces that serve it.
pub fn covered(objects: &Objects, entry: &ServiceEntry) -> BTreeSet<Key> {
    let mut all: BTreeSet<Key> = entry.members.iter().cloned().collect();
    if entry.slices.is_some() {
        all.extend(objects.index().members(&entry.service));
    }
    all
}

/// Workloads that find a service otherwise than it was, but for those that changed themselves.
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
