//! Writes conditions into the status of objects in the cluster.
//!
//! - [`Statuses`]: the status that each object has, and a queue of objects to compare
//! - [`document`]: the desired status, merged into the present one (no I/O)
//! - [`writer`]: patches statuses that differ, while this control plane is the leader
//! - `failed`: those that could not be written, and when they are tried again (no I/O)
//! - `rate`: limits the rate of writes; `queue`: the order of writes, and pauses (no I/O)

pub mod document;
mod failed;
mod queue;
mod rate;
pub mod writer;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use serde_json::Value as Json;
use tokio::sync::Notify;
use tokio::time::sleep_until;

use self::document::UnreadVersion;
use self::queue::{Popped, StatusQueue};
use crate::model::{Kind, ObjectId};

/// Whether the status of objects of this kind is written. Services and EndpointSlices have one that
/// is not ours.
pub fn is_written(kind: Kind) -> bool {
    match kind {
        Kind::HttpRoute
        | Kind::GrpcRoute
        | Kind::TcpRoute
        | Kind::TlsRoute
        | Kind::BackendTlsPolicy
        | Kind::Workload
        | Kind::AuthorizationPolicy
        | Kind::MeshPolicy
        | Kind::BackendPolicy => true,
        Kind::Service | Kind::EndpointSlice | Kind::ReferenceGrant | Kind::ConfigMap => false,
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
    waiting: StatusQueue,
    /// Our part of the present status of each object whose status is written.
    reported: HashMap<ObjectId, Arc<Json>>,
    /// Objects of `reported` whose newest version cannot be read.
    unread: HashMap<ObjectId, Arc<UnreadVersion>>,
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
            state.unread.remove(id);
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

    /// The newest version of an object that was reported, if it cannot be read.
    pub fn set_unread(&self, id: &ObjectId, version: Option<UnreadVersion>) {
        let mut state = self.state();
        let differs = match version {
            None => state.unread.remove(id).is_some(),
            Some(version) => {
                let differs = state.unread.get(id).is_none_or(|it| **it != version);
                state.unread.insert(id.clone(), Arc::new(version));
                differs
            }
        };
        if differs {
            state.waiting.insert(id.clone());
            self.0.added.notify_one();
        }
    }

    pub fn unread(&self, id: &ObjectId) -> Option<Arc<UnreadVersion>> {
        self.state().unread.get(id).cloned()
    }

    pub fn reported(&self, id: &ObjectId) -> Option<Arc<Json>> {
        self.state().reported.get(id).cloned()
    }

    /// Queues objects whose conditions may have changed. Objects whose status is not written, which are
    /// most, are left out.
    pub fn add<'a>(&self, ids: impl IntoIterator<Item = &'a ObjectId>) {
        let mut state = self.state();
        let State {
            waiting, reported, ..
        } = &mut *state;
        let ids = ids.into_iter().filter(|id| reported.contains_key(*id));
        ids.for_each(|id| waiting.insert(id.clone()));
        self.0.added.notify_one();
    }

    /// Queues all objects.
    fn add_all(&self) {
        let mut state = self.state();
        let State {
            waiting, reported, ..
        } = &mut *state;
        reported.keys().for_each(|id| waiting.insert(id.clone()));
        self.0.added.notify_one();
    }

    /// The next object in the queue.
    async fn next(&self) -> ObjectId {
        loop {
            let next = self.state().waiting.pop(Instant::now());
            match next {
                Popped::Object(id) => return id,
                Popped::Later(until) => tokio::select! {
                    () = self.0.added.notified() => {}
                    () = sleep_until(until.into()) => {}
                },
                Popped::Nothing => self.0.added.notified().await,
            }
        }
    }

    /// An object's status has been written.
    fn written(&self, id: &ObjectId) {
        self.state().waiting.written(id, Instant::now());
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::model::Key;
    use crate::model::mesh::change::ClusterDetails;

    fn id(kind: Kind, name: &str) -> ObjectId {
        let key = Key::new("n", name);
        ObjectId { kind, key }
    }

    fn is_empty(statuses: &Statuses) -> bool {
        statuses.state().waiting.pop(Instant::now()) == Popped::Nothing
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
        assert!(is_empty(&statuses), "nothing else differs");
        statuses.report(&a, Some(json!({"parents": []})));
        assert_eq!(statuses.next().await, a);
        statuses.add_all();
        statuses.report(&a, None);
        assert_eq!(statuses.next().await, b);
        assert!(is_empty(&statuses), "what is gone");
        assert_eq!(statuses.reported(&a), None);
    }

    #[tokio::test]
    async fn an_object_that_was_just_written_comes_after_its_pause() {
        let statuses = Statuses::default();
        let [a, b] = ["a", "b"].map(|name| id(Kind::HttpRoute, name));
        let begin = Instant::now();
        for id in [&a, &b] {
            statuses.report(id, Some(json!({})));
        }
        assert_eq!(statuses.next().await, a);
        statuses.written(&a);
        statuses.add([&a]);
        assert_eq!(statuses.next().await, b);
        assert_eq!(statuses.next().await, a);
        assert!(begin.elapsed().as_millis() >= 1000);
    }

    #[tokio::test]
    async fn a_version_that_cannot_be_read_is_queued_once() {
        let statuses = Statuses::default();
        let a = id(Kind::HttpRoute, "a");
        let version = |generation| {
            let details = ClusterDetails {
                generation: Some(generation),
                ..ClusterDetails::default()
            };
            Some(UnreadVersion::new(&details))
        };
        statuses.report(&a, Some(json!({})));
        assert_eq!(statuses.next().await, a);
        for generation in [1, 2] {
            statuses.set_unread(&a, version(generation));
            assert_eq!(statuses.next().await, a);
            statuses.set_unread(&a, version(generation));
            assert!(is_empty(&statuses));
        }
        assert_eq!(statuses.unread(&a).as_deref(), version(2).as_ref());
        statuses.set_unread(&a, None);
        assert_eq!(statuses.unread(&a), None);
        assert_eq!(statuses.next().await, a);
        statuses.set_unread(&a, None);
        assert!(is_empty(&statuses));
        statuses.set_unread(&a, version(3));
        statuses.report(&a, None);
        assert_eq!(statuses.unread(&a), None, "it is deleted");
    }
}
