//! Turns the cache's changes into the next snapshot. A change at which publishing panics is
//! refused, and the others are published.

use std::panic::{AssertUnwindSafe, catch_unwind};

use futures_util::FutureExt;

use super::{Apply, Change, Client, Now};
use crate::xds::resource_type::ResourceType;

/// The reason in the NACK and in dumps.
const PANICKED: &str = "it compiles, but the proxy panicked when it was put in force; its log has \
                        the place, and the version before it stays";

/// Whether it is something that routes and listeners lead to.
fn is_target<T>(change: &Change<T>) -> bool {
    use ResourceType::{Cluster, Endpoint, Secret};
    matches!(change, Change::Upsert(key, _) if [Cluster, Endpoint, Secret].contains(&key.kind))
}

impl<A: Apply> Client<A> {
    /// Publishes what the cache has brought into force, and then the removals that this allows.
    /// Afterwards each change is published or refused, so ACKs and answers may be sent. True: there
    /// were listeners among the changes.
    pub(super) async fn publish(&mut self) -> bool {
        let mut listeners = false;
        loop {
            let fresh = self.cache.take_changes();
            if fresh.is_empty() {
                return listeners;
            }
            self.changed = true;
            let mut changes = std::mem::take(&mut self.removals);
            changes.retain(|change| fresh.iter().all(|newer| newer.key() != change.key()));
            changes.extend(fresh);
            let warm = async { self.apply.warm(&changes, !self.initialised).await };
            if AssertUnwindSafe(warm).catch_unwind().await.is_err() {
                tracing::error!("clusters could not be warmed: they are put in force as they are");
            }
            // As in Envoy, the first listeners open once clusters are fit for traffic.
            if !self.initialised && self.apply.awaits_checks(&changes) {
                let (targets, others) = changes.into_iter().partition(is_target);
                listeners |= self.publish_all(targets);
                self.apply.checked().await;
                changes = others;
            }
            listeners |= self.publish_all(changes);
            self.cache.published(Now::read());
        }
    }

    /// Publishes `changes` together. If that panics, publishes each half by itself, in order, down
    /// to the change that causes it.
    fn publish_all(&mut self, mut changes: Vec<Change<A::Value>>) -> bool {
        let publish = AssertUnwindSafe(|| self.apply.publish(changes.clone()));
        if let Ok(listeners) = catch_unwind(publish) {
            return listeners;
        }
        let rest = changes.split_off(changes.len() / 2);
        if changes.is_empty() {
            rest.into_iter().for_each(|change| self.refuse(change));
            return false;
        }
        let first = self.publish_all(changes);
        self.publish_all(rest) || first
    }

    fn refuse(&mut self, change: Change<A::Value>) {
        let key = change.key();
        tracing::error!(resource = %key, "a change could not be put in force and is refused: {PANICKED}");
        self.cache.refuse(key, PANICKED, Now::read());
        // The cache does not have the resource any more, so no later change would remove it.
        if matches!(change, Change::Remove(_)) {
            self.removals.push(change);
        }
    }
}
