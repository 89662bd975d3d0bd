//! State of one resource type on one stream: what the client subscribed to, what it was sent, what
//! still has to be looked at.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Instant;

use aws_lc_rs::digest::{Context, SHA256};
use xds_proto::type_url;

use super::budget::{HELD, MARK, NAME, sum};
use super::dispatch::Interest;
use super::resources::Resource;
use crate::text::bounded;

/// Whether a client updates by difference or by whole states.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProtocolVariant {
    Delta,
    Sotw,
}

/// The order in which a change is sent, so that nothing refers to what is not there yet:
/// secrets, clusters, endpoints, then listeners and routes, which refer to them.
pub(super) fn rank(type_url: &str) -> u8 {
    match type_url {
        type_url::SECRET => 0,
        type_url::CLUSTER => 1,
        type_url::ENDPOINT => 2,
        type_url::LISTENER => REFERRING,
        type_url::ROUTE => 4,
        _ => 5,
    }
}

/// Names marked beyond those that the client holds or subscribes to, before everything is compared.
const SPARE_MARKS: usize = 1024;

/// The first rank that refers to those below it.
pub(super) const REFERRING: u8 = 3;

/// The short name that people see.
pub fn label(type_url: &str) -> &str {
    match type_url {
        type_url::SECRET => "secrets",
        type_url::CLUSTER => "clusters",
        type_url::ENDPOINT => "endpoints",
        type_url::LISTENER => "listeners",
        type_url::ROUTE => "routes",
        type_url::WORKLOAD => "workloads",
        type_url::NAME => "names",
        other => other,
    }
}

/// What has to be compared with the newest view.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Pending {
    All,
    Names(HashSet<Arc<str>>),
}

impl Pending {
    pub(super) fn nothing() -> Self {
        Pending::Names(HashSet::new())
    }

    pub(super) fn is_nothing(&self) -> bool {
        matches!(self, Pending::Names(names) if names.is_empty())
    }

    pub(super) fn add(&mut self, name: Arc<str>) {
        if let Pending::Names(names) = self {
            names.insert(name);
        }
    }

    fn len(&self) -> usize {
        match self {
            Pending::All => 0,
            Pending::Names(names) => names.len(),
        }
    }
}

/// A resource as the client was last sent it.
#[derive(Clone, Debug)]
pub(super) struct SentResource {
    pub(super) version: Arc<str>,
    /// Kept only where a response with the whole state may have to repeat a resource that is about
    /// to be removed.
    pub(super) whole: Option<Resource>,
}

/// An update that the client refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejected {
    pub version: String,
    pub message: String,
    pub at: Instant,
}

/// A response that waits for its ACK or NACK.
#[derive(Clone, Debug)]
pub(super) struct InFlight {
    pub(super) nonce: String,
    pub(super) version: String,
}

#[derive(Debug)]
pub(super) struct Subscription {
    pub(super) type_url: Arc<str>,
    pub(super) rank: u8,
    /// Subscribed to everything in scope.
    pub(super) all: bool,
    /// SotW: an empty list means everything only until names were given once.
    pub(super) named_once: bool,
    pub(super) names: HashSet<Arc<str>>,
    /// Changes of `all` and `names` that were not yet reported to the dispatcher.
    interests: Vec<Interest>,
    held: HashMap<Arc<str>, SentResource>,
    /// XOR of the hashes of everything in `held`: the version of the whole.
    fold: u64,
    /// Bytes that `names`, `held` and `owed` take.
    bytes: usize,
    /// Names that the client has been sent as removed.
    pub(super) absent: HashSet<Arc<str>>,
    /// No longer subscribed to by name but still by `*`: the client waits for its current state.
    pub(super) owed: HashSet<Arc<str>>,
    pub(super) pending: Pending,
    /// Gone from the view, but possibly still referred to by listeners or routes the client has.
    pub(super) leaving: HashSet<Arc<str>>,
    /// The next look must answer even when it finds nothing: a client waits for it.
    pub(super) must_answer: bool,
    pub(super) in_flight: Option<InFlight>,
    pub(super) last_nonce: Option<String>,
    pub(super) sent_version: String,
    pub(super) accepted_version: String,
    pub(super) accepted_at: Option<Instant>,
    pub(super) rejected: Option<Rejected>,
}

impl Subscription {
    pub(super) fn new(type_url: &str) -> Self {
        Subscription {
            type_url: type_url.into(),
            rank: rank(type_url),
            all: false,
            named_once: false,
            names: HashSet::new(),
            interests: Vec::new(),
            held: HashMap::new(),
            fold: 0,
            bytes: 0,
            absent: HashSet::new(),
            owed: HashSet::new(),
            pending: Pending::nothing(),
            leaving: HashSet::new(),
            must_answer: false,
            in_flight: None,
            last_nonce: None,
            sent_version: String::new(),
            accepted_version: String::new(),
            accepted_at: None,
            rejected: None,
        }
    }

    /// Listeners and clusters: an empty first subscription means everything, and a whole-state
    /// response has to be whole, because what is not in it is gone.
    pub(super) fn whole_state(&self) -> bool {
        matches!(&*self.type_url, type_url::LISTENER | type_url::CLUSTER)
    }

    pub(super) fn wants(&self, name: &str) -> bool {
        self.all || self.names.contains(name)
    }

    pub(super) fn want_all(&mut self, all: bool) {
        if std::mem::replace(&mut self.all, all) != all {
            self.interested(None, all);
        }
    }

    pub(super) fn want(&mut self, name: Arc<str>) {
        if self.names.insert(Arc::clone(&name)) {
            self.bytes = sum([self.bytes, NAME, name.len()]);
            self.interested(Some(name), true);
        }
    }

    /// The name as it was subscribed to, if it was.
    pub(super) fn unwant(&mut self, name: &str) -> Option<Arc<str>> {
        let name = self.names.take(name)?;
        self.free([NAME, name.len()]);
        self.interested(Some(Arc::clone(&name)), false);
        Some(name)
    }

    fn interested(&mut self, name: Option<Arc<str>>, begins: bool) {
        self.interests.push(Interest {
            type_url: Arc::clone(&self.type_url),
            name,
            begins,
        });
    }

    pub(super) fn take_interests(&mut self) -> Vec<Interest> {
        std::mem::take(&mut self.interests)
    }

    /// Marks the names subscribed to of which `touched` holds.
    pub(super) fn mark_if(&mut self, touched: impl Fn(&str, &str) -> bool) {
        let names = self.names.iter();
        for name in names.filter(|name| touched(&self.type_url, name)) {
            self.pending.add(Arc::clone(name));
        }
    }

    pub(super) fn held(&self, name: &str) -> Option<&SentResource> {
        self.held.get(name)
    }

    pub(super) fn held_names(&self) -> impl Iterator<Item = &Arc<str>> {
        self.held.keys()
    }

    pub(super) fn held_count(&self) -> usize {
        self.held.len()
    }

    pub(super) fn has_version(&self, resource: &Resource) -> bool {
        self.held(&resource.name)
            .is_some_and(|held| held.version == resource.version)
    }

    pub(super) fn hold(&mut self, name: &Arc<str>, version: &Arc<str>, whole: Option<Resource>) {
        self.release(name);
        self.absent.remove(name);
        self.fold ^= digest(name, version);
        self.bytes = sum([self.bytes, HELD, name.len(), version.len()]);
        let version = Arc::clone(version);
        self.held
            .insert(Arc::clone(name), SentResource { version, whole });
    }

    /// Whether the client had it.
    pub(super) fn release(&mut self, name: &str) -> bool {
        let Some(held) = self.held.remove(name) else {
            return false;
        };
        self.fold ^= digest(name, &held.version);
        self.free([HELD, name.len(), held.version.len()]);
        true
    }

    fn free<const N: usize>(&mut self, sizes: [usize; N]) {
        self.bytes = self.bytes.saturating_sub(sum(sizes));
    }

    pub(super) fn owe(&mut self, name: Arc<str>) {
        let bytes = sum([self.bytes, MARK, name.len()]);
        if self.owed.insert(name) {
            self.bytes = bytes;
        }
    }

    /// Whether the client waited for its state.
    pub(super) fn settle_owed(&mut self, name: &str) -> bool {
        let owed = self.owed.remove(name);
        if owed {
            self.free([MARK, name.len()]);
        }
        owed
    }

    /// Bytes of state that names and versions take.
    pub(super) fn bytes(&self) -> usize {
        let marks = sum([self.absent.len(), self.leaving.len(), self.pending.len()]);
        sum([self.bytes, marks.saturating_mul(MARK)])
    }

    /// As [`Self::bytes`], counted anew.
    #[cfg(test)]
    pub(super) fn counted(&self) -> usize {
        let names: usize = self.names.iter().map(|name| NAME + name.len()).sum();
        let held = self.held.iter();
        let held: usize = held
            .map(|(name, held)| HELD + name.len() + held.version.len())
            .sum();
        let owed: usize = self.owed.iter().map(|name| MARK + name.len()).sum();
        let marks = self.absent.len() + self.leaving.len() + self.pending.len();
        names + held + owed + MARK * marks
    }

    /// With `*`, names that come and go while the client does not read are marked one by one. When
    /// there are more of them than it can hold, everything is compared instead.
    pub(super) fn bound_marks(&mut self) {
        if self.pending.len() > sum([self.names.len(), self.held.len(), SPARE_MARKS]) {
            self.pending = Pending::All;
        }
    }

    pub(super) fn release_unwanted(&mut self) {
        let unwanted = |name: &&Arc<str>| !self.wants(name);
        let gone: Vec<Arc<str>> = self.held.keys().filter(unwanted).cloned().collect();
        for name in gone {
            self.release(&name);
            self.leaving.remove(&name);
        }
        let names = &self.names;
        self.absent.retain(|name| names.contains(name));
        if !self.all {
            for name in std::mem::take(&mut self.owed) {
                self.free([MARK, name.len()]);
            }
        }
        let names = &self.names;
        if let (false, Pending::Names(pending)) = (self.all, &mut self.pending) {
            pending.retain(|name| names.contains(name));
        }
    }

    /// The version of everything the client holds.
    pub(super) fn version(&self) -> String {
        format!("{:016x}", self.fold)
    }

    /// What the client holds from an earlier stream it accepted there.
    pub(super) fn accepted_before(&mut self, now: Instant) {
        if !self.held.is_empty() {
            self.sent_version = self.version();
            self.accepted_version = self.version();
            self.accepted_at = Some(now);
        }
    }

    /// Nothing waits to be sent, answered, or was refused: what this type refers to is what it
    /// says in the newest view.
    pub(super) fn settled(&self) -> bool {
        let wants_nothing = !self.all && self.names.is_empty();
        let accepted = self.rejected.is_none() || wants_nothing;
        self.pending.is_nothing() && self.in_flight.is_none() && accepted
    }

    /// Matches a response nonce with the response in flight. A NACK also leaves `held` as it is:
    /// the same bytes would be refused again, and only a change is worth another try.
    pub(super) fn answered(&mut self, nonce: &str, error: Option<&str>, now: Instant) {
        let Some(in_flight) = self.in_flight.take_if(|sent| sent.nonce == nonce) else {
            return;
        };
        match error {
            Some(message) => {
                self.rejected = Some(Rejected {
                    version: in_flight.version,
                    message: bounded(message),
                    at: now,
                });
            }
            None => {
                self.rejected = None;
                self.accepted_version = in_flight.version;
                self.accepted_at = Some(now);
            }
        }
    }
}

/// Equal states have equal versions on every stream, after a restart and in every release.
fn digest(name: &str, version: &str) -> u64 {
    let mut hash = Context::new(&SHA256);
    hash.update(&(name.len() as u64).to_be_bytes());
    hash.update(name.as_bytes());
    hash.update(version.as_bytes());
    let first = hash.finish().as_ref().first_chunk().copied();
    first.map_or(0, u64::from_be_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_the_same_in_every_release() {
        let mut kind = Subscription::new(type_url::CLUSTER);
        assert_eq!(kind.version(), "0000000000000000");
        for (name, version) in [("a", "1"), ("b", "2")] {
            kind.hold(&name.into(), &version.into(), None);
        }
        assert_eq!(kind.version(), "15ec6fc4fb169e8d");
        // Another order, and one that came and went.
        let mut other = Subscription::new(type_url::CLUSTER);
        for (name, version) in [("b", "2"), ("a", "0"), ("c", "3"), ("a", "1")] {
            other.hold(&name.into(), &version.into(), None);
        }
        other.release("c");
        assert_eq!(other.version(), kind.version());
        assert_ne!(digest("ab", "c"), digest("a", "bc"));
    }
}
