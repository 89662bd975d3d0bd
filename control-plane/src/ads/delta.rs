//! What is the delta protocol's own: subscriptions by difference, versions per resource, removals
//! by name.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Instant;

use xds_proto::envoy::service::discovery::v3::DeltaDiscoveryRequest;

use super::budget;
use super::resources::{Resource, Scope, View};
use super::session::{Difference, RequestError, Session};
use super::subscription::{Pending, REFERRING, Subscription};

const ALL: &str = "*";

impl Session {
    /// Takes one request of a delta stream.
    ///
    /// # Errors
    /// When the stream subscribes to more than its limits, or in a way that is not supported.
    pub fn delta_request(
        &mut self,
        request: &DeltaDiscoveryRequest,
        view: &dyn View,
        now: Instant,
    ) -> Result<(), RequestError> {
        if !request.resource_locators_subscribe.is_empty()
            || !request.resource_locators_unsubscribe.is_empty()
        {
            return Err(RequestError::Locators);
        }
        let versions = &request.initial_resource_versions;
        self.check_request(&request.resource_names_subscribe, versions, view)?;
        let (kind, first) = self.kind_of(&request.type_url)?;
        if first {
            kind.remember(request);
            if request.resource_names_subscribe.is_empty() && kind.whole_state() {
                kind.subscribe_all();
            }
        }
        if !request.response_nonce.is_empty() {
            let error = request.error_detail.as_ref().map(|error| &*error.message);
            kind.answered(&request.response_nonce, error, now);
        }
        for name in &request.resource_names_subscribe {
            let known = first && request.initial_resource_versions.contains_key(name);
            kind.subscribe(name, known);
        }
        kind.unsubscribe(&request.resource_names_unsubscribe);
        if first {
            kind.release_unwanted();
            kind.accepted_before(now);
        }
        self.check_total()
    }
}

#[derive(Default)]
struct ChangedResources {
    resources: Vec<Resource>,
    removed: Vec<Arc<str>>,
    bytes: usize,
}

impl ChangedResources {
    /// Bytes on the wire, with room for the type URL and tags.
    fn size(resource: &Resource) -> usize {
        let Resource {
            name,
            version,
            body,
        } = resource;
        budget::sum([body.len(), name.len(), version.len(), 128])
    }

    fn compare(&mut self, kind: &mut Subscription, name: Arc<str>, resource: Option<Resource>) {
        let owed = kind.settle_owed(&name);
        match resource {
            Some(resource) if kind.has_version(&resource) => {
                kind.leaving.remove(&name);
            }
            Some(resource) => {
                self.bytes = self.bytes.saturating_add(Self::size(&resource));
                self.resources.push(resource);
            }
            None if kind.held(&name).is_some() => {
                kind.leaving.insert(name);
            }
            // Nothing can refer to a resource that never existed.
            None if kind.names.contains(&name) && !kind.absent.contains(&name) => {
                self.removed.push(name);
            }
            None if owed => self.removed.push(name),
            None => {}
        }
    }
}

impl Subscription {
    /// Compares what is marked, up to the size of a response. `retire`: what is gone may be removed,
    /// for nothing that the client has refers to it. `None`: there is nothing to send.
    pub(super) fn delta_difference(
        &mut self,
        view: &dyn View,
        scope: &Scope,
        max_bytes: usize,
        retire: bool,
    ) -> Option<Difference> {
        let ChangedResources {
            resources,
            mut removed,
            ..
        } = self.changes(view, scope, max_bytes);
        if retire || self.rank >= REFERRING {
            removed.extend(self.leaving.drain());
        }
        for name in &removed {
            self.release(name);
            if self.names.contains(name) {
                self.absent.insert(Arc::clone(name));
            }
        }
        let mut updated = Vec::new();
        for resource in &resources {
            if self.held(&resource.name).is_some() {
                updated.push(Arc::clone(&resource.name));
            }
            self.leaving.remove(&resource.name);
            self.hold(&resource.name, &resource.version, None);
        }
        let nothing = resources.is_empty() && removed.is_empty() && !self.must_answer;
        (!nothing).then_some(Difference {
            resources,
            removed,
            updated,
        })
    }

    /// Takes marks until the response is full, and adds what differs.
    fn changes(&mut self, view: &dyn View, scope: &Scope, max_bytes: usize) -> ChangedResources {
        let mut changes = ChangedResources::default();
        let mut listed = Vec::new();
        let marked: Vec<Arc<str>> = match std::mem::replace(&mut self.pending, Pending::nothing()) {
            Pending::Names(names) => names.into_iter().collect(),
            Pending::All if self.all => {
                listed = view.list(&self.type_url, scope);
                let present: HashSet<&str> = listed.iter().map(|found| &*found.name).collect();
                let missing = |name: &&Arc<str>| !present.contains(&***name);
                let named = self.names.iter().filter(missing);
                let owed = self.owed.iter().filter(missing);
                self.held_names()
                    .filter(missing)
                    .chain(named)
                    .chain(owed)
                    .cloned()
                    .collect()
            }
            Pending::All => self.names.iter().cloned().collect(),
        };
        let found = |name: &Arc<str>| (Arc::clone(name), view.get(&self.type_url, name, scope));
        let looked_up: Vec<_> = marked.iter().map(found).collect();
        let listed = listed
            .into_iter()
            .map(|found| (Arc::clone(&found.name), Some(found)));
        for (name, resource) in looked_up.into_iter().chain(listed) {
            let size = resource.as_ref().map_or(0, ChangedResources::size);
            if changes.bytes > 0 && changes.bytes.saturating_add(size) > max_bytes {
                self.pending.add(name);
            } else {
                changes.compare(self, name, resource);
            }
        }
        changes
    }

    /// What the client declares to hold from an earlier stream.
    fn remember(&mut self, request: &DeltaDiscoveryRequest) {
        for (name, version) in &request.initial_resource_versions {
            self.hold(&name.as_str().into(), &version.as_str().into(), None);
        }
    }

    fn subscribe_all(&mut self) {
        self.want_all(true);
        self.pending = Pending::All;
        self.must_answer = true;
    }

    /// `known`: the client sent the version it has; else it is sent again even if it was sent
    /// before, because a client may drop what it unsubscribed from.
    fn subscribe(&mut self, name: &str, known: bool) {
        if name == ALL {
            if !self.all {
                self.subscribe_all();
            }
            return;
        }
        let name: Arc<str> = name.into();
        if !known {
            self.release(&name);
        }
        self.absent.remove(&name);
        self.leaving.remove(&name);
        self.want(Arc::clone(&name));
        self.pending.add(name);
    }

    fn unsubscribe(&mut self, names: &[String]) {
        for name in names {
            if name == ALL {
                self.want_all(false);
                self.must_answer = false;
            } else if let Some(name) = self.unwant(name)
                && self.all
            {
                self.release(&name);
                self.owe(Arc::clone(&name));
                self.pending.add(name);
            }
        }
        if !names.is_empty() {
            self.release_unwanted();
        }
    }
}
