//! What is the delta protocol's own: subscriptions by difference, versions per resource, removals
//! by name.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Instant;

use xds_proto::envoy::service::discovery::v3::DeltaDiscoveryRequest;

use super::resources::{Resource, View};
use super::session::{Push, RequestError, Session};
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
        let (at, first) = self.kind_at(&request.type_url)?;
        let kind = &mut self.kinds[at];
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

    /// Compares what is marked of one type and makes a response of the differences, if any.
    pub(super) fn delta_push(&mut self, at: usize, view: &dyn View, retire: bool) -> Option<Push> {
        let mut found = self.changes(at, view);
        let kind = &mut self.kinds[at];
        if retire || kind.rank >= REFERRING {
            found.removed.extend(kind.leaving.drain());
        }
        for name in &found.removed {
            kind.release(name);
            if kind.names.contains(name) {
                kind.absent.insert(Arc::clone(name));
            }
        }
        let mut updated = Vec::new();
        for resource in &found.resources {
            if kind.held(&resource.name).is_some() {
                updated.push(Arc::clone(&resource.name));
            }
            kind.leaving.remove(&resource.name);
            kind.hold(&resource.name, &resource.version, None);
        }
        if found.resources.is_empty() && found.removed.is_empty() && !kind.must_answer {
            return None;
        }
        if &*kind.type_url == xds_proto::type_url::CLUSTER {
            self.resend_endpoints(&updated);
        }
        Some(self.sent(at, found.resources, found.removed))
    }

    /// Takes marks until the response is full, and adds what differs.
    fn changes(&mut self, at: usize, view: &dyn View) -> Changes {
        let max_bytes = self.limits.response_bytes;
        let kind = &mut self.kinds[at];
        let mut changes = Changes::default();
        let mut listed = Vec::new();
        let marked: Vec<Arc<str>> = match std::mem::replace(&mut kind.pending, Pending::nothing()) {
            Pending::Names(names) => names.into_iter().collect(),
            Pending::All if kind.all => {
                listed = view.list(&kind.type_url, &self.scope);
                let present: HashSet<&str> = listed.iter().map(|found| &*found.name).collect();
                let missing = |name: &&Arc<str>| !present.contains(&***name);
                let named = kind.names.iter().filter(missing);
                let owed = kind.owed.iter().filter(missing);
                kind.held_names()
                    .filter(missing)
                    .chain(named)
                    .chain(owed)
                    .cloned()
                    .collect()
            }
            Pending::All => kind.names.iter().cloned().collect(),
        };
        let found = |name: &Arc<str>| {
            (
                Arc::clone(name),
                view.get(&kind.type_url, name, &self.scope),
            )
        };
        let looked_up: Vec<_> = marked.iter().map(found).collect();
        let listed = listed
            .into_iter()
            .map(|found| (Arc::clone(&found.name), Some(found)));
        for (name, resource) in looked_up.into_iter().chain(listed) {
            let size = resource.as_ref().map_or(0, Changes::size);
            if changes.bytes > 0 && changes.bytes + size > max_bytes {
                kind.pending.add(name);
            } else {
                changes.compare(kind, name, resource);
            }
        }
        changes
    }
}

#[derive(Default)]
struct Changes {
    resources: Vec<Resource>,
    removed: Vec<Arc<str>>,
    bytes: usize,
}

impl Changes {
    /// Bytes on the wire, with room for the type URL and tags.
    fn size(resource: &Resource) -> usize {
        resource.body.len() + resource.name.len() + resource.version.len() + 128
    }

    fn compare(&mut self, kind: &mut Subscription, name: Arc<str>, resource: Option<Resource>) {
        let owed = kind.settle_owed(&name);
        match resource {
            Some(resource) if kind.has_version(&resource) => {
                kind.leaving.remove(&name);
            }
            Some(resource) => {
                self.bytes += Self::size(&resource);
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
