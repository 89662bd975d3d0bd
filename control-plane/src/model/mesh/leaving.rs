//! Identities of members that a service lost a moment ago.
//!
//! Which identities a service may answer with travels with its cluster, who its members are with its
//! endpoints. Between the two a proxy dials members of before with the identities of after. So those
//! of before stay good for a while: two ages, of which each [`Leaving::age`] is one.

use std::collections::{BTreeMap, BTreeSet};

use crate::model::manifest::object::Key;

/// See the module.
#[derive(Debug, Default)]
pub struct Leaving {
    /// With their ages.
    left: BTreeMap<Key, BTreeMap<String, u8>>,
}

/// Ages that an identity outlives its member by, at most.
const AGES: u8 = 2;

impl Leaving {
    /// Compares what the members of a service show now with what they showed before; gives who has
    /// left.
    pub fn note(
        &mut self,
        key: &Key,
        before: &BTreeSet<String>,
        now: &BTreeSet<String>,
    ) -> BTreeSet<String> {
        let gone: Vec<_> = before.difference(now).collect();
        if gone.is_empty() && !self.left.contains_key(key) {
            return BTreeSet::new();
        }
        let left = self.left.entry(key.clone()).or_default();
        left.extend(gone.into_iter().map(|id| (id.clone(), 0)));
        left.retain(|id, _| !now.contains(id));
        let all = left.keys().cloned().collect();
        if left.is_empty() {
            self.left.remove(key);
        }
        all
    }

    /// A service is gone.
    pub fn forget(&mut self, key: &Key) {
        self.left.remove(key);
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
