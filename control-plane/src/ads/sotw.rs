//! What is the state-of-the-world protocol's own: a request lists every name subscribed to, a
//! response of listeners or clusters is whole, and what is no longer in it is gone.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Instant;

use xds_proto::envoy::service::discovery::v3::DiscoveryRequest;
use xds_proto::type_url;

use super::resources::{Resource, View};
use super::session::{Push, RequestError, Session};
use super::subscription::{Pending, Subscription};

const ALL: &str = "*";

impl Session {
    /// Takes one request of a state-of-the-world stream.
    ///
    /// # Errors
    /// When the stream subscribes to more than its limits, or in a way that is not supported.
    pub fn sotw_request(
        &mut self,
        request: &DiscoveryRequest,
        view: &dyn View,
        now: Instant,
    ) -> Result<(), RequestError> {
        if !request.resource_locators.is_empty() {
            return Err(RequestError::Locators);
        }
        self.check_request(&request.resource_names, [], view)?;
        let (at, first) = self.kind_at(&request.type_url)?;
        let kind = &mut self.kinds[at];
        // An answer to an older response: the client has yet to receive the newest, and its
        // answer to that has its subscription.
        if !first
            && kind
                .last_nonce
                .as_ref()
                .is_some_and(|last| *last != request.response_nonce)
        {
            return Ok(());
        }
        if !request.response_nonce.is_empty() {
            let error = request.error_detail.as_ref().map(|error| &*error.message);
            kind.answered(&request.response_nonce, error, now);
        }
        kind.resubscribe(&request.resource_names);
        if first {
            self.recognise(at, &request.version_info, view, now);
        }
        self.check_total()
    }

    /// A client that comes back with the version that it would be sent has all of it.
    fn recognise(&mut self, at: usize, version: &str, view: &dyn View, now: Instant) {
        if version.is_empty() {
            return;
        }
        let wanted = self.wanted(at, view);
        let kind = &mut self.kinds[at];
        for resource in &wanted {
            let whole = kind.keeps_whole().then(|| resource.clone());
            kind.hold(&resource.name, &resource.version, whole);
        }
        if kind.version() == version {
            kind.pending = Pending::nothing();
            kind.must_answer = false;
            kind.accepted_before(now);
        } else {
            for resource in &wanted {
                kind.release(&resource.name);
            }
        }
    }

    /// Everything that the client should have of one type.
    fn wanted(&self, at: usize, view: &dyn View) -> Vec<Resource> {
        let kind = &self.kinds[at];
        let by_name = |name: &Arc<str>| view.get(&kind.type_url, name, &self.scope);
        if !kind.all {
            return kind.names.iter().filter_map(by_name).collect();
        }
        let mut wanted = view.list(&kind.type_url, &self.scope);
        let listed: HashSet<Arc<str>> = wanted.iter().map(|one| Arc::clone(&one.name)).collect();
        let more = kind.names.iter().filter(|name| !listed.contains(*name));
        wanted.extend(more.filter_map(by_name));
        wanted
    }

    /// Compares what is marked of one type and makes a response if anything differs.
    pub(super) fn sotw_push(&mut self, at: usize, view: &dyn View, retire: bool) -> Option<Push> {
        if self.kinds[at].whole_state() {
            self.whole_push(at, view, retire)
        } else {
            self.partial_push(at, view)
        }
    }

    fn whole_push(&mut self, at: usize, view: &dyn View, retire: bool) -> Option<Push> {
        let mut wanted = self.wanted(at, view);
        let kind = &mut self.kinds[at];
        kind.pending = Pending::nothing();
        kind.leaving.clear();
        let present: HashSet<Arc<str>> = wanted.iter().map(|one| Arc::clone(&one.name)).collect();
        let absent = |name: &&Arc<str>| !present.contains(*name);
        let gone: Vec<Arc<str>> = kind.held_names().filter(absent).cloned().collect();
        let mut differs = kind.must_answer || wanted.iter().any(|one| !kind.has_version(one));
        for name in gone {
            let whole = kind.held(&name).and_then(|held| held.whole.clone());
            match whole.filter(|_| !retire && kind.wants(&name)) {
                // Listeners and routes may still refer to it: it stays in the state until then.
                Some(resource) => {
                    wanted.push(resource);
                    kind.leaving.insert(name);
                }
                None => {
                    kind.release(&name);
                    differs = true;
                }
            }
        }
        if !differs {
            return None;
        }
        let mut updated = Vec::new();
        for resource in &wanted {
            if kind.held(&resource.name).is_some() && !kind.has_version(resource) {
                updated.push(Arc::clone(&resource.name));
            }
            let whole = kind.keeps_whole().then(|| resource.clone());
            kind.hold(&resource.name, &resource.version, whole);
        }
        if &*kind.type_url == type_url::CLUSTER {
            self.resend_endpoints(&updated);
        }
        Some(self.sent(at, wanted, Vec::new()))
    }

    /// Types whose responses may have only what changed; removals cannot be expressed.
    fn partial_push(&mut self, at: usize, view: &dyn View) -> Option<Push> {
        let pending = std::mem::replace(&mut self.kinds[at].pending, Pending::nothing());
        let found: Vec<(Arc<str>, Option<Resource>)> = match pending {
            Pending::All => {
                let wanted = self.wanted(at, view);
                let present: HashSet<&str> = wanted.iter().map(|one| &*one.name).collect();
                let kind = &self.kinds[at];
                let gone = kind.held_names().filter(|name| !present.contains(&***name));
                let gone: Vec<_> = gone.map(|name| (Arc::clone(name), None)).collect();
                let some = |one: Resource| (Arc::clone(&one.name), Some(one));
                gone.into_iter()
                    .chain(wanted.into_iter().map(some))
                    .collect()
            }
            Pending::Names(names) => {
                let type_url = &self.kinds[at].type_url;
                let look_up = |name: Arc<str>| {
                    let found = view.get(type_url, &name, &self.scope);
                    (name, found)
                };
                names.into_iter().map(look_up).collect()
            }
        };
        let kind = &mut self.kinds[at];
        let mut changed = Vec::new();
        for (name, resource) in found {
            match resource {
                Some(resource) if kind.has_version(&resource) => {}
                Some(resource) => {
                    kind.hold(&resource.name, &resource.version, None);
                    changed.push(resource);
                }
                None => {
                    kind.release(&name);
                }
            }
        }
        if changed.is_empty() && !kind.must_answer {
            return None;
        }
        Some(self.sent(at, changed, Vec::new()))
    }
}

impl Subscription {
    /// Clusters are referred to by name; one that is about to be removed is repeated until it is.
    fn keeps_whole(&self) -> bool {
        &*self.type_url == type_url::CLUSTER
    }

    fn resubscribe(&mut self, names: &[String]) {
        let legacy_all = names.is_empty() && self.whole_state() && !self.named_once;
        let all = legacy_all || names.iter().any(|name| name == ALL);
        let wanted: HashSet<Arc<str>> = names
            .iter()
            .filter(|name| *name != ALL)
            .map(|name| name.as_str().into())
            .collect();
        self.named_once |= !names.is_empty();
        if all == self.all && wanted == self.names {
            return;
        }
        if all && !self.all {
            self.pending = Pending::All;
            self.must_answer = true;
        }
        for name in wanted.difference(&self.names) {
            self.pending.add(Arc::clone(name));
        }
        let fewer = !self.names.is_subset(&wanted);
        self.want_all(all);
        let gone: Vec<_> = self.names.difference(&wanted).cloned().collect();
        for name in gone {
            self.unwant(&name);
        }
        for name in wanted {
            self.want(name);
        }
        if fewer {
            self.release_unwanted();
        }
    }
}
