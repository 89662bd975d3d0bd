//! The ADS client as a state machine: no sockets, no clock, no randomness of its own.
//!
//! - this file: the state, what comes in (`connected`, `receive`, `want`, `tick`) and what goes out
//!   (`next_request`, `take_changes`, `take_answers`, `next_deadline`)
//! - `entry`: one resource and its life
//! - `stream`: subscriptions, nonces, ACK and NACK, delta and state-of-the-world
//! - `receive`: responses
//! - `warm`: references, warming, make-before-break
//! - `publication`: changes that were published, and changes that could not be
//! - `demand`: names subscribed to for the data path, and their limits
//!
//! A resource in force stays until a newer version of it was accepted *and* everything that one
//! refers to is there (or its time to wait is over). What nothing refers to any more is let go only
//! after what replaced it is in force. A rejected resource changes nothing but the report.

mod demand;
mod entry;
mod publication;
mod receive;
mod stream;
mod warm;

#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod tests_demand;

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;

use self::entry::{AcceptedVersion, Entry};
use self::publication::TakenChange;
use self::stream::Streams;
use super::message::{DiscoveryRequest, DiscoveryResponse, ProtocolVariant};
use super::resource_type::{Key, ResourceType};

pub use self::demand::DemandResult;
pub use self::entry::ResourceStatus;

/// How resources of a type are subscribed to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Not at all: the bootstrap gives no source for them.
    Off,
    /// Wildcard: all resources of the type.
    Wildcard,
    /// By name: what other resources refer to, and what the data path asks for.
    Named,
}

#[derive(Clone, Debug)]
pub struct Config {
    pub protocol: ProtocolVariant,
    pub clusters: Mode,
    pub listeners: Mode,
    /// Subscribed to from the start and for ever.
    pub roots: Vec<Key>,
    /// How long the first configuration is waited for, and what a resource refers to, unless the
    /// resource sets it. Envoy's `initial_fetch_timeout`.
    pub init_timeout: Duration,
    /// How long the server's "no such resource" is remembered.
    pub miss_ttl: Duration,
    /// On-demand subscriptions of one type, absent ones included.
    pub max_on_demand: usize,
    /// Resources of one type.
    pub max_resources: usize,
    /// Bytes of one resource.
    pub max_resource_bytes: usize,
    /// Without a stream for longer than this, what is not known is not waited for.
    pub disconnect_timeout: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            protocol: ProtocolVariant::Delta,
            clusters: Mode::Wildcard,
            listeners: Mode::Wildcard,
            roots: Vec::new(),
            init_timeout: Duration::from_secs(15),
            miss_ttl: Duration::from_secs(10),
            max_on_demand: 4096,
            max_resources: 100_000,
            max_resource_bytes: 16 << 20,
            disconnect_timeout: Duration::from_secs(3),
        }
    }
}

/// A resource after validation.
#[derive(Clone, Debug)]
pub struct Validated<T> {
    /// The name inside the resource.
    pub name: String,
    pub value: T,
    /// What it refers to that comes over this stream too.
    pub refs: Vec<Key>,
    /// The longest it waits for those; `None`: [`Config::init_timeout`].
    pub initial_fetch_timeout: Option<Duration>,
}

/// Validates resources: the compiler, or a test's stand-in. `name`: what the wrapper calls it;
/// empty without a wrapper.
pub trait Validate {
    type Value: Clone;

    /// # Errors
    /// Field path and what is wrong there.
    fn validate(
        &mut self,
        kind: ResourceType,
        name: &str,
        body: &Bytes,
    ) -> Result<Validated<Self::Value>, String>;
}

/// A step towards the next snapshot. Steps are in an order in which each leaves a working state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change<T> {
    Upsert(Key, T),
    Remove(Key),
}

impl<T> Change<T> {
    pub fn key(&self) -> &Key {
        match self {
            Self::Upsert(key, _) | Self::Remove(key) => key,
        }
    }
}

/// The moment, on both clocks.
#[derive(Clone, Copy, Debug)]
pub struct Now {
    pub instant: Instant,
    pub time: SystemTime,
}

/// A time beyond any that is waited for: no configured duration overflows it.
const FAR: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

fn after(since: Instant, wait: Duration) -> Instant {
    since.checked_add(wait.min(FAR)).unwrap_or(since)
}

impl Now {
    pub(super) fn after(self, wait: Duration) -> Instant {
        after(self.instant, wait)
    }

    /// As of now.
    pub fn read() -> Self {
        Now {
            instant: Instant::now(),
            time: SystemTime::now(),
        }
    }
}

/// See the module.
pub struct Cache<T> {
    config: Config,
    entries: HashMap<Key, Entry<T>>,
    /// By kind, how many resources are in force or pending.
    held: HashMap<ResourceType, usize>,
    /// By kind, how many the data path asked for.
    on_demand: HashMap<ResourceType, usize>,
    /// The keys that refer to a key, in force or pending.
    dependants: HashMap<Key, HashSet<Key>>,
    streams: Streams,
    outbox: VecDeque<DiscoveryRequest>,
    changes: Vec<Change<T>>,
    /// The versions that `changes` replace, until the changes are published.
    replaced: BTreeMap<Key, AcceptedVersion>,
    /// The keys of which a version is in force: what removals are about.
    in_force: HashSet<Key>,
    /// What the changes that were taken last make of that, until they are published.
    taken: HashMap<Key, TakenChange>,
    answers: Vec<(Key, DemandResult)>,
    /// Keys whose dependencies may have arrived.
    dirty: VecDeque<Key>,
    /// When to look at a key again; the number distinguishes equal instants.
    timers: BTreeMap<(Instant, u64), Key>,
    sequence: u64,
    /// `None` while connected; else since when not.
    disconnected: Option<Instant>,
    started: Instant,
    last_received: Option<SystemTime>,
    /// Responses for types that are not subscribed to.
    pub unknown_types: u64,
}

impl<T> Cache<T> {
    pub fn new(config: Config, now: Now) -> Self {
        let mut cache = Cache {
            streams: Streams::new(&config),
            entries: HashMap::new(),
            held: HashMap::new(),
            on_demand: HashMap::new(),
            dependants: HashMap::new(),
            outbox: VecDeque::new(),
            changes: Vec::new(),
            replaced: BTreeMap::new(),
            in_force: HashSet::new(),
            taken: HashMap::new(),
            answers: Vec::new(),
            dirty: VecDeque::new(),
            timers: BTreeMap::new(),
            sequence: 0,
            disconnected: Some(now.instant),
            started: now.instant,
            last_received: None,
            unknown_types: 0,
            config,
        };
        for root in cache.config.roots.clone() {
            cache.pin(&root, None);
        }
        cache
    }

    /// A stream is open: sends the subscriptions and the versions held.
    pub fn connected(&mut self, now: Now) {
        self.disconnected = None;
        self.outbox.clear();
        let held = |kind: ResourceType| {
            let entries = self.entries.iter();
            let mut versions: Vec<(String, String)> = entries
                .filter(|(key, _)| key.kind == kind)
                .filter_map(|(key, entry)| {
                    Some((key.name.clone(), entry.newest()?.version.clone()))
                })
                .collect();
            versions.sort();
            versions
        };
        self.streams.open(held);
        self.flush();
        self.settle(now);
    }

    /// The stream ended. What is in force stays.
    pub fn disconnected(&mut self, now: Now) {
        self.disconnected.get_or_insert(now.instant);
        self.outbox.clear();
        self.streams.close();
        let fetch_deadline = now.after(self.config.disconnect_timeout);
        let waiting: Vec<Key> = self.waiting().cloned().collect();
        for key in waiting {
            self.look_again_at(fetch_deadline, key);
        }
    }

    pub fn is_connected(&self) -> bool {
        self.disconnected.is_none()
    }

    /// Takes in a response.
    pub fn receive<J: Validate<Value = T>>(
        &mut self,
        response: DiscoveryResponse,
        validator: &mut J,
        now: Now,
    ) {
        self.last_received = Some(now.time);
        match response {
            DiscoveryResponse::Delta(response) => self.receive_delta(response, validator, now),
            DiscoveryResponse::Sotw(response) => self.receive_sotw(response, validator, now),
        }
        self.settle(now);
        self.flush();
    }

    /// Time has passed.
    pub fn tick(&mut self, now: Now) {
        while let Some(timer) = self.timers.first_entry() {
            if timer.key().0 > now.instant {
                break;
            }
            let key = timer.remove();
            self.look_at(&key, now);
        }
        self.settle(now);
        self.flush();
    }

    /// When the first configuration is waited for no longer.
    pub fn initial_deadline(&self) -> Instant {
        after(self.started, self.config.init_timeout)
    }

    /// When [`Cache::tick`] is wanted next.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.timers.keys().next().map(|(instant, _)| *instant)
    }

    pub fn next_request(&mut self) -> Option<DiscoveryRequest> {
        self.outbox.pop_front()
    }

    /// Answers to [`Cache::want`], to be given after the changes were published.
    pub fn take_answers(&mut self) -> Vec<(Key, DemandResult)> {
        std::mem::take(&mut self.answers)
    }

    /// Whether the first configuration is in force: every type asked for as a whole has come, all
    /// roots are answered, nothing that was there at first waits, or the time to wait is over.
    pub fn is_initialised(&self, now: Now) -> bool {
        if now.instant >= self.initial_deadline() {
            return true;
        }
        let kinds = [
            (ResourceType::Cluster, self.config.clusters),
            (ResourceType::Listener, self.config.listeners),
        ];
        let listed = kinds
            .iter()
            .all(|(kind, mode)| *mode != Mode::Wildcard || self.streams.is_listed(*kind));
        listed
            && self.config.roots.iter().all(|key| self.is_met(key))
            && self.entries.values().all(|entry| !entry.is_warming())
    }

    /// Every resource and its status, for dumps and reports.
    pub fn resources(&self) -> impl Iterator<Item = (&Key, ResourceStatus<'_>)> {
        self.entries
            .iter()
            .map(|(key, entry)| (key, entry.status()))
    }

    /// Of one type: the version last accepted (state-of-the-world) or sent by the server (delta).
    pub fn type_version(&self, kind: ResourceType) -> &str {
        self.streams.version(kind)
    }

    /// The last rejected response of any type, until an accepted one of its type replaced it.
    pub fn rejected(&self) -> Option<&str> {
        ResourceType::ALL
            .into_iter()
            .find_map(|kind| self.streams.rejected(kind))
    }

    pub fn last_received(&self) -> Option<SystemTime> {
        self.last_received
    }

    fn mode(&self, kind: ResourceType) -> Mode {
        match kind {
            ResourceType::Cluster => self.config.clusters,
            ResourceType::Listener => self.config.listeners,
            _ => Mode::Named,
        }
    }

    fn look_again_at(&mut self, at: Instant, key: Key) {
        self.sequence = self.sequence.wrapping_add(1);
        self.timers.insert((at, self.sequence), key);
    }

    fn flush(&mut self) {
        if self.disconnected.is_none() {
            self.streams.flush(&mut self.outbox);
        }
    }
}
