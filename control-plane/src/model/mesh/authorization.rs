//! Which AuthorizationPolicies hold where.

use std::sync::Arc;

use persistent::Map;

use super::{Mesh, WorkloadEntry, join};
use crate::model::manifest::authorization::AuthorizationPolicy;
use crate::model::manifest::object::{Key, Target};

/// AuthorizationPolicies by what they hold for.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct AuthorizationPolicies {
    pub by_namespace: Map<String, Vec<Arc<AuthorizationPolicy>>>,
    pub by_service: Map<Key, Vec<Arc<AuthorizationPolicy>>>,
    pub by_workload: Map<Key, Vec<Arc<AuthorizationPolicy>>>,
}

impl Mesh {
    /// Authorisation policies that hold for a port of a workload, by precedence.
    pub fn authorization_for(
        &self,
        entry: &WorkloadEntry,
        port: Option<u16>,
    ) -> Vec<&Arc<AuthorizationPolicy>> {
        let all = &self.authorization;
        let own = &entry.workload.meta;
        let whole = [&self.options.root_namespace, &own.namespace];
        let whole = whole.map(|name| all.by_namespace.get(name));
        let targeted = all.by_workload.get(&own.key());
        let services = entry.covered_by.iter();
        let services = services.map(|key| all.by_service.get(key));
        let hit = |policy: &&Arc<AuthorizationPolicy>| {
            let mut targets = policy.targets.iter();
            policy.targets.is_empty() || targets.any(|target| self.hits(target, entry, port))
        };
        let found = whole.into_iter().chain([targeted]).chain(services);
        let mut found: Vec<_> = found.flatten().flatten().filter(hit).collect();
        found.sort_by(|a, b| a.meta.precedence().cmp(&b.meta.precedence()));
        // A namespace that is the root one, a policy with several targets.
        found.dedup_by(|a, b| Arc::ptr_eq(a, b));
        found
    }

    /// A service as target means those ports of its workloads that it sends to, or will.
    fn hits(&self, target: &Target, entry: &WorkloadEntry, port: Option<u16>) -> bool {
        let (name, section) = match target {
            Target::Workload(name) => return *name == entry.workload.meta.name,
            Target::Labels(labels) => return join::has_labels(&entry.workload, labels),
            Target::Service { name, port } => (name, port),
        };
        let Some(number) = port else { return false };
        let key = Key::new(&entry.workload.meta.namespace, name);
        let Some(service) = self
            .services
            .get(&key)
            .filter(|_| entry.covered_by.contains(&key))
        else {
            return false;
        };
        service.ports.iter().any(|port| {
            section.as_ref().is_none_or(|section| *section == port.name)
                && service.covers(port, &entry.workload).contains(&number)
        })
    }
}
