//! Which object has an address that several objects claim.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use persistent::Map;

use super::affected::Affected;
use super::change::Origin;
use super::index::Facet;
use super::objects::Objects;
use super::{Mesh, MeshOptions};
use crate::incumbents::{Incumbents, IncumbentsError};
use crate::model::manifest::object::{Key, Kind, ObjectId};
use crate::model::manifest::read::Object;

/// Assigns addresses.
#[derive(Debug, Default)]
pub struct Holders {
    incumbents: Incumbents,
}

impl Holders {
    /// `incumbents`: the choices of the last run.
    pub fn new(incumbents: Incumbents) -> Self {
        Holders { incumbents }
    }

    /// Writes the choices for the next start.
    ///
    /// # Errors
    /// See [`Incumbents::save`].
    pub fn save(&mut self) -> Result<(), IncumbentsError> {
        self.incumbents.save()
    }

    /// Assigns the affected addresses.
    pub fn place(&mut self, objects: &Objects, next: &mut Mesh, affected: &mut Affected) {
        let options = Arc::clone(&next.options);
        let from = (objects, &*options);
        for ip in std::mem::take(&mut affected.vips) {
            let concerned = &mut affected.changed.services;
            self.place_one(from, (Kind::Service, ip), &mut next.by_vip, concerned);
        }
        for ip in std::mem::take(&mut affected.addresses) {
            let concerned = &mut affected.changed.workloads;
            self.place_one(from, (Kind::Workload, ip), &mut next.by_ip, concerned);
        }
    }

    /// Assigns an address that several objects of a kind may claim; all of them are affected when
    /// that changes.
    fn place_one(
        &mut self,
        (objects, options): (&Objects, &MeshOptions),
        (kind, ip): (Kind, IpAddr),
        held: &mut Map<IpAddr, Key>,
        concerned: &mut BTreeSet<Key>,
    ) {
        let claims = match kind {
            Kind::Service => Facet::Vip(ip),
            _ => Facet::Address(ip),
        };
        let now = held.get(&ip).cloned();
        let all = || objects.index().find(&claims);
        let claimants = || all().filter(move |id| may_have(options, objects.get(id), ip));
        let earlier = self.incumbents.earlier(format_args!("{kind} {ip}"));
        let earlier = earlier.and_then(|key| key.split_once('/'));
        let earlier = earlier.map(|(namespace, name)| Key::new(namespace, name));
        let incumbent = now.as_ref().or(earlier.as_ref());
        let then = holder(claimants(), objects, incumbent).cloned();
        let contested = claimants().nth(1).and(then.as_ref());
        self.incumbents.note(format_args!("{kind} {ip}"), contested);
        if now != then {
            concerned.extend(all().map(|id| id.key.clone()).chain(now));
            held.set(ip, then);
        }
    }
}

fn may_have(options: &MeshOptions, claimant: Option<&(Object, Origin)>, ip: IpAddr) -> bool {
    match claimant {
        Some((Object::Workload(workload), _)) => options.may_have(workload, ip),
        _ => true,
    }
}

/// Which of the objects that claim an address has it: a Pod before any Workload; then the oldest;
/// if none is older, the one that has it already, so that an object in service keeps its address.
fn holder<'a>(
    claimants: impl Iterator<Item = &'a Arc<ObjectId>>,
    objects: &'a Objects,
    incumbent: Option<&Key>,
) -> Option<&'a Key> {
    let all = claimants.filter_map(|id| {
        let (object, _) = objects.get(id)?;
        let is_pod = matches!(object, Object::Workload(workload) if workload.pod);
        let meta = object.meta();
        let age = (meta.created.is_none(), meta.created.as_deref());
        Some((!is_pod, age, Some(&id.key) != incumbent, &id.key))
    });
    all.min().map(|(_, _, _, key)| key)
}
