//! Who has an address that several services ask for by `clusterIP`.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use crate::model::manifest::object::Key;
use crate::model::manifest::service::Service;

/// The owners of all written addresses: the older service (`creationTimestamp`); without ages, the
/// one that has it already (`served`), so that a new object takes over no live traffic.
pub fn owners(
    services: &BTreeMap<Key, Arc<Service>>,
    served: &HashMap<IpAddr, Key>,
) -> HashMap<IpAddr, Key> {
    let mut owners: HashMap<IpAddr, &Service> = HashMap::new();
    let precedence = |service: &Service, ip: IpAddr| {
        let key = service.meta.key();
        let created = service.meta.created.clone();
        let first = served.get(&ip) != Some(&key);
        (created.is_none(), created, first, key)
    };
    for service in services.values() {
        for ip in &service.cluster_ips {
            let owner = owners.entry(*ip).or_insert(service);
            if owner.meta.key() != service.meta.key()
                && precedence(service, *ip) < precedence(owner, *ip)
            {
                *owner = service;
            }
        }
    }
    let owner = |(ip, service): (IpAddr, &Service)| (ip, service.meta.key());
    owners.into_iter().map(owner).collect()
}
