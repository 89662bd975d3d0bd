//! The ConfigMaps that policies name: each of them is watched by itself, and no other.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::model::Object;
use crate::model::manifest::object::Key;

/// Watches that the policies of one namespace, and all of them, may cause.
const MAX_OF_NAMESPACE: usize = 32;
const MAX: usize = 1024;

/// See the module.
#[derive(Debug, Default)]
pub struct NamedConfigMaps {
    by_policy: HashMap<Key, BTreeSet<Key>>,
    all: BTreeMap<Key, NamedConfigMap>,
    changed: bool,
}

#[derive(Debug, Default)]
struct NamedConfigMap {
    /// Policies that name it.
    policies: usize,
    /// Whether the API server was asked for it.
    looked_for: bool,
}

impl NamedConfigMaps {
    /// A policy is there, or not any more (`None`). Returns the ConfigMaps that none names now.
    pub fn set(&mut self, policy: &Key, object: Option<&Object>) -> Vec<Key> {
        let wanted: BTreeSet<Key> = match object {
            Some(Object::BackendTls(it)) => {
                let names = it.config_maps();
                names
                    .map(|name| Key::new(&policy.namespace, name))
                    .collect()
            }
            _ => BTreeSet::new(),
        };
        let before = self.by_policy.remove(policy).unwrap_or_default();
        let gone = before.difference(&wanted).filter(|key| self.remove(key));
        let gone: Vec<Key> = gone.cloned().collect();
        let named = wanted
            .into_iter()
            .filter(|key| before.contains(key) || self.add(key));
        let named: BTreeSet<Key> = named.collect();
        if !named.is_empty() {
            self.by_policy.insert(policy.clone(), named);
        }
        gone
    }

    /// False: there are too many.
    fn add(&mut self, key: &Key) -> bool {
        if let Some(known) = self.all.get_mut(key) {
            known.policies = known.policies.saturating_add(1);
            return true;
        }
        let near = self.all.range(Key::new(&key.namespace, "")..);
        let near = near.take_while(|(it, _)| it.namespace == key.namespace);
        if self.all.len() >= MAX || near.count() >= MAX_OF_NAMESPACE {
            tracing::error!(
                config_map = %key,
                "is not read: BackendTLSPolicies of one namespace may name {MAX_OF_NAMESPACE} ConfigMaps, and all {MAX}; let several name one"
            );
            return false;
        }
        let named = NamedConfigMap {
            policies: 1,
            looked_for: false,
        };
        self.all.insert(key.clone(), named);
        self.changed = true;
        true
    }

    /// Whether that was the last policy that names it.
    fn remove(&mut self, key: &Key) -> bool {
        let Some(known) = self.all.get_mut(key) else {
            return false;
        };
        known.policies = known.policies.saturating_sub(1);
        let last = known.policies == 0;
        if last {
            self.all.remove(key);
            self.changed = true;
        }
        last
    }

    pub fn contains(&self, key: &Key) -> bool {
        self.all.contains_key(key)
    }

    /// It was found, or is not there, or may not be read.
    pub fn looked_for(&mut self, key: &Key) {
        if let Some(known) = self.all.get_mut(key) {
            known.looked_for = true;
        }
    }

    pub fn are_looked_for(&self) -> bool {
        self.all.values().all(|it| it.looked_for)
    }

    /// All of them, if they are others than at the last call.
    pub fn changed(&mut self) -> Option<BTreeSet<Key>> {
        let changed = std::mem::take(&mut self.changed);
        changed.then(|| self.all.keys().cloned().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::yaml;

    fn policy(maps: &[&str]) -> Object {
        let one = |name: &&str| format!("{{ group: '', kind: ConfigMap, name: {name} }}");
        let refs: Vec<String> = maps.iter().map(one).collect();
        let text = format!(
            "apiVersion: gateway.networking.k8s.io/v1\nkind: BackendTLSPolicy\nmetadata: {{ name: p }}\n\
             spec: {{ targetRefs: [{{ group: '', kind: Service, name: s }}], \
             validation: {{ hostname: a.example, caCertificateRefs: [{}] }} }}\n",
            refs.join(", ")
        );
        yaml::parse("p.yaml", &text).unwrap().remove(0).object
    }

    fn keys(names: &[&str]) -> BTreeSet<Key> {
        names.iter().map(|name| Key::new("n", *name)).collect()
    }

    #[test]
    fn a_config_map_is_watched_while_a_policy_names_it() {
        let mut named = NamedConfigMaps::default();
        let [one, two] = ["one", "two"].map(|name| Key::new("n", name));
        assert!(named.set(&one, Some(&policy(&["a", "b"]))).is_empty());
        assert_eq!(named.changed(), Some(keys(&["a", "b"])));
        assert!(named.set(&two, Some(&policy(&["b"]))).is_empty());
        assert_eq!(named.changed(), None, "they are the same");
        assert!(!named.are_looked_for());
        named.looked_for(&Key::new("n", "a"));
        named.looked_for(&Key::new("n", "b"));
        assert!(named.are_looked_for());
        assert_eq!(named.set(&one, Some(&policy(&["c"]))), [Key::new("n", "a")]);
        assert_eq!(named.changed(), Some(keys(&["b", "c"])));
        assert_eq!(named.set(&two, None), [Key::new("n", "b")]);
        assert_eq!(named.set(&one, None), [Key::new("n", "c")]);
        assert_eq!(named.changed(), Some(keys(&[])));
        assert!(named.by_policy.is_empty());
    }

    #[test]
    fn one_namespace_cannot_cause_any_number_of_watches() {
        let mut named = NamedConfigMaps::default();
        for index in 0..100 {
            let name = format!("m{index}");
            named.set(&Key::new("n", &name), Some(&policy(&[&name])));
        }
        assert_eq!(named.changed().unwrap().len(), MAX_OF_NAMESPACE);
        named.set(&Key::new("other", "p"), Some(&policy(&["a"])));
        assert!(named.contains(&Key::new("other", "a")));
    }
}
