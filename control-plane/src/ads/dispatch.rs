//! The streams that a change wakes: by what they subscribe to.
//!
//! A stream enters its subscriptions and takes a view afterwards, so that no change falls between.
//! A change then costs the streams that it touches, whatever the number of others.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::resources::{Marks, Touched, View};
use crate::model::Key;

/// A change of what a stream subscribes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Interest {
    pub(super) type_url: Arc<str>,
    /// `None`: everything of the type.
    pub(super) name: Option<Arc<str>>,
    /// Whether it begins; else it ends.
    pub(super) begins: bool,
}

/// All streams.
#[derive(Default)]
pub(super) struct Dispatch {
    streams: Mutex<Streams>,
    /// Up to this generation all streams concerned were woken.
    done: AtomicU64,
}

#[derive(Default)]
struct Streams {
    next: u64,
    wakes: HashMap<u64, Arc<Wake>>,
    by_node: HashMap<Key, HashSet<u64>>,
    /// Subscribed to everything of a type.
    by_type: HashMap<Arc<str>, HashSet<u64>>,
    by_name: HashMap<Arc<str>, HashMap<Arc<str>, HashSet<u64>>>,
    /// With the number of names that a stream subscribes to of an address.
    by_address: HashMap<IpAddr, HashMap<u64, usize>>,
}

#[derive(Default)]
struct Wake {
    notify: Notify,
    /// The generation before the first change that the stream has not looked at.
    since: Mutex<Option<u64>>,
}

/// A type URL, and a name or (`None`) everything of the type.
type SubscribedName = (Arc<str>, Option<Arc<str>>);

/// One stream's place; left when dropped.
pub(super) struct Subscriber {
    dispatch: Arc<Dispatch>,
    id: u64,
    node: Key,
    wake: Arc<Wake>,
    /// Its subscriptions, with the address that a name stands for.
    wanted: HashMap<SubscribedName, Option<IpAddr>>,
}

impl Dispatch {
    fn streams(&self) -> MutexGuard<'_, Streams> {
        self.streams.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn join(self: &Arc<Self>, node: Key) -> Subscriber {
        let wake = Arc::new(Wake::default());
        let mut streams = self.streams();
        let id = streams.next;
        streams.next = streams.next.wrapping_add(1);
        streams.wakes.insert(id, Arc::clone(&wake));
        let nodes = streams.by_node.entry(node.clone()).or_default();
        nodes.insert(id);
        drop(streams);
        Subscriber {
            dispatch: Arc::clone(self),
            id,
            node,
            wake,
            wanted: HashMap::new(),
        }
    }

    /// Wakes the streams that a change from one generation to another touches.
    pub(super) fn wake(&self, (from, to): (u64, u64), touched: &Touched) {
        let streams = self.streams();
        let wakes: Vec<&Arc<Wake>> = match touched {
            Touched::All => streams.wakes.values().collect(),
            Touched::Some(marks) => {
                let ids = streams.touched(marks).into_iter();
                ids.filter_map(|id| streams.wakes.get(&id)).collect()
            }
        };
        for wake in wakes {
            wake.since().get_or_insert(from);
            wake.notify.notify_one();
        }
        drop(streams);
        self.done.store(to, Ordering::Release);
    }
}

impl Streams {
    fn touched(&self, marks: &Marks) -> HashSet<u64> {
        let mut all = HashSet::new();
        for (type_url, names) in &marks.names.0 {
            all.extend(self.by_type.get(&**type_url).into_iter().flatten());
            if let Some(by_name) = self.by_name.get(&**type_url) {
                let streams = names.iter().filter_map(|name| by_name.get(name));
                all.extend(streams.flatten());
            }
        }
        let addresses = marks.addresses.iter();
        let addressed = addresses.filter_map(|ip| self.by_address.get(ip));
        all.extend(addressed.flat_map(HashMap::keys));
        let nodes = marks.nodes.keys().filter_map(|node| self.by_node.get(node));
        all.extend(nodes.flatten());
        all
    }

    fn enter(&mut self, id: u64, type_url: &Arc<str>, name: Option<&Arc<str>>) {
        let streams = match name {
            None => self.by_type.entry(Arc::clone(type_url)).or_default(),
            Some(name) => {
                let names = self.by_name.entry(Arc::clone(type_url)).or_default();
                names.entry(Arc::clone(name)).or_default()
            }
        };
        streams.insert(id);
    }

    fn leave(&mut self, id: u64, type_url: &Arc<str>, name: Option<&Arc<str>>) {
        match name {
            None => take(&mut self.by_type, type_url, id),
            Some(name) => {
                if let Some(names) = self.by_name.get_mut(type_url) {
                    take(names, name, id);
                }
            }
        }
    }

    fn enter_address(&mut self, id: u64, address: IpAddr) {
        let streams = self.by_address.entry(address).or_default();
        let count = streams.entry(id).or_default();
        *count = count.saturating_add(1);
    }

    fn leave_address(&mut self, id: u64, address: IpAddr) {
        let Some(streams) = self.by_address.get_mut(&address) else {
            return;
        };
        if let Some(count) = streams.get_mut(&id) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                streams.remove(&id);
            }
        }
        if streams.is_empty() {
            self.by_address.remove(&address);
        }
    }
}

/// Empty sets are not kept.
fn take<K: std::hash::Hash + Eq>(map: &mut HashMap<K, HashSet<u64>>, key: &K, id: u64) {
    if let Some(streams) = map.get_mut(key) {
        streams.remove(&id);
        if streams.is_empty() {
            map.remove(key);
        }
    }
}

impl Wake {
    fn since(&self) -> MutexGuard<'_, Option<u64>> {
        self.since.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Subscriber {
    /// Waits until something may have changed for this stream.
    pub(super) async fn woken(&self) {
        self.wake.notify.notified().await;
    }

    /// The generation up to which the stream has seen every change that touches it. Resets the wake:
    /// the changes that it was woken for count as seen.
    pub(super) fn clean_until(&self) -> u64 {
        // In this order: changes up to `done` have set `since` already.
        let done = self.dispatch.done.load(Ordering::Acquire);
        self.wake.since().take().unwrap_or(done)
    }

    /// Enters what the stream subscribes to; take a view after it.
    pub(super) fn update(&mut self, interests: Vec<Interest>, view: &dyn View) {
        if interests.is_empty() {
            return;
        }
        let mut streams = self.dispatch.streams();
        for Interest {
            type_url,
            name,
            begins,
        } in interests
        {
            let key = (type_url, name);
            if begins && !self.wanted.contains_key(&key) {
                let (type_url, name) = (&key.0, key.1.as_ref());
                let address = name.and_then(|name| view.address(type_url, name));
                streams.enter(self.id, type_url, name);
                if let Some(address) = address {
                    streams.enter_address(self.id, address);
                }
                self.wanted.insert(key, address);
            } else if !begins && let Some(address) = self.wanted.remove(&key) {
                streams.leave(self.id, &key.0, key.1.as_ref());
                if let Some(address) = address {
                    streams.leave_address(self.id, address);
                }
            }
        }
    }
}

impl Drop for Subscriber {
    fn drop(&mut self) {
        let mut streams = self.dispatch.streams();
        streams.wakes.remove(&self.id);
        take(&mut streams.by_node, &self.node, self.id);
        for ((type_url, name), address) in self.wanted.drain() {
            streams.leave(self.id, &type_url, name.as_ref());
            if let Some(address) = address {
                streams.leave_address(self.id, address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use xds_proto::type_url::{CLUSTER, ENDPOINT, LISTENER};

    use super::*;
    use crate::ads::resources::NodeMarks;
    use crate::ads::testing::Memory;
    use crate::ads::{Resources, Touched};

    fn wants(subscriber: &mut Subscriber, type_url: &str, name: Option<&str>, begins: bool) {
        let interest = Interest {
            type_url: type_url.into(),
            name: name.map(Arc::from),
            begins,
        };
        subscriber.update(vec![interest], &*Memory::new().view());
    }

    fn woken(subscriber: &Subscriber) -> bool {
        subscriber.wake.since().is_some()
    }

    fn marks(type_url: &str, name: &str) -> Touched {
        let mut marks = Marks::default();
        marks.names.add(type_url, name);
        Touched::Some(marks)
    }

    #[test]
    fn a_change_wakes_those_it_touches_and_tells_the_others_that_they_are_clean() {
        let dispatch = Arc::new(Dispatch::default());
        let mut cart = dispatch.join(Key::new("shop", "cart"));
        let mut web = dispatch.join(Key::new("shop", "web"));
        let mut envoy = dispatch.join(Key::new("shop", "envoy"));
        wants(&mut cart, CLUSTER, Some("a"), true);
        wants(&mut cart, LISTENER, Some("ip:10.0.0.1"), true);
        wants(&mut web, CLUSTER, Some("b"), true);
        wants(&mut envoy, CLUSTER, None, true);

        dispatch.wake((1, 2), &marks(CLUSTER, "a"));
        assert!(woken(&cart) && !woken(&web) && woken(&envoy));
        dispatch.wake((2, 3), &marks(CLUSTER, "a"));
        assert_eq!(cart.clean_until(), 1, "the first change not looked at");
        assert_eq!((cart.clean_until(), web.clean_until()), (3, 3));
        assert_eq!(envoy.clean_until(), 1);

        dispatch.wake((3, 4), &marks(ENDPOINT, "a"));
        assert!(!woken(&cart) && !woken(&envoy), "another type");
        let nodes = HashMap::from([(Key::new("shop", "web"), NodeMarks::All)]);
        let own = Marks {
            nodes,
            addresses: HashSet::from([[10, 0, 0, 1].into()]),
            ..Marks::default()
        };
        dispatch.wake((4, 5), &Touched::Some(own.clone()));
        assert!(woken(&cart) && woken(&web) && !woken(&envoy));
        cart.clean_until();
        web.clean_until();
        wants(&mut cart, LISTENER, Some("ip:10.0.0.1"), false);
        dispatch.wake((5, 6), &Touched::Some(own));
        assert!(!woken(&cart) && woken(&web));
        dispatch.wake((6, 7), &Touched::All);
        assert!(woken(&cart) && woken(&envoy));
    }

    #[test]
    fn a_stream_that_left_leaves_nothing_behind() {
        let dispatch = Arc::new(Dispatch::default());
        let mut cart = dispatch.join(Key::new("shop", "cart"));
        wants(&mut cart, CLUSTER, Some("a"), true);
        wants(&mut cart, CLUSTER, None, true);
        wants(&mut cart, LISTENER, Some("ip:10.0.0.1"), true);
        drop(cart);
        let streams = dispatch.streams();
        let names = streams.by_name.values().map(HashMap::len).sum::<usize>();
        let left = [streams.wakes.len(), streams.by_node.len(), names];
        assert_eq!(left, [0; 3]);
        assert!(streams.by_type.is_empty() && streams.by_address.is_empty());
    }
}
