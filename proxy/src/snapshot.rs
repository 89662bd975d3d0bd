//! The snapshot and the store that publishes it.

use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwap;
use persistent::Map;
use tokio::sync::watch;

use crate::config::Name;
use crate::config::endpoint::Workload;
use crate::config::listener::{ListenerDef, ListenerKey};
use crate::config::route::RouteTable;
use crate::config::secret::Secret;
use crate::drain::RemovedListeners;
use crate::upstream::cluster::Cluster;

/// Everything the proxy runs by, at one instant. Never changed after it is published.
///
/// A connection takes one snapshot once its destination is known; each HTTP request takes one,
/// retries included. Tables share with those of the snapshot before what did not change.
#[derive(Default)]
pub struct Snapshot {
    /// Counts up by one with each published snapshot.
    pub generation: u64,
    pub listeners: Map<Name, Arc<Listener>>,
    /// Listeners by their sockets, bound or not: where `use_original_dst` hands connections to.
    pub by_socket: Map<ListenerKey, Arc<Listener>>,
    /// Listeners that are gone and whose connections drain.
    pub removed: Arc<RemovedListeners>,
    pub routes: Map<Name, Arc<RouteConfig>>,
    pub clusters: Map<Name, Arc<Cluster>>,
    pub secrets: Map<Name, Arc<Secret>>,
    /// Peers by address, for source labels; filled on demand.
    pub workloads: Map<IpAddr, Arc<Workload>>,
}

/// A by-name reference, resolved when the snapshot was linked. `None`: the target is not (yet)
/// known, which fails the request with `NC`, never in silence.
pub struct Link<T> {
    pub name: Name,
    pub target: Option<Arc<T>>,
}

impl<T> Clone for Link<T> {
    fn clone(&self) -> Self {
        Self {
            name: self.name.clone(),
            target: self.target.clone(),
        }
    }
}

/// Clusters that one route configuration or listener refers to. Relinking copies this small
/// table, not the matchers that index it.
pub type ClusterLinks = Box<[Link<Cluster>]>;
/// Route configurations that one listener refers to.
pub type RouteLinks = Box<[RouteLink]>;

/// Where a connection manager's routes come from.
#[derive(Clone)]
pub enum RouteLink {
    /// They stand in the listener itself.
    Inline(Arc<RouteConfig>),
    /// RDS.
    Named(Link<RouteConfig>),
}

impl RouteLink {
    /// `None`: not (yet) known.
    pub fn target(&self) -> Option<&Arc<RouteConfig>> {
        match self {
            Self::Inline(routes) => Some(routes),
            Self::Named(link) => link.target.as_ref(),
        }
    }
}

/// envoy.config.listener.v3.Listener, compiled and linked.
pub struct Listener {
    pub def: Arc<ListenerDef>,
    /// What the chains' [`ClusterRef`](crate::config::ClusterRef)s index.
    pub clusters: ClusterLinks,
    /// What the chains' [`RouteRef`](crate::config::RouteRef)s index, inline ones among them.
    pub routes: RouteLinks,
}

/// envoy.config.route.v3.RouteConfiguration, compiled and linked.
pub struct RouteConfig {
    pub table: Arc<RouteTable>,
    /// What [`ClusterRef`](crate::config::ClusterRef)s of the table index.
    pub clusters: ClusterLinks,
}

/// Publishes snapshots: one writer (the control thread), any number of readers.
pub struct Store {
    current: ArcSwap<Snapshot>,
    /// Of `current`, or of its predecessor for a moment.
    generation: AtomicU64,
    changed: watch::Sender<u64>,
    /// The last generation that each follower has applied.
    followers: Mutex<Vec<watch::Receiver<u64>>>,
}

/// A consumer that applies snapshots at its own pace, as a worker that opens sockets, and
/// acknowledges the last generation it has applied.
pub struct Follower {
    changes: watch::Receiver<u64>,
    applied: watch::Sender<u64>,
}

impl Follower {
    /// Waits for another snapshot; `Err`: there will be none.
    ///
    /// # Errors
    /// When the store is gone.
    pub async fn changed(&mut self) -> Result<(), watch::error::RecvError> {
        self.changes.changed().await
    }

    /// Acknowledges that everything up to this generation is applied.
    pub fn applied(&self, generation: u64) {
        self.applied.send_replace(generation);
    }
}

impl Store {
    pub fn new(first: Snapshot) -> Self {
        let (changed, _) = watch::channel(first.generation);
        Self {
            generation: AtomicU64::new(first.generation),
            current: ArcSwap::from_pointee(first),
            changed,
            followers: Mutex::default(),
        }
    }

    /// The current snapshot, kept for as long as the caller holds it.
    pub fn load(&self) -> Arc<Snapshot> {
        self.current.load_full()
    }

    /// The current snapshot, without a change of its reference count.
    pub fn borrow(&self) -> arc_swap::Guard<Arc<Snapshot>> {
        self.current.load()
    }

    /// The current snapshot's generation: what a request looks at to see whether its connection's
    /// look-ups still hold.
    #[inline]
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// Publishes `next`. Readers see it at once; [`Store::subscribe`]rs are woken.
    pub fn publish(&self, next: Snapshot) {
        let generation = next.generation;
        self.current.store(Arc::new(next));
        self.generation.store(generation, Ordering::Release);
        self.changed.send_replace(generation);
    }

    /// Wakes subscribers although the snapshot stays the same: something that it points to, such as
    /// a trust bundle, was replaced.
    pub fn notify(&self) {
        self.changed.send_modify(|_| {});
    }

    /// A follower that [`Store::all_applied`] waits for until it is dropped.
    pub fn follow(&self) -> Follower {
        let (applied, watched) = watch::channel(0);
        self.followers().push(watched);
        Follower {
            changes: self.subscribe(),
            applied,
        }
    }

    /// Waits until every follower has applied the current snapshot.
    pub async fn all_applied(&self) {
        let generation = self.borrow().generation;
        let followers = self.followers().clone();
        for mut follower in followers {
            // One that is gone has nothing left to do.
            let _ = follower.wait_for(|applied| *applied >= generation).await;
        }
    }

    fn followers(&self) -> MutexGuard<'_, Vec<watch::Receiver<u64>>> {
        let followers = self.followers.lock();
        followers.unwrap_or_else(PoisonError::into_inner)
    }

    /// Wakes with each new generation.
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }
}
