//! Traffic as proxies report it, in a short sliding window. Sans-IO: time comes in.
//!
//! A proxy reports only edges of its own: their near end is its certificate's identity. Each has
//! a share of the table, in which its newest edges displace those without traffic; when the table is
//! full, edges of the largest share are removed. What a proxy reported is removed soon after it
//! left.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use xds_proto::anyam::inspect::v1::{Edge as Reported, Reporter};

use super::reports::{EdgeKey, EdgeReport, GraphReports, ShownEdges};
use super::tally::{Tally, short};

const SLOTS: usize = 10;
const SLOT_SECONDS: u64 = 3;
const SLOT: Duration = Duration::from_secs(SLOT_SECONDS);
/// How far back rates look.
pub const WINDOW: Duration = Duration::from_secs(30);
/// An edge without traffic stays visible as idle for this long.
const FORGET: Duration = Duration::from_secs(600);
const MAX_EDGES: usize = 20_000;
/// Of one proxy: as many as a proxy keeps itself.
const MAX_SHARE: usize = 2_001;
/// How long a proxy without a stream may take to return (stream moved, restart) before its edges are
/// removed.
const ABSENCE: Duration = Duration::from_secs(60);

struct Series {
    /// Slot number → what was counted in it; at most [`SLOTS`].
    slots: Vec<(u64, Tally)>,
    since: Instant,
    last: Instant,
    opened: u64,
    closed: u64,
}

/// The workload that a report comes from, by its credential.
#[derive(Clone, Copy, Debug)]
pub struct ReportingProxy<'a> {
    pub namespace: &'a str,
    pub workload: &'a str,
    pub service_account: &'a str,
}

impl ReportingProxy<'_> {
    fn name(&self) -> Name {
        (self.namespace.to_owned(), self.workload.to_owned())
    }

    /// Whether an identity that it reports as its own is.
    fn is(&self, identity: &str) -> bool {
        let path = identity
            .strip_prefix("spiffe://")
            .and_then(|id| id.split_once("/ns/"));
        let own = path.and_then(|(_, path)| path.split_once("/sa/"));
        own == Some((self.namespace, self.service_account))
    }
}

/// What one proxy reported.
#[derive(Default)]
struct Share {
    edges: HashMap<EdgeKey, Series>,
    /// Its open streams.
    streams: usize,
    /// Since when it has none.
    left: Option<Instant>,
}

impl Share {
    /// Makes room by forgetting the eighth without traffic for the longest time, but nothing that
    /// `now` brought. Returns how many were removed.
    fn make_room(&mut self, now: Instant) -> usize {
        let mut ages: Vec<Instant> = self.edges.values().map(|series| series.last).collect();
        let few = ages.len() / 8;
        let (_, oldest, _) = match ages.is_empty() {
            true => return 0,
            false => ages.select_nth_unstable(few),
        };
        let (oldest, before) = (*oldest, self.edges.len());
        let mut left = few.saturating_add(1);
        self.edges.retain(|_, series| {
            let stays = series.last > oldest || series.last >= now || left == 0;
            left = left.saturating_sub(usize::from(!stays));
            stays
        });
        before.saturating_sub(self.edges.len())
    }
}

type Name = (String, String);

pub struct Graph {
    start: Instant,
    shares: HashMap<Name, Share>,
    edges: usize,
    dropped: u64,
    /// When stale edges were last removed.
    swept: Instant,
}

impl Graph {
    pub fn new(now: Instant) -> Self {
        Graph {
            start: now,
            shares: HashMap::new(),
            edges: 0,
            dropped: 0,
            swept: now,
        }
    }

    /// A stream of this reporter opened.
    pub fn joined(&mut self, reporter: ReportingProxy<'_>, now: Instant) {
        self.sweep(now);
        let share = self.shares.entry(reporter.name()).or_default();
        share.streams = share.streams.saturating_add(1);
        share.left = None;
    }

    /// A stream of this reporter ended.
    pub fn left(&mut self, reporter: ReportingProxy<'_>, now: Instant) {
        if let Some(share) = self.shares.get_mut(&reporter.name()) {
            share.streams = share.streams.saturating_sub(1);
            if share.streams == 0 {
                share.left = Some(now);
            }
        }
        self.sweep(now);
    }

    fn sweep(&mut self, now: Instant) {
        if now.saturating_duration_since(self.swept) >= SLOT {
            self.forget(now);
        }
    }

    /// Takes one report, which covers the `interval` before `now`. Returns how many edges were
    /// dropped because its share, or the table, is full.
    pub fn report(
        &mut self,
        reporter: ReportingProxy<'_>,
        edges: &[Reported],
        interval: Duration,
        now: Instant,
    ) -> u64 {
        let slot = self.slot(now);
        let name = reporter.name();
        let mut dropped = 0u64;
        for edge in edges {
            let key = key(reporter, edge);
            let share = self.shares.entry(name.clone()).or_default();
            if !share.edges.contains_key(&key) {
                if !self.has_room(&name, now) {
                    dropped = dropped.saturating_add(1);
                    continue;
                }
                self.edges = self.edges.saturating_add(1);
            }
            let share = self.shares.entry(name.clone()).or_default();
            let series = share.edges.entry(key).or_insert_with(|| Series {
                slots: Vec::new(),
                since: now.checked_sub(interval).unwrap_or(now),
                last: now,
                opened: 0,
                closed: 0,
            });
            series.opened = series.opened.saturating_add(edge.connections_opened);
            series.closed = series.closed.saturating_add(edge.connections_closed);
            series.last = now;
            series
                .slots
                .retain(|(at, _)| at.saturating_add(SLOTS as u64) > slot);
            let tally = Tally::of(edge);
            match series.slots.last_mut() {
                Some((at, newest)) if *at == slot => newest.add(&tally),
                _ => series.slots.push((slot, tally)),
            }
        }
        self.dropped = self.dropped.saturating_add(dropped);
        dropped
    }

    fn slot(&self, now: Instant) -> u64 {
        now.saturating_duration_since(self.start).as_secs() / SLOT_SECONDS
    }

    /// Whether one more edge of `name` fits, once what may go has gone.
    fn has_room(&mut self, name: &Name, now: Instant) -> bool {
        let share = self.shares.get_mut(name);
        if let Some(share) = share.filter(|share| share.edges.len() >= MAX_SHARE) {
            let gone = share.make_room(now);
            self.edges = self.edges.saturating_sub(gone);
            if gone == 0 {
                return false;
            }
        }
        if self.edges < MAX_EDGES {
            return true;
        }
        self.forget(now);
        if self.edges >= MAX_EDGES {
            let most = self
                .shares
                .values_mut()
                .max_by_key(|share| share.edges.len());
            let gone = most.map_or(0, |share| share.make_room(now));
            self.edges = self.edges.saturating_sub(gone);
        }
        self.edges < MAX_EDGES
    }

    /// Removes the shares of proxies that have left, and edges at rest without a connection.
    fn forget(&mut self, now: Instant) {
        self.swept = now;
        let since = |at: Instant| now.saturating_duration_since(at);
        self.shares
            .retain(|_, share| share.left.is_none_or(|left| since(left) < ABSENCE));
        for share in self.shares.values_mut() {
            share
                .edges
                .retain(|_, series| since(series.last) < FORGET || series.opened > series.closed);
        }
        self.edges = self.shares.values().map(|share| share.edges.len()).sum();
    }

    /// Reports of edges that touch a namespace (empty: all), each summed over the window.
    pub fn reports(&self, namespace: &str, now: Instant) -> GraphReports {
        let newest = self.slot(now);
        let report = |open: bool, key: &EdgeKey, series: &Series| {
            let mut tally = Tally::default();
            let recent = |(at, _): &&(u64, Tally)| at.saturating_add(SLOTS as u64) > newest;
            for (_, counted) in series.slots.iter().filter(recent) {
                tally.add(counted);
            }
            let age = now.saturating_duration_since(series.since);
            EdgeReport {
                key: key.clone(),
                tally,
                seconds: age.clamp(Duration::from_secs(1), WINDOW).as_secs_f64(),
                // A proxy that has left has no connections.
                open: match open {
                    true => series.opened.saturating_sub(series.closed),
                    false => 0,
                },
                idle: now.saturating_duration_since(series.last),
            }
        };
        let since = |at: Instant| now.saturating_duration_since(at);
        let present = |share: &&Share| share.left.is_none_or(|left| since(left) < ABSENCE);
        let edges = || {
            self.shares
                .values()
                .filter(present)
                .flat_map(|it| &it.edges)
        };
        let shown = ShownEdges::new(namespace, edges().map(|(key, _)| key));
        let mut reports = Vec::new();
        for share in self.shares.values().filter(present) {
            for (key, series) in &share.edges {
                if since(series.last) < FORGET && shown.has(key) {
                    reports.push(report(share.left.is_none(), key, series));
                }
            }
        }
        GraphReports {
            reports,
            dropped: self.dropped,
        }
    }
}

fn key(reporter: ReportingProxy<'_>, edge: &Reported) -> EdgeKey {
    let by_source = edge.reporter() == Reporter::Source;
    let known = |name: &str| match name {
        "unknown" => String::new(),
        name => short(name),
    };
    let namespace = known(&edge.destination_namespace);
    let (service, namespace) = service_name(&known(&edge.destination_service), &namespace);
    let mut key = EdgeKey {
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
        key.source_namespace = reporter.namespace.to_owned();
        key.source_workload = reporter.workload.to_owned();
        if !reporter.is(&key.source_identity) {
            key.source_identity.clear();
        }
    } else {
        key.destination_namespace = reporter.namespace.to_owned();
        key.destination_workload = reporter.workload.to_owned();
        if !reporter.is(&key.destination_identity) {
            key.destination_identity.clear();
        }
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
