//! Identities of members that a service lost a moment ago.
//!
//! A service's accepted identities are part of its cluster, its members of its endpoints. Between
//! the two updates a proxy dials earlier members with the later identities. So the earlier ones
//! stay accepted for a while: two ages, of which each [`Leaving::age`] is one.

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
    /// Compares the identities of a service's members now with those before; returns those that
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

    /// Time has passed. The services of which an identity is removed for it.
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
