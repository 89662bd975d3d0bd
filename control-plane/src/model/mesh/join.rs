//! Which workloads a service selects.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use super::{Mesh, ports};
use crate::model::manifest::object::Key;

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
        for key in &keys {
            if let Some(entry) = mesh.workloads.get_mut(key).and_then(Arc::get_mut) {
                entry.services.push(service_key.clone());
            }
        }
        if let Some(service) = mesh.services.get_mut(&service_key).and_then(Arc::get_mut) {
            service.members = keys;
        }
    }
    let Mesh {
        workloads,
        services,
        ..
    } = mesh;
    for entry in workloads.values_mut().filter_map(Arc::get_mut) {
        let selected = entry.services.iter().filter_map(|key| services.get(key));
        entry.ports = ports::declared(&entry.workload, selected.map(|it| &**it));
    }
}
