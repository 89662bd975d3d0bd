//! What is the state-of-the-world protocol's own: a request lists every name subscribed to, a
//! response of listeners or clusters is whole, and what is no longer in it is gone.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Instant;

use xds_proto::envoy::service::discovery::v3::DiscoveryRequest;
use xds_proto::type_url;

use super::resources::{Resource, Scope, View};
use super::session::{Difference, RequestError, Session};
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
        let scope = self.scope.clone();
        let (kind, first) = self.kind_of(&request.type_url)?;
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
        if first && !request.version_info.is_empty() {
            kind.recognise(&request.version_info, view, &scope, now);
        }
        self.check_total()
    }
}

impl Subscription {
    /// A client that comes back with the version that it would be sent has all of it.
    fn recognise(&mut self, version: &str, view: &dyn View, scope: &Scope, now: Instant) {
        let wanted = self.wanted(view, scope);
        for resource in &wanted {
            let whole = self.keeps_whole().then(|| resource.clone());
            self.hold(&resource.name, &resource.version, whole);
        }
        if self.version() == version {
            self.pending = Pending::nothing();
            self.must_answer = false;
            self.accepted_before(now);
        } else {
            for resource in &wanted {
                self.release(&resource.name);
            }
        }
    }

    /// Everything of this type that the client should have.
    fn wanted(&self, view: &dyn View, scope: &Scope) -> Vec<Resource> {
        let by_name = |name: &Arc<str>| view.get(&self.type_url, name, scope);
        if !self.all {
            return self.names.iter().filter_map(by_name).collect();
        }
        let mut wanted = view.list(&self.type_url, scope);
        let listed: HashSet<Arc<str>> = wanted.iter().map(|one| Arc::clone(&one.name)).collect();
        let more = self.names.iter().filter(|name| !listed.contains(*name));
        wanted.extend(more.filter_map(by_name));
        wanted
    }

    /// Compares what is marked. `retire`: what is gone may be removed, for nothing that the client
    /// has refers to it. `None`: there is nothing to send.
    pub(super) fn sotw_difference(
        &mut self,
        view: &dyn View,
        scope: &Scope,
        retire: bool,
    ) -> Option<Difference> {
        if self.whole_state() {
            self.whole_difference(view, scope, retire)
        } else {
            self.partial_difference(view, scope)
        }
    }

    fn whole_difference(
        &mut self,
        view: &dyn View,
        scope: &Scope,
        retire: bool,
    ) -> Option<Difference> {
        let mut wanted = self.wanted(view, scope);
        self.pending = Pending::nothing();
        self.leaving.clear();
        let present: HashSet<Arc<str>> = wanted.iter().map(|one| Arc::clone(&one.name)).collect();
        let absent = |name: &&Arc<str>| !present.contains(*name);
        let gone: Vec<Arc<str>> = self.held_names().filter(absent).cloned().collect();
        let mut differs = self.must_answer || wanted.iter().any(|one| !self.has_version(one));
        for name in gone {
            let whole = self.held(&name).and_then(|held| held.whole.clone());
            match whole.filter(|_| !retire && self.wants(&name)) {
                // Listeners and routes may still refer to it: it stays in the state until then.
                Some(resource) => {
                    wanted.push(resource);
                    self.leaving.insert(name);
                }
                None => {
                    self.release(&name);
                    differs = true;
                }
            }
        }
        if !differs {
            return None;
        }
        let mut updated = Vec::new();
        for resource in &wanted {
            if self.held(&resource.name).is_some() && !self.has_version(resource) {
                updated.push(Arc::clone(&resource.name));
            }
            let whole = self.keeps_whole().then(|| resource.clone());
            self.hold(&resource.name, &resource.version, whole);
        }
        Some(Difference {
            resources: wanted,
            removed: Vec::new(),
            updated,
        })
    }

    /// Types whose responses may have only what changed; removals cannot be expressed.
    fn partial_difference(&mut self, view: &dyn View, scope: &Scope) -> Option<Difference> {
        let pending = std::mem::replace(&mut self.pending, Pending::nothing());
        let found: Vec<(Arc<str>, Option<Resource>)> = match pending {
            Pending::All => {
                let wanted = self.wanted(view, scope);
                let present: HashSet<&str> = wanted.iter().map(|one| &*one.name).collect();
                let gone = self.held_names().filter(|name| !present.contains(&***name));
                let gone: Vec<_> = gone.map(|name| (Arc::clone(name), None)).collect();
                let some = |one: Resource| (Arc::clone(&one.name), Some(one));
                gone.into_iter()
                    .chain(wanted.into_iter().map(some))
                    .collect()
            }
            Pending::Names(names) => {
                let look_up = |name: Arc<str>| {
                    let found = view.get(&self.type_url, &name, scope);
                    (name, found)
                };
                names.into_iter().map(look_up).collect()
            }
        };
        let mut changed = Vec::new();
        for (name, resource) in found {
            match resource {
                Some(resource) if self.has_version(&resource) => {}
                Some(resource) => {
                    self.hold(&resource.name, &resource.version, None);
                    changed.push(resource);
                }
                None => {
                    self.release(&name);
                }
            }
        }
        let nothing = changed.is_empty() && !self.must_answer;
        (!nothing).then_some(Difference {
            resources: changed,
            removed: Vec::new(),
            updated: Vec::new(),
        })
    }

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
