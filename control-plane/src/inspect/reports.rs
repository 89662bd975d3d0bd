//! What the proxies of some replicas report: the ends of edges, each summed over the window.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::tally::Tally;

/// An edge as one of its ends reports it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) struct EdgeKey {
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

/// One report over the window.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct EdgeReport {
    pub(super) key: EdgeKey,
    pub(super) tally: Tally,
    /// Seconds that the tally covers.
    pub(super) seconds: f64,
    pub(super) open: u64,
    pub(super) idle: Duration,
}

impl EdgeReport {
    /// Of the same edge, by a proxy that went from one replica to another: each has counted a part of
    /// the window. As two, the edge would have the sum of their rates.
    fn add(&mut self, other: &EdgeReport) {
        self.tally.add(&other.tally);
        self.seconds = self.seconds.max(other.seconds);
        self.open = self.open.saturating_add(other.open);
        self.idle = self.idle.min(other.idle);
    }
}

/// What the proxies of some replicas report, each edge summed over the window.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct GraphReports {
    pub(super) reports: Vec<EdgeReport>,
    /// Edges that were not kept.
    pub(super) dropped: u64,
}

/// Edges of which a namespace is shown something.
pub(super) struct ShownEdges<'a> {
    namespace: &'a str,
    /// Workloads that it calls without the name of a service. Others may call them by one.
    unnamed: HashSet<(&'a str, &'a str)>,
}

impl<'a> ShownEdges<'a> {
    pub(super) fn new(namespace: &'a str, all: impl Iterator<Item = &'a EdgeKey>) -> Self {
        let mut shown = ShownEdges {
            namespace,
            unnamed: HashSet::new(),
        };
        if !namespace.is_empty() {
            let of = |key: &&EdgeKey| shown.touches(key) && key.destination_service.is_empty();
            let called = |key: &'a EdgeKey| {
                let workload = &*key.destination_workload;
                (&*key.destination_namespace, workload)
            };
            shown.unnamed = all.filter(of).map(called).collect();
        }
        shown
    }

    fn touches(&self, key: &EdgeKey) -> bool {
        self.namespace.is_empty()
            || key.source_namespace == self.namespace
            || key.destination_namespace == self.namespace
    }

    pub(super) fn has(&self, key: &EdgeKey) -> bool {
        let called = (&*key.destination_namespace, &*key.destination_workload);
        self.touches(key) || (!key.destination_service.is_empty() && self.unnamed.contains(&called))
    }
}

impl GraphReports {
    /// A copy of what touches a namespace (empty: all).
    pub fn of_namespace(&self, namespace: &str) -> Self {
        let shown = ShownEdges::new(namespace, self.reports.iter().map(|it| &it.key));
        let reports = self.reports.iter().filter(|report| shown.has(&report.key));
        GraphReports {
            reports: reports.cloned().collect(),
            dropped: self.dropped,
        }
    }

    /// Of all of these replicas. Both ends of an edge may report to different ones, and a proxy to one
    /// after the other.
    pub fn of_all(parts: impl IntoIterator<Item = GraphReports>) -> Self {
        let mut all = GraphReports::default();
        for part in parts {
            all.reports.extend(part.reports);
            all.dropped = all.dropped.saturating_add(part.dropped);
        }
        name_as_callers_do(&mut all.reports);
        all.reports.sort_by(|a, b| a.key.cmp(&b.key));
        all.reports.dedup_by(|later, kept| {
            let same = later.key == kept.key;
            if same {
                kept.add(later);
            }
            same
        });
        all
    }
}

/// A workload may serve several services on one port and cannot determine by which of them it was
/// called; its callers can. So the workload's own report of the same calls is filed under the
/// service that its callers report, as long as that is a service of the workload's own namespace: a
/// service has no endpoints in another, and no caller names another tenant's edges. If callers
/// report several services, it is the one that the workload itself reports.
fn name_as_callers_do(reports: &mut [EdgeReport]) {
    let ends = |key: &EdgeKey| {
        [
            &key.source_namespace,
            &key.source_workload,
            &key.destination_namespace,
            &key.destination_workload,
            &key.protocol,
        ]
        .map(String::clone)
    };
    let mut names: HashMap<_, BTreeMap<String, String>> = HashMap::new();
    for report in reports.iter().filter(|report| report.key.by_source) {
        let key = &report.key;
        let (service, version) = (&key.destination_service, &key.destination_version);
        let called = names.entry(ends(key)).or_default();
        called.insert(service.clone(), version.clone());
    }
    for report in reports.iter_mut().filter(|report| !report.key.by_source) {
        let Some(called) = names.get(&ends(&report.key)) else {
            continue;
        };
        let own = called.get_key_value(&report.key.destination_service);
        if let Some((service, version)) = own.or_else(|| called.first_key_value()) {
            report.key.destination_service.clone_from(service);
            report.key.destination_version.clone_from(version);
        }
    }
}
