//! Encoded resources that were subscribed to: shared by all states, bounded in bytes.
//!
//! A change takes out what it touches; the rest stays where it is, whatever its number. A state older
//! than the newest one reads what has not changed since, and adds nothing. When the bound is reached,
//! the entries that were not read since the hand last passed them go first (second chance).

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use xds_proto::type_url;

use super::naming;
use super::resource::{self, Variant};
use crate::ads::resources::{Marks, Names, NodeMarks, Resource, Touched};
use crate::model::Key;

/// What an entry takes beside its bytes and its name, roughly.
const OVERHEAD: usize = 400;

/// See the module.
pub struct Cache {
    held: RwLock<Held>,
    max_bytes: usize,
}

#[derive(Default)]
struct Held {
    /// Of the newest state.
    generation: u64,
    bytes: usize,
    slots: Vec<Option<Slot>>,
    free: Vec<usize>,
    /// Where the search for the next entry to evict continues.
    hand: usize,
    /// Slots by workload (`None`: not one proxy's own), type and name.
    places: HashMap<Option<Key>, ByType>,
    /// Types and names that stand for an address.
    by_address: HashMap<IpAddr, HashSet<Named>>,
}

/// A type URL and a name.
type Named = (Arc<str>, Arc<str>);
type ByType = HashMap<Arc<str>, HashMap<Arc<str>, Vec<usize>>>;

struct Slot {
    kind: Arc<str>,
    variant: Variant,
    resource: Resource,
    /// The generation of the state it was made for.
    since: u64,
    /// Whether it was read since the hand last passed.
    read: AtomicBool,
}

impl Slot {
    fn bytes_of(resource: &Resource) -> usize {
        resource.body.len() + resource.name.len() + OVERHEAD
    }
}

impl Cache {
    pub fn new(max_bytes: usize) -> Self {
        Cache {
            held: RwLock::default(),
            max_bytes,
        }
    }

    /// What a state of `generation` may use.
    pub fn get(
        &self,
        generation: u64,
        kind: &str,
        name: &str,
        variant: &Variant,
    ) -> Option<Resource> {
        let held = self.held.read().unwrap_or_else(PoisonError::into_inner);
        let slot = held.slots[held.find(kind, name, variant)?].as_ref()?;
        if slot.since > generation {
            return None;
        }
        slot.read.store(true, Ordering::Relaxed);
        Some(slot.resource.clone())
    }

    /// Keeps what the state of `generation` made, unless there is a newer one. Gives what is kept:
    /// the first of several that are made at once, so that equal content is one allocation.
    pub fn keep(
        &self,
        generation: u64,
        kind: &str,
        variant: Variant,
        resource: Resource,
    ) -> Resource {
        let mut held = self.held.write().unwrap_or_else(PoisonError::into_inner);
        if held.generation != generation {
            return resource;
        }
        let known = held.find(kind, &resource.name, &variant);
        if let Some(slot) = known.and_then(|at| held.slots[at].as_ref()) {
            return slot.resource.clone();
        }
        if Slot::bytes_of(&resource) > self.max_bytes {
            return resource;
        }
        held.insert(kind, variant, resource.clone());
        while held.bytes > self.max_bytes && held.evict() {}
        resource
    }

    /// A state of `generation` is about to be the newest; it differs in what is `touched`.
    pub fn advance(&self, generation: u64, touched: &Touched) {
        let mut held = self.held.write().unwrap_or_else(PoisonError::into_inner);
        match touched {
            Touched::All => *held = Held::default(),
            Touched::Some(marks) => held.drop_marked(marks),
        }
        held.generation = generation;
    }
}

impl Held {
    fn find(&self, kind: &str, name: &str, variant: &Variant) -> Option<usize> {
        let node = variant.node().cloned();
        let slots = self.places.get(&node)?.get(kind)?.get(name)?;
        let is = |at: &&usize| {
            let slot = self.slots[**at].as_ref();
            slot.is_some_and(|slot| slot.variant == *variant)
        };
        slots.iter().find(is).copied()
    }

    fn insert(&mut self, kind: &str, variant: Variant, resource: Resource) {
        let place = self.places.entry(variant.node().cloned()).or_default();
        let known = place.get_key_value(kind).map(|(kind, _)| Arc::clone(kind));
        let kind = known.unwrap_or_else(|| kind.into());
        let names = place.entry(Arc::clone(&kind)).or_default();
        let slot = Slot {
            variant,
            since: self.generation,
            read: AtomicBool::new(false),
            kind,
            resource,
        };
        self.bytes += Slot::bytes_of(&slot.resource);
        if let Some(ip) = resource::address(&slot.kind, &slot.resource.name) {
            let name = (Arc::clone(&slot.kind), Arc::clone(&slot.resource.name));
            self.by_address.entry(ip).or_default().insert(name);
        }
        let name = Arc::clone(&slot.resource.name);
        let at = match self.free.pop() {
            Some(at) => {
                self.slots[at] = Some(slot);
                at
            }
            None => {
                self.slots.push(Some(slot));
                self.slots.len() - 1
            }
        };
        names.entry(name).or_default().push(at);
    }

    fn remove(&mut self, at: usize) {
        let Some(slot) = self.slots[at].take() else {
            return;
        };
        self.free.push(at);
        self.bytes -= Slot::bytes_of(&slot.resource);
        let (kind, name) = (&slot.kind, &slot.resource.name);
        let node = slot.variant.node().cloned();
        let Some(place) = self.places.get_mut(&node) else {
            return;
        };
        let Some(names) = place.get_mut(kind) else {
            return;
        };
        if let Some(slots) = names.get_mut(name) {
            slots.retain(|other| *other != at);
            if !slots.is_empty() {
                return;
            }
        }
        names.remove(name);
        if names.is_empty() {
            place.remove(kind);
        }
        if place.is_empty() {
            self.places.remove(&node);
        }
        if let Some(ip) = resource::address(kind, name)
            && let Some(names) = self.by_address.get_mut(&ip)
        {
            names.remove(&(Arc::clone(kind), Arc::clone(name)));
            if names.is_empty() {
                self.by_address.remove(&ip);
            }
        }
    }

    /// Lets go of one entry. False: there is none.
    fn evict(&mut self) -> bool {
        if self.free.len() == self.slots.len() {
            return false;
        }
        loop {
            let at = self.hand % self.slots.len();
            self.hand = at + 1;
            let slot = self.slots[at].as_mut();
            // A second chance for what was read since the hand came by.
            if slot.is_some_and(|slot| !std::mem::take(slot.read.get_mut())) {
                self.remove(at);
                return true;
            }
        }
    }

    fn drop_marked(&mut self, marks: &Marks) {
        self.drop_names(&None, &marks.names);
        for ip in &marks.addresses {
            for (kind, name) in self.by_address.get(ip).cloned().into_iter().flatten() {
                self.drop_name(&None, &kind, &name);
            }
        }
        for (node, own) in &marks.nodes {
            let node = Some(node.clone());
            match own {
                NodeMarks::Names(names) => self.drop_names(&node, names),
                NodeMarks::All => self.drop_place(&node),
            }
        }
        // Each proxy has its own of this one.
        if marks.names.contains(type_url::LISTENER, naming::INBOUND) {
            let nodes: Vec<_> = self
                .places
                .keys()
                .filter(|node| node.is_some())
                .cloned()
                .collect();
            for node in nodes {
                self.drop_names(&node, &marks.names);
            }
        }
    }

    fn drop_names(&mut self, node: &Option<Key>, names: &Names) {
        for (kind, names) in &names.0 {
            for name in names {
                self.drop_name(node, kind, name);
            }
        }
    }

    fn drop_name(&mut self, node: &Option<Key>, kind: &str, name: &str) {
        let place = self.places.get(node).and_then(|place| place.get(kind));
        let slots = place.and_then(|names| names.get(name)).cloned();
        for at in slots.into_iter().flatten() {
            self.remove(at);
        }
    }

    fn drop_place(&mut self, node: &Option<Key>) {
        let place = self.places.get(node).into_iter().flat_map(HashMap::values);
        let slots: Vec<usize> = place.flat_map(HashMap::values).flatten().copied().collect();
        for at in slots {
            self.remove(at);
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use xds_proto::type_url::{CLUSTER, LISTENER};

    use super::*;
    use crate::translate::naming::INBOUND;

    fn resource(name: &str, size: usize) -> Resource {
        Resource {
            name: name.into(),
            version: "1".into(),
            body: Bytes::from(vec![0; size]),
        }
    }

    fn own(workload: &str) -> Variant {
        Variant::own(Key::new("shop", workload))
    }

    fn bytes(cache: &Cache) -> usize {
        cache.held.read().unwrap().bytes
    }

    #[test]
    fn a_change_takes_out_what_it_touches_and_older_states_never_see_newer_content() {
        let cache = Cache::new(1 << 20);
        let keep = |generation, kind, name, variant| {
            cache.keep(generation, kind, variant, resource(name, 10));
        };
        let has = |generation, kind, name, variant: &Variant| {
            cache.get(generation, kind, name, variant).is_some()
        };
        keep(0, CLUSTER, "a", Variant::All);
        keep(0, CLUSTER, "outbound|70||10.0.0.1", Variant::All);
        keep(0, LISTENER, INBOUND, own("web"));
        keep(0, LISTENER, INBOUND, own("cart"));
        keep(0, LISTENER, "outbound", own("cart"));
        let mut marks = Marks::default();
        marks.addresses.insert([10, 0, 0, 1].into());
        let mut names = NodeMarks::default();
        names.add(LISTENER, INBOUND);
        marks.nodes.insert(Key::new("shop", "web"), names);
        cache.advance(1, &Touched::Some(marks));
        assert!(has(0, CLUSTER, "a", &Variant::All) && has(1, CLUSTER, "a", &Variant::All));
        assert!(!has(1, CLUSTER, "outbound|70||10.0.0.1", &Variant::All));
        assert!(!has(1, LISTENER, INBOUND, &own("web")));
        assert!(has(1, LISTENER, INBOUND, &own("cart")));
        keep(0, LISTENER, INBOUND, own("web"));
        assert!(!has(1, LISTENER, INBOUND, &own("web")), "of an old state");
        keep(1, LISTENER, INBOUND, own("web"));
        assert!(!has(0, LISTENER, INBOUND, &own("web")), "of a newer state");

        let mut marks = Marks::default();
        marks.names.add(LISTENER, INBOUND);
        cache.advance(2, &Touched::Some(marks));
        assert!(
            !has(2, LISTENER, INBOUND, &own("web")) && !has(2, LISTENER, INBOUND, &own("cart"))
        );
        assert!(has(2, LISTENER, "outbound", &own("cart")));
        let all = NodeMarks::All;
        let nodes = HashMap::from([(Key::new("shop", "cart"), all)]);
        cache.advance(
            3,
            &Touched::Some(Marks {
                nodes,
                ..Marks::default()
            }),
        );
        assert!(!has(3, LISTENER, "outbound", &own("cart")));
        assert_eq!(bytes(&cache), resource("a", 10).body.len() + 1 + OVERHEAD);
        cache.advance(4, &Touched::All);
        assert_eq!(bytes(&cache), 0);
    }

    #[test]
    fn bytes_are_bounded_and_what_is_read_stays() {
        let max = 100 * (1000 + OVERHEAD);
        let cache = Cache::new(max);
        let name = |n: usize| format!("n{n:04}");
        for n in 0..5000 {
            cache.keep(0, CLUSTER, Variant::All, resource(&name(n % 3000), 1000));
            assert!(bytes(&cache) <= max);
            assert!(cache.get(0, CLUSTER, &name(0), &Variant::All).is_some());
        }
        let kept = (0..3000).filter(|n| {
            let held = cache.held.read().unwrap();
            held.find(CLUSTER, &name(*n), &Variant::All).is_some()
        });
        assert!((90..=100).contains(&kept.count()));
        // Larger than all of it: answered, and not kept.
        cache.keep(0, CLUSTER, Variant::All, resource("large", 2 * max));
        assert!(cache.get(0, CLUSTER, "large", &Variant::All).is_none());
        assert!(bytes(&cache) <= max);
        let held = cache.held.read().unwrap();
        assert_eq!(held.by_address.len(), 0);
    }
}
