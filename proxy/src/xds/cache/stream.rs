//! The protocol state of a stream: subscriptions, nonces, versions, and requests to send.

use std::collections::{BTreeSet, HashMap, VecDeque};

use super::receive::detail;
use super::{Config, Mode};
use crate::xds::message::{DeltaRequest, DiscoveryRequest, ProtocolVariant, SotwRequest};
use crate::xds::resource_type::ResourceType;

/// Name that stands for all resources in delta subscriptions that also have names.
const ALL: &str = "*";

/// The subscriptions of all types, over the life of the process; streams come and go.
pub(super) struct Streams {
    protocol: ProtocolVariant,
    open: bool,
    types: HashMap<ResourceType, Type>,
}

struct Type {
    wildcard: bool,
    /// Names that are wanted.
    names: BTreeSet<String>,
    /// Changes of `names` that were not sent yet (delta).
    subscribe: BTreeSet<String>,
    unsubscribe: BTreeSet<String>,
    /// `names` changed since the last request (state of the world).
    changed: bool,
    /// The first request of this type on this stream is out.
    begun: bool,
    /// Sent once on each stream, with its first request.
    initial_versions: Vec<(String, String)>,
    version: String,
    /// `version` before the last ACK.
    version_before: String,
    nonce: String,
    /// Whether a complete response has arrived, on this stream or an earlier one.
    listed: bool,
    rejected: Option<String>,
}

impl Streams {
    pub(super) fn new(config: &Config) -> Self {
        let kind = |kind: ResourceType| {
            let wildcard = match kind {
                ResourceType::Cluster => config.clusters == Mode::Wildcard,
                ResourceType::Listener => config.listeners == Mode::Wildcard,
                _ => false,
            };
            (kind, Type::new(wildcard))
        };
        Streams {
            protocol: config.protocol,
            open: false,
            types: ResourceType::ALL.into_iter().map(kind).collect(),
        }
    }

    pub(super) fn open(&mut self, held: impl Fn(ResourceType) -> Vec<(String, String)>) {
        self.open = true;
        for (kind, state) in &mut self.types {
            state.begun = false;
            state.nonce.clear();
            state.unsubscribe.clear();
            state.subscribe = state.names.clone();
            state.initial_versions = match self.protocol {
                ProtocolVariant::Delta => held(*kind),
                ProtocolVariant::Sotw => Vec::new(),
            };
        }
    }

    pub(super) fn close(&mut self) {
        self.open = false;
    }

    pub(super) fn subscribe(&mut self, kind: ResourceType, name: &str) {
        let Some(state) = self.types.get_mut(&kind) else {
            return;
        };
        if state.names.insert(name.to_owned()) {
            state.changed = true;
            // Sent again even if the unsubscription was not sent yet: the resource was dropped, and
            // only a subscription makes the server send it again.
            state.unsubscribe.remove(name);
            state.subscribe.insert(name.to_owned());
        }
    }

    pub(super) fn unsubscribe(&mut self, kind: ResourceType, name: &str) {
        let Some(state) = self.types.get_mut(&kind) else {
            return;
        };
        if state.names.remove(name) {
            state.changed = true;
            state.subscribe.remove(name);
            state.unsubscribe.insert(name.to_owned());
        }
    }

    /// Whether a resource of this name was asked for.
    pub(super) fn is_subscribed(&self, kind: ResourceType, name: &str) -> bool {
        self.types
            .get(&kind)
            .is_some_and(|state| state.wildcard || state.names.contains(name))
    }

    /// Whether anything of this type was ever asked for on this stream.
    pub(super) fn has_begun(&self, kind: ResourceType) -> bool {
        self.types.get(&kind).is_some_and(|state| state.begun)
    }

    pub(super) fn is_listed(&self, kind: ResourceType) -> bool {
        self.types.get(&kind).is_some_and(|state| state.listed)
    }

    pub(super) fn version(&self, kind: ResourceType) -> &str {
        self.types.get(&kind).map_or("", |state| &state.version)
    }

    pub(super) fn rejected(&self, kind: ResourceType) -> Option<&str> {
        self.types.get(&kind)?.rejected.as_deref()
    }

    /// Notes a response and queues its ACK, or with `error` its NACK.
    pub(super) fn acknowledge(
        &mut self,
        kind: ResourceType,
        nonce: String,
        version: String,
        error: Option<String>,
        outbox: &mut VecDeque<DiscoveryRequest>,
    ) {
        let Some(state) = self.types.get_mut(&kind) else {
            return;
        };
        state.listed = true;
        state.rejected.clone_from(&error);
        state.nonce = nonce;
        if error.is_none() {
            state.version_before = std::mem::replace(&mut state.version, version);
        }
        outbox.push_back(state.answer(kind, self.protocol, error));
    }

    /// A resource of the last response, or of an earlier one, could not be put in force after all:
    /// an ACK that was not sent yet becomes a NACK, otherwise a NACK follows it.
    pub(super) fn refuse(
        &mut self,
        kind: ResourceType,
        error: String,
        outbox: &mut VecDeque<DiscoveryRequest>,
    ) {
        let Some(state) = self.types.get_mut(&kind) else {
            return;
        };
        // Without a nonce there was no response on this stream, so there is none to answer.
        let is_of_response = |request: &&mut DiscoveryRequest| {
            request.kind() == kind && request.nonce() == state.nonce && !state.nonce.is_empty()
        };
        let mut queued = outbox.iter_mut().filter(is_of_response).peekable();
        let Some(answer) = queued.peek_mut() else {
            state.rejected = Some(error.clone());
            if self.open && !state.nonce.is_empty() {
                outbox.push_back(state.answer(kind, self.protocol, Some(error)));
            }
            return;
        };
        let before = answer.error().take();
        if before.is_none() {
            state.version.clone_from(&state.version_before);
        }
        let errors: Vec<String> = before.into_iter().chain([error]).collect();
        let error = Some(detail(&errors));
        answer.error().clone_from(&error);
        state.rejected = error;
        // Subscriptions that follow in the queue must name the accepted version too.
        for request in queued {
            if let DiscoveryRequest::Sotw(request) = request {
                request.version.clone_from(&state.version);
            }
        }
    }

    /// Queues the requests for changed subscriptions, in make-before-break order.
    pub(super) fn flush(&mut self, outbox: &mut VecDeque<DiscoveryRequest>) {
        if !self.open {
            return;
        }
        for kind in ResourceType::ALL {
            let Some(state) = self.types.get_mut(&kind) else {
                continue;
            };
            let request = match self.protocol {
                ProtocolVariant::Delta => state.delta_subscription(kind),
                ProtocolVariant::Sotw => state.sotw_subscription(kind),
            };
            outbox.extend(request);
        }
    }
}

impl Type {
    fn new(wildcard: bool) -> Self {
        Type {
            wildcard,
            names: BTreeSet::new(),
            subscribe: BTreeSet::new(),
            unsubscribe: BTreeSet::new(),
            changed: false,
            begun: false,
            initial_versions: Vec::new(),
            version: String::new(),
            version_before: String::new(),
            nonce: String::new(),
            listed: false,
            rejected: None,
        }
    }

    /// The ACK of the last response, or its NACK with `error`.
    fn answer(
        &mut self,
        kind: ResourceType,
        protocol: ProtocolVariant,
        error: Option<String>,
    ) -> DiscoveryRequest {
        match protocol {
            ProtocolVariant::Delta => DiscoveryRequest::Delta(DeltaRequest {
                kind,
                subscribe: Vec::new(),
                unsubscribe: Vec::new(),
                initial_versions: Vec::new(),
                nonce: self.nonce.clone(),
                error,
            }),
            ProtocolVariant::Sotw => self.sotw_request(kind, error),
        }
    }

    fn delta_subscription(&mut self, kind: ResourceType) -> Option<DiscoveryRequest> {
        let first = !self.begun && (self.wildcard || !self.names.is_empty());
        if !first && (!self.begun || self.subscribe.is_empty() && self.unsubscribe.is_empty()) {
            return None;
        }
        self.begun = true;
        let mut subscribe: Vec<String> = std::mem::take(&mut self.subscribe).into_iter().collect();
        // An empty first subscription means all; with names beside, `*` has to be sent.
        if first && self.wildcard && !subscribe.is_empty() {
            subscribe.insert(0, ALL.to_owned());
        }
        Some(DiscoveryRequest::Delta(DeltaRequest {
            kind,
            subscribe,
            unsubscribe: std::mem::take(&mut self.unsubscribe).into_iter().collect(),
            initial_versions: std::mem::take(&mut self.initial_versions),
            nonce: String::new(),
            error: None,
        }))
    }

    fn sotw_subscription(&mut self, kind: ResourceType) -> Option<DiscoveryRequest> {
        let first = !self.begun && (self.wildcard || !self.names.is_empty());
        if !first && (!self.begun || !self.changed) {
            return None;
        }
        // An empty list would subscribe to everything, so the last names stay subscribed to.
        if self.names.is_empty() && !self.wildcard {
            return None;
        }
        self.begun = true;
        Some(self.sotw_request(kind, None))
    }

    fn sotw_request(&mut self, kind: ResourceType, error: Option<String>) -> DiscoveryRequest {
        self.changed = false;
        DiscoveryRequest::Sotw(SotwRequest {
            kind,
            version: self.version.clone(),
            names: match self.wildcard {
                true => Vec::new(),
                false => self.names.iter().cloned().collect(),
            },
            nonce: self.nonce.clone(),
            error,
        })
    }
}
