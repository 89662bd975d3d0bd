//! Which object has an address that several objects claim.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use super::Mesh;
use super::affected::Affected;
use super::index::Facet;
use super::objects::Objects;
use super::persistent::Map;
use crate::incumbents::{Incumbents, IncumbentsError};
use crate::model::manifest::object::{Key, Kind, ObjectId};

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
        for ip in std::mem::take(&mut affected.vips) {
            let concerned = &mut affected.changed.services;
            self.place_one(objects, (Kind::Service, ip), &mut next.by_vip, concerned);
        }
        for ip in std::mem::take(&mut affected.addresses) {
            let concerned = &mut affected.changed.workloads;
            self.place_one(objects, (Kind::Workload, ip), &mut next.by_ip, concerned);
        }
    }

    /// Assigns an address that several objects of a kind may claim; all of them are affected when
    /// that changes.
    fn place_one(
        &mut self,
        objects: &Objects,
        (kind, ip): (Kind, IpAddr),
        held: &mut Map<IpAddr, Key>,
        concerned: &mut BTreeSet<Key>,
    ) {
        let claims = match kind {
            Kind::Service => Facet::Vip(ip),
            _ => Facet::Address(ip),
        };
        let now = held.get(&ip).cloned();
        let claimants = || objects.index().find(&claims);
        let earlier = self.incumbents.earlier(format_args!("{kind} {ip}"));
        let earlier = earlier.and_then(|key| key.split_once('/'));
        let earlier = earlier.map(|(namespace, name)| Key::new(namespace, name));
        let incumbent = now.as_ref().or(earlier.as_ref());
        let then = holder(claimants(), objects, incumbent).cloned();
        let contested = claimants().nth(1).and(then.as_ref());
        self.incumbents.note(format_args!("{kind} {ip}"), contested);
        if now != then {
            concerned.extend(claimants().map(|id| id.key.clone()).chain(now));
            held.set(ip, then);
        }
    }
}

/// Which claimant of an address has it: the oldest; without ages, the one that already had it, so
/// that live traffic stays there.
fn holder<'a>(
    claimants: impl Iterator<Item = &'a Arc<ObjectId>>,
    objects: &'a Objects,
    incumbent: Option<&Key>,
) -> Option<&'a Key> {
    let all = claimants.filter_map(|id| {
        let meta = objects.get(id)?.0.meta();
        let age = (meta.created.is_none(), meta.created.as_deref());
        Some((age, Some(&id.key) != incumbent, &id.key))
    });
    all.min().map(|(_, _, key)| key)
}
