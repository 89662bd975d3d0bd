//! Writes conditions into the status of objects in the cluster.
//!
//! - [`Statuses`]: the status that each object has, and a queue of objects to compare
//! - [`document`]: the desired status, merged into the present one (no I/O)
//! - [`writer`]: patches statuses that differ, while this control plane is the leader
//! - `rate`: limits the rate of writes (no I/O)

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

/// Shared by the source, which reports present statuses, by the task that follows the model, and by
/// the writer. An object is in the queue at most once.
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
    /// Our part of the present status of each object whose status is written.
    reported: HashMap<ObjectId, Arc<Json>>,
}

impl Statuses {
    fn state(&self) -> MutexGuard<'_, State> {
        let state = self.0.state.lock();
        state.unwrap_or_else(PoisonError::into_inner)
    }

    /// Our part of an object's present status; `None`: the object is deleted.
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

    /// Queues objects whose conditions may have changed. Objects whose status is not written, which are
    /// most, are left out.
    pub fn add<'a>(&self, ids: impl IntoIterator<Item = &'a ObjectId>) {
        let mut state = self.state();
        let State { waiting, reported } = &mut *state;
        let ids = ids.into_iter().filter(|id| reported.contains_key(*id));
        waiting.extend(ids.cloned());
        self.0.added.notify_one();
    }

    /// Queues all objects.
    fn add_all(&self) {
        let mut state = self.state();
        let ids: Vec<_> = state.reported.keys().cloned().collect();
        state.waiting.extend(ids);
        self.0.added.notify_one();
    }

    /// The next object in the queue.
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
    async fn an_object_is_queued_once_and_only_where_a_status_is_written() {
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
