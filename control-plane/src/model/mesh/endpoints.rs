//! Endpoints of services: the workloads that they select by labels, or those in their
//! EndpointSlices.
//!
//! [`Slices`] has the slices of one service; [`Mesh::endpoints`] lists where calls of a [`Caller`]
//! to a port go.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use super::{Mesh, PortEntry, ServiceEntry, WorkloadEntry};
use crate::model::manifest::endpoint_slice::{
    Conditions, EndpointSlice, Hints, SliceEndpoint, SlicePort,
};
use crate::model::manifest::families::Families;
use crate::model::manifest::object::Key;
use crate::model::manifest::service::PortRef;
use crate::model::manifest::workload::Workload;

/// Where a Service's endpoints come from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum EndpointsBy {
    /// Its EndpointSlices; where it has none but a selector, the labels of workloads. For folders,
    /// where no controller writes slices.
    #[default]
    SlicesOrSelector,
    /// Its EndpointSlices alone, which the cluster's controller writes.
    Slices,
}

/// The EndpointSlices of one service.
#[derive(Debug, PartialEq, Eq)]
pub struct Slices {
    all: Vec<Arc<EndpointSlice>>,
    /// By the service's members: positions in `all`.
    with_member: Vec<Vec<usize>>,
    /// Of a headless service: endpoints by their label below its name.
    by_label: BTreeMap<String, Vec<Place>>,
    /// Whether some endpoint has hints, so that callers in other places may get other endpoints.
    pub hinted: bool,
}

/// A slice's position among its service's, and an endpoint's in it.
type Place = (usize, usize);

impl Slices {
    /// Also returns the workloads among the endpoints, in order.
    pub fn new(all: Vec<Arc<EndpointSlice>>, headless: bool, mesh: &Mesh) -> (Self, Vec<Key>) {
        let mut with_member: BTreeMap<&Key, BTreeSet<usize>> = BTreeMap::new();
        let mut by_label: BTreeMap<String, Vec<Place>> = BTreeMap::new();
        for (at, slice) in all.iter().enumerate() {
            for (index, endpoint) in slice.endpoints.iter().enumerate() {
                let Some(member) = mesh.resolve(endpoint) else {
                    continue;
                };
                if let Some(member) = member {
                    with_member.entry(member).or_default().insert(at);
                }
                if headless {
                    let places = by_label.entry(label(endpoint, member)).or_default();
                    places.push((at, index));
                }
            }
        }
        let members = with_member.keys().copied().cloned().collect();
        let with_member = with_member.into_values();
        let with_member = with_member.map(|slices| slices.into_iter().collect());
        let mut endpoints = all.iter().flat_map(|slice| &slice.endpoints);
        let hinted = endpoints.any(|it| it.hints != Hints::default());
        let slices = Slices {
            hinted,
            with_member: with_member.collect(),
            by_label,
            all,
        };
        (slices, members)
    }

    fn at(&self, (slice, index): Place) -> Option<(&EndpointSlice, &SliceEndpoint)> {
        let slice = self.all.get(slice)?;
        Some((slice, slice.endpoints.get(index)?))
    }

    /// Of a headless service: labels below its name, each with its endpoints and their slices.
    pub fn labels(&self) -> impl Iterator<Item = (&str, Vec<(&EndpointSlice, &SliceEndpoint)>)> {
        self.by_label.iter().map(|(label, places)| {
            let places = places.iter().filter_map(|place| self.at(*place));
            (label.as_str(), places.collect())
        })
    }

    /// The endpoints with this label; none when there is no such label.
    pub fn labelled(&self, label: &str) -> impl Iterator<Item = &SliceEndpoint> {
        let places = self.by_label.get(label).into_iter().flatten();
        places.filter_map(|place| Some(self.at(*place)?.1))
    }

    pub fn all(&self) -> &[Arc<EndpointSlice>] {
        &self.all
    }
}

/// The DNS label of an endpoint of a headless service, as Kubernetes' DNS servers make it.
fn label(endpoint: &SliceEndpoint, member: Option<&Key>) -> String {
    match (&endpoint.hostname, member) {
        (Some(hostname), _) => hostname.clone(),
        (None, Some(member)) => member.name.clone(),
        (None, None) => endpoint.address.to_string().replace(['.', ':'], "-"),
    }
}

/// What of a caller determines which endpoints it gets.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Caller {
    pub families: Families,
    /// Empty: unknown, or the service has no hints.
    pub zone: String,
    /// Empty: unknown, or of no effect on the service's endpoints.
    pub node: String,
    /// Addresses at which its connections reach the app without the sidecar.
    pub bypassed: BTreeSet<IpAddr>,
}

/// One place where calls to a port of a service may go.
#[derive(Clone, Debug)]
pub struct Endpoint<'a> {
    pub at: SocketAddr,
    /// `None`: the address is of no workload in the mesh.
    pub workload: Option<&'a WorkloadEntry>,
    /// Empty: not known.
    pub zone: &'a str,
    node: &'a str,
    conditions: Conditions,
    hints: Option<&'a Hints>,
}

/// The port of `workload` that `target` refers to.
pub fn resolve_port(target: &PortRef, workload: &Workload) -> Option<u16> {
    match target {
        PortRef::Number(number) => Some(number.get()),
        PortRef::Name(name) => workload
            .ports
            .iter()
            .find(|port| port.name == *name)
            .map(|port| port.number),
    }
}

impl ServiceEntry {
    /// The ports of one of its workloads that calls to `port` reach.
    pub fn targets(&self, port: &PortEntry, workload: &Workload) -> BTreeSet<u16> {
        let Some(slices) = &self.slices else {
            return resolve_port(&port.target, workload).into_iter().collect();
        };
        let meta = &workload.meta;
        let name = (&meta.namespace, &meta.name);
        let found = self
            .members
            .binary_search_by(|key| (&key.namespace, &key.name).cmp(&name));
        let with = found.ok().and_then(|index| slices.with_member.get(index));
        let with = with.into_iter().flatten();
        with.filter_map(|at| slices.all.get(*at)?.number(&port.name))
            .collect()
    }

    pub fn has_member(&self, key: &Key) -> bool {
        self.members.binary_search(key).is_ok()
    }
}

/// Members of a service in both states for which its ports have other targets, while its ports are
/// the same.
pub fn retargeted<'a>(
    (old, before): (&Mesh, &'a ServiceEntry),
    (new, after): (&Mesh, &ServiceEntry),
) -> Vec<&'a Key> {
    let ports = |entry: &ServiceEntry| {
        let slices = entry.slices.iter().flat_map(Slices::all);
        let ports: BTreeSet<Vec<SlicePort>> = slices.map(|slice| slice.ports.clone()).collect();
        (entry.slices.is_some(), ports)
    };
    let (was, is) = (ports(before), ports(after));
    // Most services have the same ports in all of their slices, before and after.
    if was == is && was.1.len() < 2 {
        return Vec::new();
    }
    let differs = |key: &&Key| {
        let (Some(was), Some(is)) = (old.workloads.get(*key), new.workloads.get(*key)) else {
            return true;
        };
        let ports = before.ports.iter().zip(&after.ports);
        let mut both = ports.map(|(one, other)| {
            let one = before.targets(one, &was.workload);
            one == after.targets(other, &is.workload)
        });
        !both.all(|same| same)
    };
    let stay = before.members.iter().filter(|key| after.has_member(key));
    stay.filter(differs).collect()
}

impl Mesh {
    /// The workload that an endpoint stands for: the one it names, if that has its address, else
    /// the one that has the address, if any. `None`: it must not be called, because it names a pod
    /// of a cluster that does not have the address. Pods and slices of a cluster arrive separately,
    /// so the pod may be unknown yet or gone; it would be called in plaintext, or another pod would
    /// be called that has the address by now.
    fn resolve<'a>(&'a self, endpoint: &'a SliceEndpoint) -> Option<Option<&'a Key>> {
        let has_address = |key: &&Key| {
            let entry = self.workloads.get(*key);
            entry.is_some_and(|it| it.workload.addresses.contains(&endpoint.address))
        };
        let named = endpoint.target.as_ref();
        if let Some(known) = named.filter(has_address) {
            return Some(Some(known));
        }
        match named.is_some() && self.options.endpoints == EndpointsBy::Slices {
            true => None,
            false => Some(self.by_ip.get(&endpoint.address)),
        }
    }

    /// Workloads among the endpoints of a service, ready or not.
    pub fn members<'a>(
        &'a self,
        service: &'a ServiceEntry,
    ) -> impl Iterator<Item = &'a Arc<WorkloadEntry>> {
        service
            .members
            .iter()
            .filter_map(|key| self.workloads.get(key))
    }

    /// Where calls of `caller` to a port go: to ready endpoints; where there are none, to those
    /// that terminate and still serve. Hints are used when all ready endpoints have them. With
    /// `internalTrafficPolicy: Local` only those on the caller's node count, as kube-proxy has it.
    pub fn endpoints<'a>(
        &'a self,
        service: &'a ServiceEntry,
        port: &'a PortEntry,
        caller: &Caller,
    ) -> Vec<Endpoint<'a>> {
        let mut all = match &service.slices {
            None => self.selected(service, port, caller.families),
            Some(slices) => self.sliced(service, slices, port, caller.families),
        };
        if service.service.local {
            all.retain(|it| !it.node.is_empty() && it.node == caller.node);
        }
        if !all.iter().any(|it| it.conditions.ready) {
            all.retain(|it| it.conditions.serving && it.conditions.terminating);
            return all;
        }
        all.retain(|it| it.conditions.ready);
        near(all, caller)
    }

    /// Whether the service has a ready endpoint, on any of its ports.
    pub fn is_served(&self, service: &ServiceEntry) -> bool {
        let publish = service.service.publish_not_ready;
        match &service.slices {
            None => self
                .members(service)
                .any(|entry| entry.workload.ready || publish),
            Some(slices) => {
                let mut endpoints = slices.all.iter().flat_map(|slice| &slice.endpoints);
                endpoints.any(|it| it.conditions.ready || publish)
            }
        }
    }

    fn selected<'a>(
        &'a self,
        service: &'a ServiceEntry,
        port: &'a PortEntry,
        families: Families,
    ) -> Vec<Endpoint<'a>> {
        let publish = service.service.publish_not_ready;
        let one = |entry: &'a Arc<WorkloadEntry>| {
            let workload = &entry.workload;
            let number = resolve_port(&port.target, workload)?;
            let ready = workload.ready || publish;
            Some(Endpoint {
                at: SocketAddr::new(workload.address_in(families)?, number),
                workload: Some(entry),
                zone: "",
                node: &workload.node,
                conditions: Conditions {
                    ready,
                    serving: ready,
                    terminating: false,
                },
                hints: None,
            })
        };
        self.members(service).filter_map(one).collect()
    }

    /// Endpoints by slices. One endpoint may be in several slices, and a dual-stack workload in
    /// those of each family.
    fn sliced<'a>(
        &'a self,
        service: &'a ServiceEntry,
        slices: &'a Slices,
        port: &'a PortEntry,
        families: Families,
    ) -> Vec<Endpoint<'a>> {
        let publish = service.service.publish_not_ready;
        /// Its workload, or else its address; and its port.
        type Place<'a> = (Option<&'a Key>, Option<IpAddr>, u16);
        // Of a workload's addresses, the one with the lowest rank is used.
        let mut all: BTreeMap<Place<'_>, (usize, Endpoint<'a>)> = BTreeMap::new();
        for slice in &slices.all {
            let Some(number) = slice.number(&port.name) else {
                continue;
            };
            for it in &slice.endpoints {
                let Some(member) = self.resolve(it) else {
                    continue;
                };
                let workload = member.and_then(|key| self.workloads.get(key));
                let rank = rank(it.address, workload.map(|entry| &*entry.workload), families);
                let key = (member, member.is_none().then_some(it.address), number);
                if all.get(&key).is_some_and(|(best, _)| *best <= rank) {
                    continue;
                }
                let conditions = Conditions {
                    ready: it.conditions.ready || publish,
                    ..it.conditions
                };
                let endpoint = Endpoint {
                    at: SocketAddr::new(it.address, number),
                    workload: workload.map(|entry| &**entry),
                    zone: &it.zone,
                    node: match (it.node.as_str(), workload) {
                        ("", Some(entry)) => &entry.workload.node,
                        (node, _) => node,
                    },
                    conditions,
                    hints: Some(&it.hints),
                };
                all.insert(key, (rank, endpoint));
            }
        }
        let fits = |it: &Endpoint<'_>| families.have(it.at.ip());
        let any = all.values().any(|(_, it)| fits(it));
        let all = all.into_values().map(|(_, it)| it);
        all.filter(|it| !any || fits(it)).collect()
    }
}

/// Ranks the addresses of a workload for a caller with addresses of `families`: lower is better.
fn rank(ip: IpAddr, workload: Option<&Workload>, families: Families) -> usize {
    let own = workload.map_or(&[][..], |it| &it.addresses);
    let place = own.iter().position(|own| *own == ip).unwrap_or(own.len());
    match families.have(ip) {
        true => place,
        false => usize::MAX / 2 + place,
    }
}

/// The endpoints for a caller by their hints, as kube-proxy reads them: by node, if every endpoint
/// has a node hint and one of them names the caller's node; else by zone in the same way; else all.
fn near<'a>(all: Vec<Endpoint<'a>>, caller: &Caller) -> Vec<Endpoint<'a>> {
    type Of = for<'h> fn(&'h Hints) -> &'h BTreeSet<String>;
    let levels: [(&str, Of); 2] = [
        (&caller.node, |hints| &hints.nodes),
        (&caller.zone, |hints| &hints.zones),
    ];
    for (place, of) in levels {
        let hints = |it: &Endpoint<'a>| it.hints.map(of);
        let complete = all
            .iter()
            .all(|it| hints(it).is_some_and(|names| !names.is_empty()));
        let here = |it: &Endpoint<'a>| hints(it).is_some_and(|names| names.contains(place));
        if !place.is_empty() && complete && all.iter().any(here) {
            return all.into_iter().filter(here).collect();
        }
    }
    all
}
