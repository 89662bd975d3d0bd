//! A map that is cheap to copy and to change afterwards: copies share what none of them changed.
//!
//! A tree of fixed depth over the hash of a key: a root of branches of buckets. A change copies the
//! root, one branch and one bucket, a few hundred pointers for any size that a mesh has. A look-up
//! allocates nothing.
//!
//! The control plane's mesh and the proxy's snapshot are made of such maps. The crates that offer one
//! (imbl, rpds) cannot tell what differs between two copies at the cost of what differs.

use std::borrow::Borrow;
use std::fmt;
use std::hash::{BuildHasher, Hash, RandomState};
use std::ops::Index;
use std::sync::{Arc, LazyLock};

/// Branches of the root, and buckets of a branch.
const FANOUT: usize = 64;

/// One for all maps, so that two of them have a key in the same place.
static HASHER: LazyLock<RandomState> = LazyLock::new(RandomState::new);

type Entry<K, V> = Arc<(K, V)>;
type MapBucket<K, V> = Vec<Entry<K, V>>;
type Branch<K, V> = Vec<Arc<MapBucket<K, V>>>;
/// What a place has in each of two maps.
type Pairs<'a, K, V> = (&'a [Entry<K, V>], &'a [Entry<K, V>]);

/// See the crate. Iteration is in no order.
pub struct Map<K, V> {
    /// Empty, or of `FANOUT` branches.
    root: Arc<Vec<Arc<Branch<K, V>>>>,
    len: usize,
}

impl<K, V> Default for Map<K, V> {
    fn default() -> Self {
        Map {
            root: Arc::default(),
            len: 0,
        }
    }
}

impl<K, V> Clone for Map<K, V> {
    fn clone(&self) -> Self {
        Map {
            root: Arc::clone(&self.root),
            len: self.len,
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

    /// Whether they are copies that share everything. Entries are not compared.
    pub fn ptr_eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.root, &other.root)
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

    /// The buckets of both that they do not share, pairwise.
    fn unshared<'a>(&'a self, other: &'a Self) -> impl Iterator<Item = Pairs<'a, K, V>> {
        let places = if self.ptr_eq(other) { 0 } else { FANOUT };
        (0..places)
            .map(|at| (self.root.get(at), other.root.get(at)))
            .filter(|(one, other)| !is_shared(*one, *other))
            .flat_map(|(one, other)| {
                let bucket = |of: Option<&'a Arc<Branch<K, V>>>, at| of.and_then(|of| of.get(at));
                (0..FANOUT).map(move |at| (bucket(one, at), bucket(other, at)))
            })
            .filter(|(one, other)| !is_shared(*one, *other))
            .map(|(one, other)| {
                let entries = |of: Option<&'a Arc<MapBucket<K, V>>>| of.map_or(&[][..], |of| of);
                (entries(one), entries(other))
            })
    }
}

/// Whether they are one, or both absent.
fn is_shared<T>(one: Option<&Arc<T>>, other: Option<&Arc<T>>) -> bool {
    match (one, other) {
        (Some(one), Some(other)) => Arc::ptr_eq(one, other),
        (one, other) => one.is_none() && other.is_none(),
    }
}

impl<K: Hash + Eq, V> Map<K, V> {
    pub fn get<Q>(&self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        let (branch, bucket) = place(key);
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
        let (branch, place) = place(&key);
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
        let (branch, place) = place(key);
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

    /// What was set since `before`, a copy, and what was removed since (`None`), at the cost of that.
    /// What was set to an equal value is among it.
    pub fn changes<'a>(&'a self, before: &'a Self) -> impl Iterator<Item = (&'a K, Option<&'a V>)> {
        self.unshared(before).flat_map(|(now, before)| {
            let set = now
                .iter()
                .filter(|pair| !before.iter().any(|other| Arc::ptr_eq(pair, other)));
            let removed = before
                .iter()
                .filter(|pair| !now.iter().any(|other| other.0 == pair.0));
            let set = set.map(|pair| (&pair.0, Some(&pair.1)));
            set.chain(removed.map(|pair| (&pair.0, None)))
        })
    }

    /// The bucket of a place in a root that is not empty, this map's own.
    fn bucket(&mut self, branch: usize, place: usize) -> &mut MapBucket<K, V> {
        let root = Arc::make_mut(&mut self.root);
        let branch = Arc::make_mut(&mut root[branch]);
        Arc::make_mut(&mut branch[place])
    }
}

/// The branch of a key, and its bucket there.
fn place<Q: Hash + ?Sized>(key: &Q) -> (usize, usize) {
    let hash = HASHER.hash_one(key) as usize;
    (hash % FANOUT, hash / FANOUT % FANOUT)
}

fn is<K: Borrow<Q>, V, Q: Eq + ?Sized>(pair: &(K, V), key: &Q) -> bool {
    let held: &Q = pair.0.borrow();
    held == key
}

impl<K: Hash + Eq, V> Extend<(K, V)> for Map<K, V> {
    fn extend<I: IntoIterator<Item = (K, V)>>(&mut self, pairs: I) {
        for (key, value) in pairs {
            self.insert(key, value);
        }
    }
}

impl<K: Hash + Eq, V> FromIterator<(K, V)> for Map<K, V> {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(pairs: I) -> Self {
        let mut map = Map::default();
        map.extend(pairs);
        map
    }
}

impl<K: Hash + Eq, V, const N: usize> From<[(K, V); N]> for Map<K, V> {
    fn from(pairs: [(K, V); N]) -> Self {
        pairs.into_iter().collect()
    }
}

/// As of the standard library's maps: panics where the key is missing.
impl<K, V, Q> Index<&Q> for Map<K, V>
where
    K: Hash + Eq + Borrow<Q>,
    Q: Hash + Eq + ?Sized,
{
    type Output = V;

    fn index(&self, key: &Q) -> &V {
        match self.get(key) {
            Some(value) => value,
            None => panic!("the key is missing"),
        }
    }
}

/// Compares what the two do not share.
impl<K: Hash + Eq, V: PartialEq> PartialEq for Map<K, V> {
    fn eq(&self, other: &Self) -> bool {
        let same = |(key, value): (&K, Option<&V>)| value.is_some() && other.get(key) == value;
        self.len == other.len && self.changes(other).all(same)
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

    type Plain = BTreeMap<String, u16>;

    /// What differs between two maps, value by value.
    fn differing(now: &Plain, before: &Plain) -> BTreeMap<String, Option<u16>> {
        let keys = now.keys().chain(before.keys());
        let changed = keys.filter(|key| now.get(*key) != before.get(*key));
        changed
            .map(|key| (key.clone(), now.get(key).copied()))
            .collect()
    }

    proptest! {
        #[test]
        fn a_copy_stays_as_it_was_and_the_map_is_as_a_plain_one(
            steps in prop::collection::vec((any::<u8>(), prop::option::of(any::<u16>())), 0..200),
        ) {
            let mut map: Map<String, u16> = Map::default();
            let mut plain = Plain::new();
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
            let last = copies.last().unwrap();
            for one in &copies {
                prop_assert_eq!(one.0 == last.0, one.1 == last.1);
                let changes: BTreeMap<_, _> = last
                    .0
                    .changes(&one.0)
                    .map(|(key, value)| (key.clone(), value.copied()))
                    .collect();
                for (key, value) in differing(&last.1, &one.1) {
                    prop_assert_eq!(changes.get(&key), Some(&value));
                }
                for (key, value) in changes {
                    prop_assert_eq!(value, last.1.get(&key).copied());
                }
            }
        }
    }

    #[test]
    fn a_change_copies_one_bucket_among_thousands() {
        let before: Map<u32, u32> = (0..10_000).map(|at| (at, at)).collect();
        let mut after = before.clone();
        assert!(after.ptr_eq(&before) && after.changes(&before).next().is_none());
        after.insert(7, 0);
        assert_eq!(after.unshared(&before).count(), 1);
        assert_eq!(after.changes(&before).collect::<Vec<_>>(), [(&7, Some(&0))]);
        after.remove(&7);
        assert_eq!(after.unshared(&before).count(), 1);
        assert_eq!(after.changes(&before).collect::<Vec<_>>(), [(&7, None)]);
        assert_eq!(after.changes(&Map::default()).count(), 9_999);
        assert_ne!(after, before);
        after.insert(7, 7);
        assert_eq!(after, before);
    }
}
