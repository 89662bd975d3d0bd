//! Which workloads a service selects.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use super::{Mesh, resolve_port};
use crate::model::manifest::object::Key;
use crate::model::manifest::service::AppProtocol;

/// Joins services and workloads: members, and what a service says of a workload's ports.
pub fn services_and_workloads(mesh: &mut Mesh) {
    let mut labels: HashMap<(&str, &str, &str), BTreeSet<&Key>> = HashMap::new();
    for (key, entry) in &mesh.workloads {
        for (name, value) in &entry.workload.meta.labels {
            labels
                .entry((&key.namespace, name, value))
                .or_default()
                .insert(key);
        }
    }
    let empty = BTreeSet::new();
    let mut members: BTreeMap<Key, Vec<Key>> = BTreeMap::new();
    for (key, entry) in &mesh.services {
        let selected = entry.service.selector.iter().map(|(name, value)| {
            labels
                .get(&(key.namespace.as_str(), name.as_str(), value.as_str()))
                .unwrap_or(&empty)
        });
        let mut selected: Vec<_> = selected.collect();
        selected.sort_by_key(|set| set.len());
        let Some((fewest, others)) = selected.split_first() else {
            continue;
        };
        let all = fewest
            .iter()
            .filter(|key| others.iter().all(|set| set.contains(*key)));
        members.insert(key.clone(), all.map(|key| (*key).clone()).collect());
    }
    for (service_key, keys) in members {
        let Some(service) = mesh.services.get_mut(&service_key).and_then(Arc::get_mut) else {
            continue;
        };
        for key in &keys {
            let Some(entry) = mesh.workloads.get_mut(key).and_then(Arc::get_mut) else {
                continue;
            };
            entry.services.push(service_key.clone());
            for port in &service.ports {
                let Some(number) = resolve_port(&port.target, &entry.workload) else {
                    continue;
                };
                let known = entry.ports.entry(number).or_insert(port.protocol);
                if *known == AppProtocol::Undeclared {
                    *known = port.protocol;
                }
            }
        }
        service.members = keys;
    }
}
