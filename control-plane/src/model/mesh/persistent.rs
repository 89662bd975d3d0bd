//! A map that is cheap to copy and to change afterwards: copies share what none of them changed.
//!
//! A tree of fixed depth over the hash of a key: a root of branches of buckets. A change copies the
//! root, one branch and one bucket, a few hundred pointers for any size that a mesh has.

use std::borrow::Borrow;
use std::fmt;
use std::hash::{BuildHasher, Hash, RandomState};
use std::sync::Arc;

/// Branches of the root, and buckets of a branch.
const FANOUT: usize = 64;

type MapBucket<K, V> = Vec<Arc<(K, V)>>;
type Branch<K, V> = Vec<Arc<MapBucket<K, V>>>;

/// See the module. Iteration is in no order.
pub struct Map<K, V> {
    /// Empty, or of `FANOUT` branches.
    root: Arc<Vec<Arc<Branch<K, V>>>>,
    len: usize,
    hasher: RandomState,
}

impl<K, V> Default for Map<K, V> {
    fn default() -> Self {
        Map {
            root: Arc::default(),
            len: 0,
            hasher: RandomState::new(),
        }
    }
}

impl<K, V> Clone for Map<K, V> {
    fn clone(&self) -> Self {
        Map {
            root: Arc::clone(&self.root),
            len: self.len,
            hasher: self.hasher.clone(),
        }
    }
}

impl<K, V> Map<K, V> {
    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        let buckets = self.root.iter().flat_map(|branch| branch.iter());
        buckets
            .flat_map(|bucket| bucket.iter())
            .map(|pair| (&pair.0, &pair.1))
    }

    pub fn keys(&self) -> impl Iterator<Item = &K> {
        self.iter().map(|(key, _)| key)
    }

    pub fn values(&self) -> impl Iterator<Item = &V> {
        self.iter().map(|(_, value)| value)
    }
}

impl<K: Hash + Eq, V> Map<K, V> {
    pub fn get<Q>(&self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        let (branch, bucket) = self.place(key);
        let bucket = self.root.get(branch)?.get(bucket)?;
        let pair = bucket.iter().find(|pair| is(pair, key))?;
        Some(&pair.1)
    }

    pub fn contains_key<Q>(&self, key: &Q) -> bool
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        self.get(key).is_some()
    }

    pub fn insert(&mut self, key: K, value: V) {
        let (branch, place) = self.place(&key);
        if self.root.is_empty() {
            let branch: Arc<Branch<K, V>> = Arc::new(vec![Arc::default(); FANOUT]);
            self.root = Arc::new(vec![branch; FANOUT]);
        }
        let bucket = self.bucket(branch, place);
        let pair = Arc::new((key, value));
        match bucket.iter_mut().find(|other| other.0 == pair.0) {
            Some(other) => *other = pair,
            None => {
                bucket.push(pair);
                self.len += 1;
            }
        }
    }

    /// Whether it was there.
    pub fn remove<Q>(&mut self, key: &Q) -> bool
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        if !self.contains_key(key) {
            return false;
        }
        let (branch, place) = self.place(key);
        self.bucket(branch, place).retain(|pair| !is(pair, key));
        self.len -= 1;
        true
    }

    /// `None` removes.
    pub fn set(&mut self, key: K, value: Option<V>) {
        match value {
            Some(value) => self.insert(key, value),
            None => {
                self.remove(&key);
            }
        }
    }

    /// As [`Map::set`]; whether that changes anything.
    pub fn replace(&mut self, key: K, value: Option<V>) -> bool
    where
        V: PartialEq,
    {
        let differs = self.get(&key) != value.as_ref();
        if differs {
            self.set(key, value);
        }
        differs
    }

    /// The bucket of a place in a root that is not empty, this map's own.
    fn bucket(&mut self, branch: usize, place: usize) -> &mut MapBucket<K, V> {
        let root = Arc::make_mut(&mut self.root);
        let branch = Arc::make_mut(&mut root[branch]);
        Arc::make_mut(&mut branch[place])
    }

    fn place<Q: Hash + ?Sized>(&self, key: &Q) -> (usize, usize) {
        let hash = self.hasher.hash_one(key) as usize;
        (hash % FANOUT, hash / FANOUT % FANOUT)
    }
}

fn is<K: Borrow<Q>, V, Q: Eq + ?Sized>(pair: &(K, V), key: &Q) -> bool {
    let held: &Q = pair.0.borrow();
    held == key
}

impl<K: Hash + Eq, V: PartialEq> PartialEq for Map<K, V> {
    fn eq(&self, other: &Self) -> bool {
        let same = |(key, value): (&K, &V)| other.get(key) == Some(value);
        self.len == other.len && self.iter().all(same)
    }
}

impl<K: fmt::Debug, V: fmt::Debug> fmt::Debug for Map<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_copy_stays_as_it_was_and_the_map_is_as_a_plain_one(
            steps in prop::collection::vec((any::<u8>(), prop::option::of(any::<u16>())), 0..200),
        ) {
            let mut map: Map<String, u16> = Map::default();
            let mut plain = BTreeMap::new();
            let mut copies = Vec::new();
            for (key, value) in steps {
                let key = key.to_string();
                copies.push((map.clone(), plain.clone()));
                map.set(key.clone(), value);
                match value {
                    Some(value) => plain.insert(key, value),
                    None => plain.remove(&key),
                };
            }
            copies.push((map, plain));
            for (map, plain) in &copies {
                let all: BTreeMap<_, _> = map.iter().map(|(k, v)| (k.clone(), *v)).collect();
                prop_assert_eq!(&all, plain);
                prop_assert_eq!(map.len(), plain.len());
                prop_assert!(plain.iter().all(|(k, v)| map.get(k.as_str()) == Some(v)));
            }
            for (one, other) in copies.iter().zip(copies.iter().skip(1)) {
                prop_assert_eq!(one.0 == other.0, one.1 == other.1);
            }
        }
    }
}
