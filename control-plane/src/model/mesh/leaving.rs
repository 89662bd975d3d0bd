//! Identities of members that a service lost a moment ago.
//!
//! Which identities a service may answer with travels with its cluster, who its members are with its
//! endpoints. Between the two a proxy dials members of before with the identities of after. So those
//! of before stay good for a while: two ages, of which each [`Leaving::age`] is one.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::Mesh;
use crate::model::manifest::object::Key;

/// See the module.
#[derive(Debug, Default)]
pub struct Leaving {
    /// Of every service, what its members showed in the last state.
    before: BTreeMap<Key, BTreeSet<String>>,
    /// With their ages.
    left: BTreeMap<Key, BTreeMap<String, u8>>,
}

/// Ages that an identity outlives its member by, at most.
const AGES: u8 = 2;

impl Leaving {
    /// Compares a new state with the last one, and tells its services who has left.
    pub fn note(&mut self, mesh: &mut Mesh) {
        let mut now = BTreeMap::new();
        for (key, service) in &mesh.services {
            now.insert(key.clone(), mesh.identities(service));
        }
        self.left.retain(|key, _| now.contains_key(key));
        for (key, identities) in &now {
            let before = self.before.get(key).into_iter().flatten();
            let gone: Vec<_> = before.filter(|id| !identities.contains(*id)).collect();
            if gone.is_empty() && !self.left.contains_key(key) {
                continue;
            }
            let left = self.left.entry(key.clone()).or_default();
            left.extend(gone.into_iter().map(|id| (id.clone(), 0)));
            left.retain(|id, _| !identities.contains(id));
        }
        self.before = now;
        self.left.retain(|_, left| !left.is_empty());
        for (key, left) in &self.left {
            if let Some(service) = mesh.services.get_mut(key).and_then(Arc::get_mut) {
                service.leaving = left.keys().cloned().collect();
            }
        }
    }

    /// Time has passed. The services of which an identity is forgotten for it.
    pub fn age(&mut self) -> Vec<Key> {
        let mut forgotten = Vec::new();
        for (key, left) in &mut self.left {
            let count = left.len();
            left.values_mut().for_each(|age| *age += 1);
            left.retain(|_, age| *age < AGES);
            if left.len() < count {
                forgotten.push(key.clone());
            }
        }
        self.left.retain(|_, left| !left.is_empty());
        forgotten
    }
}
