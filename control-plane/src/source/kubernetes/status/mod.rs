//! What became of objects, written into their status in the cluster.
//!
//! - [`Statuses`]: what objects say of themselves, and which are to be looked at
//! - [`document`]: what a status is to say, merged into what it says (no I/O)
//! - [`writer`]: writes where both differ, while this control plane is the leader
//! - `rate`: how often (no I/O)

pub mod document;
mod rate;
pub mod writer;

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::Value as Json;
use tokio::sync::Notify;

use crate::model::{Kind, ObjectId};

/// Whether the status of objects of this kind is written. Services and EndpointSlices have one that
/// is not ours.
pub fn is_written(kind: Kind) -> bool {
    match kind {
        Kind::HttpRoute
        | Kind::GrpcRoute
        | Kind::Workload
        | Kind::AuthorizationPolicy
        | Kind::MeshPolicy
        | Kind::BackendPolicy => true,
        Kind::Service | Kind::EndpointSlice | Kind::ReferenceGrant => false,
    }
}

/// Shared by the source, which reports what objects say of themselves, by what follows the model,
/// and by the writer. An object waits once, however often it changes.
#[derive(Clone, Debug, Default)]
pub struct Statuses(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    added: Notify,
}

#[derive(Debug, Default)]
struct State {
    waiting: BTreeSet<ObjectId>,
    /// Of each object of the cluster whose status is written: our part of it.
    reported: HashMap<ObjectId, Arc<Json>>,
}

impl Statuses {
    fn state(&self) -> MutexGuard<'_, State> {
        let state = self.0.state.lock();
        state.unwrap_or_else(PoisonError::into_inner)
    }

    /// Our part of what an object's status says; `None`: the object is gone.
    pub fn report(&self, id: &ObjectId, status: Option<Json>) {
        let mut state = self.state();
        let Some(status) = status else {
            state.reported.remove(id);
            state.waiting.remove(id);
            return;
        };
        if state
            .reported
            .get(id)
            .is_none_or(|before| **before != status)
        {
            state.reported.insert(id.clone(), Arc::new(status));
            state.waiting.insert(id.clone());
            self.0.added.notify_one();
        }
    }

    pub fn reported(&self, id: &ObjectId) -> Option<Arc<Json>> {
        self.state().reported.get(id).cloned()
    }

    /// Something else may have to be said of these objects. Those without a status of ours, as most
    /// are, do not wait.
    pub fn add<'a>(&self, ids: impl IntoIterator<Item = &'a ObjectId>) {
        let mut state = self.state();
        let State { waiting, reported } = &mut *state;
        let ids = ids.into_iter().filter(|id| reported.contains_key(*id));
        waiting.extend(ids.cloned());
        self.0.added.notify_one();
    }

    /// All objects are to be looked at.
    fn add_all(&self) {
        let mut state = self.state();
        let ids: Vec<_> = state.reported.keys().cloned().collect();
        state.waiting.extend(ids);
        self.0.added.notify_one();
    }

    /// The next one to look at.
    async fn next(&self) -> ObjectId {
        loop {
            let next = self.state().waiting.pop_first();
            match next {
                Some(id) => return id,
                None => self.0.added.notified().await,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::model::Key;

    fn id(kind: Kind, name: &str) -> ObjectId {
        let key = Key::new("n", name);
        ObjectId { kind, key }
    }

    #[tokio::test]
    async fn an_object_waits_once_and_only_where_a_status_is_written() {
        let statuses = Statuses::default();
        let [a, b] = ["a", "b"].map(|name| id(Kind::HttpRoute, name));
        for id in [&a, &b] {
            statuses.report(id, Some(json!({})));
            assert_eq!(statuses.next().await, *id);
        }
        statuses.report(&a, Some(json!({})));
        statuses.add([&id(Kind::Service, "s"), &b, &b]);
        assert_eq!(statuses.next().await, b);
        assert!(statuses.state().waiting.is_empty(), "nothing else differs");
        statuses.report(&a, Some(json!({"parents": []})));
        assert_eq!(statuses.next().await, a);
        statuses.add_all();
        statuses.report(&a, None);
        assert_eq!(statuses.next().await, b);
        assert!(statuses.state().waiting.is_empty(), "what is gone");
        assert_eq!(statuses.reported(&a), None);
    }
}
