//! Where connections of a caller reach an app without the sidecar beside it, by the caller's address:
//! it has to use plaintext there.

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::{Mesh, ServiceEntry};
use crate::model::manifest::object::Key;
use crate::model::manifest::workload::Workload;

/// Whether connections of `caller` to an address of `callee` reach the app itself. Their source is
/// taken to be the caller's own address, as in a cluster without NAT between pods; where it has none
/// of that family, they are taken to be redirected.
pub fn is_bypassed(caller: &Workload, callee: &Workload, to: IpAddr) -> bool {
    let mut own = caller.addresses.iter();
    let source = own.find(|ip| ip.is_ipv4() == to.is_ipv4());
    source.is_some_and(|ip| !callee.redirected.has_source(*ip))
}

impl Mesh {
    /// Of `members`, those for which it depends on the caller.
    pub fn by_source(&self, members: &[Key]) -> Vec<Key> {
        let depends = |key: &&Key| {
            let entry = self.workloads.get(*key);
            entry.is_some_and(|it| it.workload.sidecar && it.workload.redirected.is_by_source())
        };
        members.iter().filter(depends).cloned().collect()
    }

    /// Addresses of the service's members at which connections of `caller` reach the app itself.
    pub fn bypassed(&self, caller: &Workload, service: &ServiceEntry) -> BTreeSet<IpAddr> {
        let members = service.by_source.iter();
        let members = members.filter_map(|key| self.workloads.get(key));
        let addresses = members.flat_map(|entry| {
            let callee = &entry.workload;
            let all = callee.addresses.iter().copied();
            all.filter(|ip| is_bypassed(caller, callee, *ip))
        });
        addresses.collect()
    }
}
