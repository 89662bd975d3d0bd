//! Traffic as proxies report it, in a short sliding window. Sans-IO: time comes in.
//!
//! Each proxy speaks only for itself: its own end of an edge is what its certificate says. Memory
//! is bounded by the number of edges; beyond it edges are dropped and counted.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use xds_proto::anyam::inspect::v1::{Edge as Reported, Reporter};

use super::latency::{BUCKETS, Counts};
use crate::ads::subscription::bounded;

const SLOTS: usize = 10;
const SLOT: Duration = Duration::from_secs(3);
/// How far back rates look.
pub const WINDOW: Duration = Duration::from_secs(30);
/// An edge without traffic stays visible as idle for this long.
const FORGET: Duration = Duration::from_secs(600);
const MAX_EDGES: usize = 20_000;
const MAX_NAME: usize = 256;
const MAX_FLAGS: usize = 16;

/// One end's account of one edge.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Key {
    pub(super) by_source: bool,
    pub(super) source_namespace: String,
    pub(super) source_workload: String,
    pub(super) source_identity: String,
    pub(super) destination_namespace: String,
    pub(super) destination_service: String,
    pub(super) destination_workload: String,
    pub(super) destination_identity: String,
    pub(super) destination_version: String,
    pub(super) protocol: String,
    pub(super) mtls: bool,
}

/// What was counted, in one slot or over the window.
#[derive(Clone, Debug, Default)]
pub(super) struct Tally {
    pub(super) requests: u64,
    pub(super) failures: u64,
    pub(super) denied: u64,
    pub(super) opened: u64,
    pub(super) sent: u64,
    pub(super) received: u64,
    pub(super) latency: Counts,
    pub(super) flags: BTreeMap<String, u64>,
}

impl Tally {
    pub(super) fn add(&mut self, other: &Tally) {
        self.requests += other.requests;
        self.failures += other.failures;
        self.denied += other.denied;
        self.opened += other.opened;
        self.sent += other.sent;
        self.received += other.received;
        for (mine, theirs) in self.latency.iter_mut().zip(other.latency) {
            *mine += theirs;
        }
        for (flag, count) in &other.flags {
            if self.flags.len() < MAX_FLAGS || self.flags.contains_key(flag) {
                *self.flags.entry(flag.clone()).or_default() += count;
            }
        }
    }

    fn of(edge: &Reported) -> Tally {
        let mut latency = [0; BUCKETS];
        for (mine, theirs) in latency.iter_mut().zip(&edge.latency) {
            *mine = *theirs;
        }
        let flags = edge.response_flags.iter().take(MAX_FLAGS);
        Tally {
            requests: edge.requests,
            failures: edge.failures,
            denied: edge.denied,
            opened: edge.connections_opened,
            sent: edge.bytes_sent,
            received: edge.bytes_received,
            latency,
            flags: flags.map(|(flag, count)| (short(flag), *count)).collect(),
        }
    }
}

struct Series {
    /// Slot number → what was counted in it; at most [`SLOTS`].
    slots: Vec<(u64, Tally)>,
    since: Instant,
    last: Instant,
    opened: u64,
    closed: u64,
}

/// One account over the window.
pub(super) struct Account {
    pub(super) key: Key,
    pub(super) tally: Tally,
    /// Seconds that the tally covers.
    pub(super) seconds: f64,
    pub(super) open: u64,
    pub(super) idle: Duration,
}

/// The workload that a report comes from, as its credential says.
#[derive(Clone, Copy, Debug)]
pub struct Speaker<'a> {
    pub namespace: &'a str,
    pub workload: &'a str,
}

pub struct Graph {
    start: Instant,
    edges: HashMap<Key, Series>,
    dropped: u64,
}

impl Graph {
    pub fn new(now: Instant) -> Self {
        Graph {
            start: now,
            edges: HashMap::new(),
            dropped: 0,
        }
    }

    /// Takes one report, which covers the `interval` before `now`. Tells how many edges were
    /// dropped because the table is full.
    pub fn report(
        &mut self,
        speaker: Speaker<'_>,
        edges: &[Reported],
        interval: Duration,
        now: Instant,
    ) -> u64 {
        let slot = self.slot(now);
        let mut dropped = 0;
        let mut swept = false;
        for edge in edges {
            let key = key(speaker, edge);
            if !swept && !self.edges.contains_key(&key) && self.edges.len() >= MAX_EDGES {
                swept = true;
                self.forget(now);
            }
            if !self.edges.contains_key(&key) && self.edges.len() >= MAX_EDGES {
                dropped += 1;
                continue;
            }
            let series = self.edges.entry(key).or_insert_with(|| Series {
                slots: Vec::new(),
                since: now.checked_sub(interval).unwrap_or(now),
                last: now,
                opened: 0,
                closed: 0,
            });
            series.opened += edge.connections_opened;
            series.closed += edge.connections_closed;
            series.last = now;
            series.slots.retain(|(at, _)| at + SLOTS as u64 > slot);
            let tally = Tally::of(edge);
            match series.slots.last_mut() {
                Some((at, newest)) if *at == slot => newest.add(&tally),
                _ => series.slots.push((slot, tally)),
            }
        }
        self.dropped += dropped;
        dropped
    }

    pub fn dropped(&self) -> u64 {
        self.dropped
    }

    fn slot(&self, now: Instant) -> u64 {
        now.saturating_duration_since(self.start).as_secs() / SLOT.as_secs()
    }

    fn forget(&mut self, now: Instant) {
        let idle = |series: &Series| now.saturating_duration_since(series.last);
        self.edges
            .retain(|_, series| idle(series) < FORGET || series.opened > series.closed);
    }

    /// Every account, each summed over the window.
    pub(super) fn accounts(&self, now: Instant) -> Vec<Account> {
        let newest = self.slot(now);
        let account = |(key, series): (&Key, &Series)| {
            let mut tally = Tally::default();
            let recent = |(at, _): &&(u64, Tally)| at + SLOTS as u64 > newest;
            for (_, counted) in series.slots.iter().filter(recent) {
                tally.add(counted);
            }
            let age = now.saturating_duration_since(series.since);
            Account {
                key: key.clone(),
                tally,
                seconds: age.clamp(Duration::from_secs(1), WINDOW).as_secs_f64(),
                open: series.opened.saturating_sub(series.closed),
                idle: now.saturating_duration_since(series.last),
            }
        };
        let mut accounts: Vec<Account> = self
            .edges
            .iter()
            .filter(|(_, series)| now.saturating_duration_since(series.last) < FORGET)
            .map(account)
            .collect();
        name_as_callers_do(&mut accounts);
        accounts.sort_by(|a, b| a.key.cmp(&b.key));
        accounts
    }
}

/// A workload may serve several services and cannot tell by which of them it was called; its
/// callers know. What they call it is what its own account of the same calls is filed under.
fn name_as_callers_do(accounts: &mut [Account]) {
    let ends = |key: &Key| {
        [
            &key.source_namespace,
            &key.source_workload,
            &key.destination_namespace,
            &key.destination_workload,
            &key.protocol,
        ]
        .map(String::clone)
    };
    let mut names = HashMap::new();
    for account in accounts.iter().filter(|account| account.key.by_source) {
        let name = (
            account.key.destination_service.clone(),
            account.key.destination_version.clone(),
        );
        names.insert(ends(&account.key), name);
    }
    for account in accounts.iter_mut().filter(|account| !account.key.by_source) {
        if let Some((service, version)) = names.get(&ends(&account.key)) {
            account.key.destination_service.clone_from(service);
            account.key.destination_version.clone_from(version);
        }
    }
}

fn short(text: &str) -> String {
    let mut text = bounded(text);
    if let Some((at, _)) = text.char_indices().nth(MAX_NAME) {
        text.truncate(at);
    }
    text
}

fn key(speaker: Speaker<'_>, edge: &Reported) -> Key {
    let by_source = edge.reporter() == Reporter::Source;
    let known = |name: &str| match name {
        "unknown" => String::new(),
        name => short(name),
    };
    let namespace = known(&edge.destination_namespace);
    let (service, namespace) = service_name(&known(&edge.destination_service), &namespace);
    let mut key = Key {
        by_source,
        source_namespace: short(&edge.source_namespace),
        source_workload: short(&edge.source_workload),
        source_identity: known(&edge.source_identity),
        destination_namespace: namespace,
        destination_service: service,
        destination_workload: known(&edge.destination_workload),
        destination_identity: known(&edge.destination_identity),
        destination_version: known(&edge.destination_version),
        protocol: short(&edge.protocol),
        mtls: edge.security == "mutual_tls",
    };
    if by_source {
        key.source_namespace = speaker.namespace.to_owned();
        key.source_workload = speaker.workload.to_owned();
    } else {
        key.destination_namespace = speaker.namespace.to_owned();
        key.destination_workload = speaker.workload.to_owned();
    }
    key
}

/// `web.shop.svc.cluster.local` → (`web`, `shop`); other names stay whole.
fn service_name(service: &str, namespace: &str) -> (String, String) {
    let mut parts = service.split('.');
    match (parts.next(), parts.next(), parts.next()) {
        (Some(name), Some(of), Some("svc")) => (short(name), short(of)),
        (Some(name), Some(of), None) if of == namespace => (short(name), short(of)),
        _ => (short(service), short(namespace)),
    }
}
