//! Queries of the client: its state, and every resource it holds.

use std::collections::BTreeMap;
use std::time::SystemTime;

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot, watch};

use super::resource_type::{Key, ResourceType};

/// Queries from the admin server and from Inspect.
pub(super) enum Query {
    Dump(oneshot::Sender<Vec<DumpedResource>>),
}

/// One resource with what is known of it.
#[derive(Clone, Debug)]
pub struct DumpedResource {
    pub key: Key,
    /// Version, bytes, time of arrival.
    pub active: Option<(String, Bytes, SystemTime)>,
    pub warming: Option<(String, Bytes, SystemTime)>,
    /// Version, why, time.
    pub rejected: Option<(String, String, SystemTime)>,
}

/// The client's state.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct State {
    pub connected: bool,
    /// The first configuration is in force, or was waited for long enough.
    pub initialised: bool,
    pub last_received: Option<SystemTime>,
    /// The last rejected response, until an accepted one replaced it.
    pub rejected: Option<String>,
    /// Of each type: how many are in force, and their version: the server's for the whole type,
    /// or a digest of the versions of all resources.
    pub versions: BTreeMap<ResourceType, (String, u32)>,
    /// Why there is no stream.
    pub error: Option<String>,
}

/// A handle for queries. Cheap to clone.
#[derive(Clone)]
pub struct Handle {
    pub(super) queries: mpsc::Sender<Query>,
    pub(super) state: watch::Receiver<State>,
}

impl Handle {
    pub fn state(&self) -> State {
        self.state.borrow().clone()
    }

    /// Wakes with each change of state.
    pub fn watch(&self) -> watch::Receiver<State> {
        self.state.clone()
    }

    /// Every resource held; empty when the client is gone.
    pub async fn dump(&self) -> Vec<DumpedResource> {
        let (sender, answer) = oneshot::channel();
        if self.queries.send(Query::Dump(sender)).await.is_err() {
            return Vec::new();
        }
        answer.await.unwrap_or_default()
    }
}
