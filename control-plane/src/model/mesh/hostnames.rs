//! Hostnames of workloads in headless services, so that DNS finds who has one.

use std::collections::BTreeSet;

use super::Mesh;
use super::index::{Facet, Index};
use crate::model::manifest::object::Key;

/// Those that changed workloads have in the next state, or had in the one before.
pub fn place(index: &Index, (before, next): (&Mesh, &mut Mesh), workloads: &BTreeSet<Key>) {
    let of = |mesh: &Mesh, key: &Key| mesh.workloads.get(key)?.workload.hostname_in_service();
    let mut concerned = BTreeSet::new();
    for key in workloads {
        let (had, has) = (of(before, key), of(next, key));
        if had != has {
            concerned.extend(had.into_iter().chain(has));
        }
    }
    for (service, name) in concerned {
        let facet = Facet::Hostname(service.clone(), name.clone());
        let all: BTreeSet<Key> = index.find(&facet).map(|id| id.key.clone()).collect();
        let all = (!all.is_empty()).then_some(all);
        next.by_hostname.set((service, name), all);
    }
}
