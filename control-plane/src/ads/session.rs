//! One ADS stream as a state machine: requests and views go in, responses come out. No sockets,
//! no clock of its own.
//!
//! - A request changes subscriptions and settles ACKs (`delta` and `sotw` hold what differs).
//! - [`Session::look`] marks what a newer view may have changed; nothing is computed yet.
//! - [`Session::next`] compares and makes one response, when the connection can take one. A slow
//!   client therefore costs marks, not queued responses, and always gets the newest state.
//!
//! One response per type waits for its ACK at a time. Clusters and endpoints go before the
//! listeners and routes that refer to them; what is gone leaves after these were accepted.

use std::sync::Arc;
use std::time::Instant;

use xds_proto::type_url;

use super::budget::{self, Budget};
use super::dispatch::Interest;
use super::resources::{Names, NodeMarks, Resource, Scope, TYPES, Touched, View};
use super::subscription::{InFlight, Pending, ProtocolVariant, REFERRING, Rejected, Subscription};
use crate::model::Key;
use crate::text::bounded;

/// Limits of one stream.
#[derive(Clone, Copy, Debug)]
pub struct SessionLimits {
    /// Names subscribed to, over all types.
    pub names: usize,
    /// Bytes of one name, and of one version.
    pub name_bytes: usize,
    /// Bytes of state, besides those of a client that subscribes to everything.
    pub state_bytes: usize,
    /// A difference is split beyond this many bytes; one resource may still be larger.
    pub response_bytes: usize,
}

impl Default for SessionLimits {
    /// Response size: gRPC clients accept 4 MiB by default. State: a sidecar may look up 4096
    /// addresses and as many names that are not in the mesh, of which some take several resources.
    fn default() -> Self {
        SessionLimits {
            names: 100_000,
            name_bytes: 512,
            state_bytes: 24 << 20,
            response_bytes: 3 << 20,
        }
    }
}

/// Why a request ends its stream.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    #[error("a discovery request names no type_url; set it to the type subscribed to")]
    NoType,
    #[error(
        "there are no resources of type `{0}`; subscribe to listeners, clusters, endpoints, routes, secrets, workloads or names"
    )]
    UnknownType(String),
    #[error("more than {0} resource names on one stream; subscribe to `*` instead")]
    Names(usize),
    #[error("a resource name is longer than {0} bytes")]
    NameLength(usize),
    #[error("a resource version is longer than {0} bytes")]
    VersionLength(usize),
    #[error(
        "the names and versions of one stream take more than {0} bytes of state, which is more than the whole mesh does; subscribe to what the proxy needs"
    )]
    State(usize),
    #[error("xdstp resource locators are not supported; subscribe by name")]
    Locators,
}

/// What one type's subscription is to be sent.
pub(super) struct Difference {
    pub(super) resources: Vec<Resource>,
    /// Delta only.
    pub(super) removed: Vec<Arc<str>>,
    /// Of `resources`, those that the client had in another version.
    pub(super) updated: Vec<Arc<str>>,
}

/// One response, independent of the protocol.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Push {
    pub type_url: Arc<str>,
    pub version: String,
    pub nonce: String,
    pub resources: Vec<Resource>,
    /// Delta only.
    pub removed: Vec<Arc<str>>,
}

/// A session's state of one type, for the API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KindStatus {
    pub type_url: Arc<str>,
    pub sent_version: String,
    pub accepted_version: String,
    pub accepted_at: Option<Instant>,
    pub count: usize,
    pub all: bool,
    pub synced: bool,
    pub rejected: Option<Rejected>,
}

#[derive(Debug)]
pub struct Session {
    pub(super) protocol: ProtocolVariant,
    pub(super) scope: Scope,
    node: Key,
    /// In the order of their ranks.
    pub(super) kinds: Vec<Subscription>,
    pub(super) limits: SessionLimits,
    budget: Budget,
    generation: u64,
    nonces: u64,
}

impl Session {
    /// `view` is the state at the start; later ones come by [`Session::look`].
    pub fn new(
        protocol: ProtocolVariant,
        scope: Scope,
        limits: SessionLimits,
        view: &dyn View,
    ) -> Self {
        Session {
            protocol,
            node: Key::new(&scope.namespace, &scope.workload),
            scope,
            kinds: Vec::new(),
            limits,
            budget: Budget::new(limits.state_bytes),
            generation: view.generation(),
            nonces: 0,
        }
    }

    pub fn scope(&self) -> &Scope {
        &self.scope
    }

    /// What changed in what the client subscribes to since the last call.
    pub(super) fn take_interests(&mut self) -> Vec<Interest> {
        let kinds = self.kinds.iter_mut();
        kinds.flat_map(Subscription::take_interests).collect()
    }

    /// Nothing up to `generation` touches this client.
    pub fn skip_to(&mut self, generation: u64) {
        self.generation = self.generation.max(generation);
    }

    /// Marks what a newer view may have changed for this client.
    pub fn look(&mut self, view: &dyn View) {
        if view.generation() <= self.generation {
            return;
        }
        let touched = view.touched_since(self.generation);
        self.generation = view.generation();
        let marks = match touched {
            Touched::All => return self.mark_all(),
            Touched::Some(marks) => marks,
        };
        match marks.nodes.get(&self.node) {
            Some(NodeMarks::All) => return self.mark_all(),
            Some(NodeMarks::Names(names)) => self.mark(names),
            None => {}
        }
        self.mark(&marks.names);
        if !marks.addresses.is_empty() {
            for kind in &mut self.kinds {
                kind.mark_if(|kind, name| {
                    let address = view.address(kind, name);
                    address.is_some_and(|ip| marks.addresses.contains(&ip))
                });
            }
        }
    }

    fn mark_all(&mut self) {
        for kind in &mut self.kinds {
            kind.pending = Pending::All;
        }
    }

    fn mark(&mut self, names: &Names) {
        for kind in &mut self.kinds {
            for name in names.of(&kind.type_url) {
                if kind.wants(name) {
                    kind.pending.add(Arc::clone(name));
                }
            }
            kind.bound_marks();
        }
    }

    /// Whether [`Session::next`] may have a response to send.
    pub fn has_work(&self) -> bool {
        self.kinds.iter().any(|kind| self.may_push(kind))
    }

    /// The next response, in make-before-break order.
    pub fn next(&mut self, view: &dyn View) -> Option<Push> {
        self.look(view);
        // Comparing a route may be what allows a cluster to be removed: hence a second round.
        (0..2).find_map(|_| self.round(view))
    }

    fn round(&mut self, view: &dyn View) -> Option<Push> {
        for at in 0..self.kinds.len() {
            let retire = self.may_retire();
            let may_push = self.kinds.get(at).is_some_and(|kind| self.may_push(kind));
            let Some(kind) = self.kinds.get_mut(at).filter(|_| may_push) else {
                continue;
            };
            let found = match self.protocol {
                ProtocolVariant::Delta => {
                    kind.delta_difference(view, &self.scope, self.limits.response_bytes, retire)
                }
                ProtocolVariant::Sotw => kind.sotw_difference(view, &self.scope, retire),
            };
            let Some(found) = found else {
                continue;
            };
            self.nonces = self.nonces.wrapping_add(1);
            let nonce = self.nonces.to_string();
            let updated = match &*kind.type_url {
                type_url::CLUSTER => found.updated,
                _ => Vec::new(),
            };
            let push = kind.sent(nonce, found.resources, found.removed);
            self.resend_endpoints(&updated);
            return Some(push);
        }
        None
    }

    fn may_push(&self, kind: &Subscription) -> bool {
        if kind.in_flight.is_some() {
            return false;
        }
        if kind.pending.is_nothing() && !kind.must_answer {
            return !kind.leaving.is_empty() && self.may_retire();
        }
        // What is referred to goes first.
        let referring = matches!(&*kind.type_url, type_url::LISTENER | type_url::ROUTE);
        let below = |kind: &&Subscription| kind.rank < REFERRING;
        !referring
            || self
                .kinds
                .iter()
                .filter(below)
                .all(|kind| kind.pending.is_nothing())
    }

    /// Clusters may leave once no listener or route that the client has, or may fall back to,
    /// can refer to them.
    fn may_retire(&self) -> bool {
        let refers =
            |kind: &&Subscription| matches!(&*kind.type_url, type_url::LISTENER | type_url::ROUTE);
        self.kinds.iter().filter(refers).all(Subscription::settled)
    }

    /// The kind of a request's type, made on its first request. The flag marks a first request.
    pub(super) fn kind_of(
        &mut self,
        type_url: &str,
    ) -> Result<(&mut Subscription, bool), RequestError> {
        if type_url.is_empty() {
            return Err(RequestError::NoType);
        }
        let known = |kind: &Subscription| &*kind.type_url == type_url;
        let first = !self.kinds.iter().any(known);
        if first {
            self.add_kind(type_url)?;
        }
        // Just added, if it was not there.
        let found = self.kinds.iter_mut().find(|kind| known(kind));
        found.map(|kind| (kind, first)).ok_or(RequestError::NoType)
    }

    fn add_kind(&mut self, type_url: &str) -> Result<(), RequestError> {
        if !TYPES.contains(&type_url) {
            let shown = bounded(type_url);
            let shown = shown.chars().take(self.limits.name_bytes).collect();
            return Err(RequestError::UnknownType(shown));
        }
        let kind = Subscription::new(type_url);
        let at = self.kinds.partition_point(|other| other.rank <= kind.rank);
        self.kinds.insert(at, kind);
        Ok(())
    }

    /// Refuses names and versions that are too long, or more than the stream may take in all,
    /// before anything is allocated for them.
    pub(super) fn check_request<'a>(
        &mut self,
        names: &[String],
        versions: impl IntoIterator<Item = (&'a String, &'a String)>,
        view: &dyn View,
    ) -> Result<(), RequestError> {
        let max = self.limits.name_bytes;
        let mut bytes = 0usize;
        for name in names {
            if name.len() > max {
                return Err(RequestError::NameLength(max));
            }
            bytes = budget::sum([bytes, budget::NAME, name.len()]);
        }
        for (name, version) in versions {
            if name.len() > max {
                return Err(RequestError::NameLength(max));
            }
            if version.len() > max {
                return Err(RequestError::VersionLength(max));
            }
            bytes = budget::sum([bytes, budget::HELD, name.len(), version.len()]);
        }
        self.within_budget(bytes, view)
    }

    fn within_budget(&mut self, bytes: usize, view: &dyn View) -> Result<(), RequestError> {
        match self.budget.allows(bytes, view) {
            true => Ok(()),
            false => Err(RequestError::State(self.budget.granted())),
        }
    }

    /// The bytes of state that the stream takes, and how many it may.
    ///
    /// # Errors
    /// When they are more than its budget.
    pub fn weigh(&mut self, view: &dyn View) -> Result<(usize, usize), RequestError> {
        let bytes: usize = self.kinds.iter().map(Subscription::bytes).sum();
        self.within_budget(bytes, view)?;
        Ok((bytes, self.budget.granted()))
    }

    pub(super) fn check_total(&self) -> Result<(), RequestError> {
        let total: usize = self.kinds.iter().map(|kind| kind.names.len()).sum();
        if total > self.limits.names {
            return Err(RequestError::Names(self.limits.names));
        }
        Ok(())
    }

    /// A changed cluster warms until it is given its endpoints, even when these did not change.
    fn resend_endpoints(&mut self, clusters: &[Arc<str>]) {
        let endpoints = |kind: &&mut Subscription| &*kind.type_url == type_url::ENDPOINT;
        if let Some(kind) = self.kinds.iter_mut().find(endpoints) {
            for name in clusters {
                if kind.wants(name) && kind.release(name) {
                    kind.pending.add(Arc::clone(name));
                }
            }
        }
    }

    pub fn status(&self) -> Vec<KindStatus> {
        let status = |kind: &Subscription| KindStatus {
            type_url: Arc::clone(&kind.type_url),
            sent_version: kind.sent_version.clone(),
            accepted_version: kind.accepted_version.clone(),
            accepted_at: kind.accepted_at,
            count: kind.held_count(),
            all: kind.all,
            synced: kind.settled(),
            rejected: kind.rejected.clone(),
        };
        self.kinds.iter().map(status).collect()
    }
}

impl Subscription {
    /// Records a response as sent.
    fn sent(&mut self, nonce: String, resources: Vec<Resource>, removed: Vec<Arc<str>>) -> Push {
        let version = self.version();
        self.must_answer = false;
        self.sent_version.clone_from(&version);
        self.last_nonce = Some(nonce.clone());
        self.in_flight = Some(InFlight {
            nonce: nonce.clone(),
            version: version.clone(),
        });
        Push {
            type_url: Arc::clone(&self.type_url),
            version,
            nonce,
            resources,
            removed,
        }
    }
}
