//! The connected nodes, and what each accepted: for the API.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Instant;

use super::node::AuthorisedNode;
use super::session::KindStatus;
use super::subscription::ProtocolVariant;
use crate::identity::VerifiedPeer;

/// One open ADS stream.
#[derive(Clone, Debug)]
pub struct Stream {
    pub node: AuthorisedNode,
    pub protocol: ProtocolVariant,
    pub verified: Option<VerifiedPeer>,
    pub since: Instant,
    pub kinds: Vec<KindStatus>,
}

#[derive(Default)]
pub struct Registry {
    streams: Mutex<HashMap<u64, Stream>>,
    next: AtomicU64,
}

impl Registry {
    fn streams(&self) -> MutexGuard<'_, HashMap<u64, Stream>> {
        self.streams
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    pub(super) fn connect(self: &Arc<Self>, stream: Stream) -> StreamEntry {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        self.streams().insert(id, stream);
        StreamEntry {
            registry: Arc::clone(self),
            id,
        }
    }

    /// How many are open.
    pub fn count(&self) -> usize {
        self.streams().len()
    }

    /// Those of nodes that match.
    pub fn of(&self, shown: impl Fn(&AuthorisedNode) -> bool) -> Vec<Stream> {
        let streams = self.streams();
        let of = streams.values().filter(|stream| shown(&stream.node));
        of.cloned().collect()
    }
}

/// A stream's entry in the registry; removed when dropped.
pub(super) struct StreamEntry {
    registry: Arc<Registry>,
    id: u64,
}

impl StreamEntry {
    pub(super) fn update(&self, kinds: Vec<KindStatus>) {
        if let Some(stream) = self.registry.streams().get_mut(&self.id) {
            stream.kinds = kinds;
        }
    }
}

impl Drop for StreamEntry {
    fn drop(&mut self) {
        self.registry.streams().remove(&self.id);
    }
}
