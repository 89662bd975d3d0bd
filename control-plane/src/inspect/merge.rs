//! Merges the two reports of one edge: numbers from the caller, refusals and the caller's identity
//! from the callee.

use super::graph::WINDOW;
use super::latency::percentile;
use super::reports::{EdgeReport, GraphReports};
use super::tally::Tally;
use crate::types::{Edge, Edges, Signals, Stat, Stats};
use std::collections::{BTreeMap, HashMap};

#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Ends {
    source: (String, String),
    destination: (String, String),
    version: String,
    protocol: String,
}

#[derive(Default)]
struct Both {
    source: Sum,
    destination: Sum,
    edge: Edge,
    idle: Option<f64>,
    plaintext: bool,
}

#[derive(Default)]
struct Sum {
    tally: Tally,
    rate: f64,
    sent: f64,
    received: f64,
    open: u64,
    any: bool,
}

impl Sum {
    // Counts of half a minute.
    #[allow(clippy::cast_precision_loss)]
    fn add(&mut self, report: &EdgeReport) {
        let EdgeReport { tally, seconds, .. } = report;
        self.tally.add(tally);
        let counted = if report.key.protocol == "tcp" {
            tally.opened
        } else {
            tally.requests
        };
        self.rate += counted as f64 / seconds;
        self.sent += tally.sent as f64 / seconds;
        self.received += tally.received as f64 / seconds;
        self.open = self.open.saturating_add(report.open);
        self.any = true;
    }

    #[allow(clippy::cast_precision_loss)]
    fn signals(&self, denied: u64) -> Signals {
        let tally = &self.tally;
        let requests = if tally.requests > 0 {
            tally.requests
        } else {
            tally.opened
        };
        let bad = tally.failures.saturating_add(denied);
        let total = requests.max(bad);
        let share = |part: f64| (total > 0).then(|| 1.0 - part / total as f64);
        Signals {
            requests,
            rate: self.rate,
            failures: tally.failures,
            success: share(bad as f64),
            denied,
            p50_ms: percentile(&tally.latency, 0.50),
            p95_ms: percentile(&tally.latency, 0.95),
            p99_ms: percentile(&tally.latency, 0.99),
            connections_opened: tally.opened,
            connections_open: self.open,
            bytes_sent_per_second: self.sent,
            bytes_received_per_second: self.received,
            flags: tally.flags.clone(),
        }
    }
}

/// Fills in a field from reports, and empties it where two of them differ.
fn agree(known: &mut String, reported: &str, first: bool) {
    if first {
        reported.clone_into(known);
    } else if known != reported && !reported.is_empty() {
        *known = if known.is_empty() {
            reported.to_owned()
        } else {
            String::new()
        };
    }
}

impl GraphReports {
    /// The service graph. `namespace`: only edges that touch it; empty for all.
    pub fn edges(&self, namespace: &str) -> Edges {
        let services = services_of(&self.reports);
        let mut merged: BTreeMap<Ends, Both> = BTreeMap::new();
        for report in &self.reports {
            let key = &report.key;
            let touches = |of: &str| of == namespace;
            if !namespace.is_empty()
                && !touches(&key.source_namespace)
                && !touches(&key.destination_namespace)
            {
                continue;
            }
            let service = destination(report, &services);
            let ends = Ends {
                source: (key.source_namespace.clone(), key.source_workload.clone()),
                destination: (key.destination_namespace.clone(), service),
                version: key.destination_version.clone(),
                protocol: key.protocol.clone(),
            };
            merged.entry(ends).or_default().add(report);
        }
        Edges {
            window_seconds: WINDOW.as_secs_f64(),
            edges: merged
                .into_iter()
                .map(|(ends, both)| both.edge(ends))
                .collect(),
            dropped: self.dropped,
            unreachable_replicas: Vec::new(),
        }
    }

    /// Golden signals of what arrives, per workload and per service.
    pub fn stats(&self, namespace: &str) -> Stats {
        let services = services_of(&self.reports);
        let mut sums: BTreeMap<(&str, String, String), Arrived> = BTreeMap::new();
        for report in &self.reports {
            let key = &report.key;
            if !namespace.is_empty() && key.destination_namespace != namespace {
                continue;
            }
            let names = [
                ("service", destination(report, &services)),
                ("workload", key.destination_workload.clone()),
            ];
            for (kind, name) in names.into_iter().filter(|(_, name)| !name.is_empty()) {
                let at = (kind, key.destination_namespace.clone(), name);
                sums.entry(at).or_default().add(report);
            }
        }
        let stat = |((kind, namespace, name), arrived): ((&str, String, String), Arrived)| {
            arrived.stat(kind, namespace, name)
        };
        Stats {
            window_seconds: WINDOW.as_secs_f64(),
            stats: sums.into_iter().map(stat).collect(),
            unreachable_replicas: Vec::new(),
        }
    }
}

/// What arrives at one workload or service.
#[derive(Default)]
struct Arrived {
    /// As callers saw it.
    by_source: Sum,
    /// As the callee saw it.
    by_destination: Sum,
    total: u64,
    /// Of `total`, by mutual TLS.
    secure: u64,
}

impl Arrived {
    fn add(&mut self, report: &EdgeReport) {
        let by_source = report.key.by_source;
        let sum = if by_source {
            &mut self.by_source
        } else {
            &mut self.by_destination
        };
        sum.add(report);
        let count = report.tally.requests.max(report.tally.opened);
        self.total = self.total.saturating_add(count);
        if report.key.mtls {
            self.secure = self.secure.saturating_add(count);
        }
    }

    fn stat(self, kind: &str, namespace: String, name: String) -> Stat {
        // A workload's own report has every caller, while those of a service's callers have every
        // time-out.
        let own = (kind == "workload" && self.by_destination.any) || !self.by_source.any;
        let denied = self
            .by_source
            .tally
            .denied
            .max(self.by_destination.tally.denied);
        let sum = if own {
            &self.by_destination
        } else {
            &self.by_source
        };
        #[allow(clippy::cast_precision_loss)] // counts of half a minute
        let mtls = (self.total > 0).then(|| self.secure as f64 / self.total as f64);
        Stat {
            kind: kind.to_owned(),
            namespace,
            name,
            signals: sum.signals(denied),
            mtls,
        }
    }
}

/// (namespace, workload) → service, where callers reported both.
fn services_of(reports: &[EdgeReport]) -> HashMap<(String, String), String> {
    let reported = |report: &&EdgeReport| {
        let key = &report.key;
        !key.destination_service.is_empty() && !key.destination_workload.is_empty()
    };
    let pair = |report: &EdgeReport| {
        let key = &report.key;
        let workload = (
            key.destination_namespace.clone(),
            key.destination_workload.clone(),
        );
        (workload, key.destination_service.clone())
    };
    reports.iter().filter(reported).map(pair).collect()
}

fn destination(report: &EdgeReport, services: &HashMap<(String, String), String>) -> String {
    let key = &report.key;
    if !key.destination_service.is_empty() {
        return key.destination_service.clone();
    }
    let workload = (
        key.destination_namespace.clone(),
        key.destination_workload.clone(),
    );
    services.get(&workload).cloned().unwrap_or(workload.1)
}

impl Both {
    fn add(&mut self, report: &EdgeReport) {
        let key = &report.key;
        let first = self.idle.is_none();
        let idle = report.idle.as_secs_f64();
        self.idle = Some(self.idle.map_or(idle, |known| known.min(idle)));
        // A request that failed before it reached an endpoint used no connection.
        let tally = &report.tally;
        let reached = !key.by_source
            || !key.destination_workload.is_empty()
            || tally.requests.max(tally.opened) > tally.failures;
        let counted = tally.requests > 0 || tally.opened > 0;
        self.plaintext |= !key.mtls && counted && reached;
        agree(
            &mut self.edge.destination_workload,
            &key.destination_workload,
            first,
        );
        // The peer's identity counts only from the end that verified it.
        let (sum, identity, reported) = if key.by_source {
            let reported = &key.destination_identity;
            (
                &mut self.source,
                &mut self.edge.destination_identity,
                reported,
            )
        } else {
            let reported = &key.source_identity;
            (
                &mut self.destination,
                &mut self.edge.source_identity,
                reported,
            )
        };
        agree(identity, reported, !sum.any);
        sum.add(report);
        let weaker = if key.by_source {
            (&mut self.edge.source_identity, &key.source_identity)
        } else {
            (
                &mut self.edge.destination_identity,
                &key.destination_identity,
            )
        };
        if weaker.0.is_empty() {
            weaker.0.clone_from(weaker.1);
        }
    }

    fn edge(self, ends: Ends) -> Edge {
        let denied = self.source.tally.denied.max(self.destination.tally.denied);
        let sum = if self.source.any {
            &self.source
        } else {
            &self.destination
        };
        let mut signals = sum.signals(denied);
        for (flag, count) in &self.destination.tally.flags {
            let known = signals.flags.entry(flag.clone()).or_default();
            *known = (*known).max(*count);
        }
        let mut reporters = Vec::new();
        if self.source.any {
            reporters.push("source".to_owned());
        }
        if self.destination.any {
            reporters.push("destination".to_owned());
        }
        Edge {
            source_namespace: ends.source.0,
            source_workload: ends.source.1,
            destination_namespace: ends.destination.0,
            destination_service: ends.destination.1,
            destination_version: ends.version,
            protocol: ends.protocol,
            mtls: !self.plaintext,
            signals,
            last_seen_seconds: self.idle.unwrap_or_default(),
            reporters,
            ..self.edge
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::time::Duration;

    use xds_proto::anyam::inspect::v1::{Edge as Reported, Reporter};

    use std::time::Instant;

    use super::super::graph::{Graph, ReportingProxy};
    use super::super::latency::BUCKETS;
    use super::*;

    impl Graph {
        fn edges(&self, namespace: &str, now: Instant) -> Edges {
            GraphReports::of_all([self.reports(namespace, now)]).edges(namespace)
        }

        fn stats(&self, namespace: &str, now: Instant) -> Stats {
            GraphReports::of_all([self.reports(namespace, now)]).stats(namespace)
        }
    }

    const WEB: ReportingProxy<'_> = ReportingProxy {
        namespace: "shop",
        workload: "web-0",
        service_account: "web",
    };
    const CART: ReportingProxy<'_> = ReportingProxy {
        namespace: "shop",
        workload: "cart-0",
        service_account: "cart",
    };

    fn reported(reporter: Reporter, requests: u64) -> Reported {
        let mut latency = vec![0; BUCKETS];
        latency[2] = requests;
        Reported {
            reporter: reporter.into(),
            source_workload: "web-0".into(),
            source_namespace: "shop".into(),
            source_identity: "spiffe://m/ns/shop/sa/web".into(),
            destination_service: "cart.shop.svc.cluster.local".into(),
            destination_namespace: "shop".into(),
            destination_workload: "cart-0".into(),
            destination_identity: "spiffe://m/ns/shop/sa/cart".into(),
            protocol: "http".into(),
            security: "mutual_tls".into(),
            requests,
            latency,
            ..Default::default()
        }
    }

    /// A proxy may report anything.
    #[test]
    fn counts_that_no_sum_can_hold_saturate() {
        let start = Instant::now();
        let mut graph = Graph::new(start);
        let mut huge = reported(Reporter::Source, u64::MAX);
        (huge.failures, huge.denied) = (u64::MAX, u64::MAX);
        huge.latency = vec![u64::MAX; BUCKETS + 1];
        let mut other = huge.clone();
        other.destination_service = "web.shop.svc.cluster.local".into();
        graph.report(WEB, &[huge, other], Duration::from_secs(1), start);
        let edges = graph.edges("", start).edges;
        assert!(!edges.is_empty());
        for edge in edges {
            assert_eq!(edge.signals.requests, u64::MAX);
            assert!(edge.signals.p50_ms.is_some());
        }
        assert!(!graph.stats("", start).stats.is_empty());
    }

    #[test]
    fn both_ends_of_an_edge_are_one_edge() {
        let start = Instant::now();
        let mut graph = Graph::new(start);
        let mut refused = reported(Reporter::Destination, 100);
        refused.denied = 10;
        refused.destination_service = String::new();
        refused.response_flags = HashMap::from([("RBAC".to_owned(), 10)]);
        let second = Duration::from_secs(1);
        for tick in 1..=10 {
            let now = start + second * tick;
            graph.report(WEB, &[reported(Reporter::Source, 100)], second, now);
            graph.report(CART, &[refused.clone()], second, now);
        }
        let now = start + second * 10;
        let edges = graph.edges("", now);
        let [edge] = &edges.edges[..] else {
            panic!("{edges:#?}")
        };
        assert_eq!(edge.destination_service, "cart");
        assert_eq!(edge.reporters, ["source", "destination"]);
        assert!(edge.mtls);
        assert_eq!(edge.source_identity, "spiffe://m/ns/shop/sa/web");
        assert!(
            (edge.signals.rate - 100.0).abs() < 1.0,
            "{}",
            edge.signals.rate
        );
        assert_eq!((edge.signals.requests, edge.signals.denied), (1000, 100));
        assert_eq!(edge.signals.success, Some(0.9));
        assert_eq!(edge.signals.flags["RBAC"], 100);
        assert!(
            edge.signals
                .p50_ms
                .is_some_and(|ms| (1.0..2.0).contains(&ms))
        );
        assert!(graph.edges("elsewhere", now).edges.is_empty());
        let stats = graph.stats("shop", now);
        let names: Vec<_> = stats.stats.iter().map(|s| (&*s.kind, &*s.name)).collect();
        assert_eq!(names, [("service", "cart"), ("workload", "cart-0")]);
        assert_eq!(stats.stats[1].mtls, Some(1.0));
    }

    #[test]
    fn what_a_workload_counts_at_a_port_is_of_the_service_of_that_port() {
        let start = Instant::now();
        let second = Duration::from_secs(1);
        let called = ["admin", "cart", "rpc", "web"];
        for own in called {
            let mut graph = Graph::new(start);
            let to = called.map(|name| Reported {
                destination_service: format!("{name}.shop.svc.cluster.local"),
                ..reported(Reporter::Source, 1)
            });
            graph.report(WEB, &to, second, start);
            let broken = Reported {
                destination_service: format!("{own}.shop.svc.cluster.local"),
                response_flags: HashMap::from([("UPE".to_owned(), 1)]),
                ..reported(Reporter::Destination, 1)
            };
            graph.report(CART, &[broken], second, start);
            for edge in graph.edges("", start).edges {
                let both = edge.reporters.len() == 2;
                let flagged = edge.signals.flags.contains_key("UPE");
                assert_eq!((both, flagged), (edge.destination_service == own, both));
            }
        }
    }

    #[test]
    fn what_is_past_the_window_no_longer_counts() {
        let start = Instant::now();
        let mut graph = Graph::new(start);
        graph.report(
            WEB,
            &[reported(Reporter::Source, 100)],
            Duration::from_secs(1),
            start,
        );
        let later = start + Duration::from_secs(40);
        let edges = graph.edges("", later);
        assert_eq!(edges.edges[0].signals.requests, 0);
        assert_eq!(edges.edges[0].signals.success, None);
        assert!(
            graph
                .edges("", start + Duration::from_secs(700))
                .edges
                .is_empty()
        );
    }

    #[test]
    fn a_proxy_reports_its_own_end_only() {
        let start = Instant::now();
        let mut graph = Graph::new(start);
        let mut forged = reported(Reporter::Source, 5);
        forged.source_workload = "admin-0".into();
        forged.source_identity = "spiffe://m/ns/shop/sa/admin".into();
        graph.report(WEB, &[forged], Duration::from_secs(1), start);
        let edges = graph.edges("", start).edges;
        assert_eq!(edges[0].source_workload, "web-0");
        assert_eq!(edges[0].source_identity, "");
    }

    #[test]
    fn what_reached_no_endpoint_is_not_plaintext_traffic() {
        let start = Instant::now();
        let mut graph = Graph::new(start);
        let mut unreached = reported(Reporter::Source, 5);
        unreached.failures = 5;
        unreached.security = "none".into();
        unreached.destination_workload = "unknown".into();
        let second = Duration::from_secs(1);
        graph.report(
            WEB,
            &[reported(Reporter::Source, 5), unreached.clone()],
            second,
            start,
        );
        assert!(graph.edges("", start).edges[0].mtls);
        unreached.destination_workload = "cart-0".into();
        graph.report(WEB, &[unreached], second, start);
        assert!(!graph.edges("", start).edges[0].mtls);
    }

    fn many(count: usize, prefix: &str) -> Vec<Reported> {
        let one = |n| Reported {
            destination_service: format!("{prefix}{n}"),
            connections_opened: u64::MAX / 2,
            ..reported(Reporter::Source, u64::MAX / 2)
        };
        (0..count).map(one).collect()
    }

    fn services(graph: &Graph, now: Instant) -> Vec<String> {
        let edges = graph.edges("", now).edges;
        edges.into_iter().map(|e| e.destination_service).collect()
    }

    #[test]
    fn a_reporter_has_its_share_and_its_newest_edges_displace_the_rest() {
        let start = Instant::now();
        let mut graph = Graph::new(start);
        let second = Duration::from_secs(1);
        assert_eq!(graph.report(WEB, &many(21_000, "a"), second, start), 18_999);
        assert_eq!(graph.edges("", start).dropped, 18_999);
        // Others lose nothing, and it may go on with other edges.
        assert_eq!(graph.report(CART, &many(500, "c"), second, start), 0);
        let later = start + second;
        assert_eq!(graph.report(WEB, &many(100, "b"), second, later), 0);
        let known = services(&graph, later);
        let of = |prefix: &str| known.iter().filter(|name| name.starts_with(prefix)).count();
        assert_eq!((of("b"), of("c")), (100, 500));
        assert!(of("a") > 1_500 && of("a") + of("b") <= 2_001);
    }

    #[test]
    fn when_the_table_is_full_the_largest_share_gives_way() {
        let start = Instant::now();
        let mut graph = Graph::new(start);
        let second = Duration::from_secs(1);
        let names: Vec<String> = (0..10).map(|n| format!("w{n}")).collect();
        for (n, workload) in names.iter().enumerate() {
            let reporter = ReportingProxy { workload, ..WEB };
            let now = start + second * u32::try_from(n).unwrap();
            assert_eq!(graph.report(reporter, &many(2_000, "x"), second, now), 0);
        }
        let now = start + second * 20;
        assert_eq!(graph.report(CART, &many(2_000, "c"), second, now), 0);
        let known = services(&graph, now);
        assert!(known.len() <= 20_000);
        assert_eq!(known.iter().filter(|n| n.starts_with('c')).count(), 2_000);
    }

    #[test]
    fn edges_of_a_reporter_are_removed_when_it_disconnects() {
        let start = Instant::now();
        let mut graph = Graph::new(start);
        let second = Duration::from_secs(1);
        graph.joined(WEB, start);
        graph.report(WEB, &many(1, "a"), second, start);
        assert!(graph.edges("", start).edges[0].signals.connections_open > 0);
        // A stream that moves to another connection is no leave.
        graph.joined(WEB, start + second);
        graph.left(WEB, start + second);
        assert!(
            graph.edges("", start + second).edges[0]
                .signals
                .connections_open
                > 0
        );
        graph.left(WEB, start + second);
        assert_eq!(
            graph.edges("", start + second).edges[0]
                .signals
                .connections_open,
            0
        );
        let later = start + second * 70;
        assert!(graph.edges("", later).edges.is_empty());
        // Back in time, it is as if it had not left.
        graph.joined(CART, later);
        graph.report(CART, &many(1, "c"), second, later);
        graph.left(CART, later);
        graph.joined(CART, later + second * 30);
        assert_eq!(services(&graph, later + second * 90), ["c0"]);
    }

    /// Each end reports to another replica, and their reports are of one edge.
    #[test]
    fn the_reports_of_two_replicas_are_those_of_one() {
        let start = Instant::now();
        let second = Duration::from_secs(1);
        let source = reported(Reporter::Source, 30);
        let destination = Reported {
            denied: 3,
            ..reported(Reporter::Destination, 30)
        };
        let [mut both, mut one, mut other] = [(); 3].map(|()| Graph::new(start));
        both.report(WEB, std::slice::from_ref(&source), second, start);
        both.report(CART, std::slice::from_ref(&destination), second, start);
        one.report(WEB, &[source], second, start);
        other.report(CART, &[destination], second, start);
        // As it comes from the other replica.
        let sent = serde_json::to_string(&other.reports("", start)).unwrap();
        let sent: GraphReports = serde_json::from_str(&sent).unwrap();
        let merged = GraphReports::of_all([one.reports("", start), sent]);
        assert_eq!(merged.edges(""), both.edges("", start));
        assert_eq!(merged.stats("shop"), both.stats("shop", start));
        assert_eq!(merged.edges("").edges[0].reporters.len(), 2);
    }

    /// Its first replica was restarted, say.
    #[test]
    fn a_proxy_that_goes_to_another_replica_keeps_its_rate() {
        let start = Instant::now();
        let second = Duration::from_secs(1);
        let [mut one, mut other] = [(); 2].map(|()| Graph::new(start));
        one.joined(WEB, start);
        for tick in 1..=20 {
            let now = start + second * tick;
            one.report(WEB, &[reported(Reporter::Source, 100)], second, now);
        }
        one.left(WEB, start + second * 20);
        other.joined(WEB, start + second * 20);
        for tick in 21..=30 {
            let now = start + second * tick;
            other.report(WEB, &[reported(Reporter::Source, 100)], second, now);
        }
        let now = start + second * 30;
        let both = GraphReports::of_all([one.reports("", now), other.reports("", now)]);
        let edges = both.edges("").edges;
        let rates = edges.iter().map(|edge| edge.signals.rate);
        let stats = both.stats("shop").stats;
        let rates: Vec<f64> = rates
            .chain(stats.iter().map(|it| it.signals.rate))
            .collect();
        assert_eq!(rates.len(), 3, "an edge, a service and a workload");
        for rate in rates {
            assert!((85.0..=105.0).contains(&rate), "{rate}");
        }
    }

    /// What a user of one namespace is shown is copied, and no more.
    #[test]
    fn of_a_namespace_only_its_edges_are_copied() {
        let start = Instant::now();
        let second = Duration::from_secs(1);
        let mut graph = Graph::new(start);
        let to = |service: &str, namespace: &str, workload: &str| Reported {
            destination_service: service.into(),
            destination_namespace: namespace.into(),
            destination_workload: workload.into(),
            destination_identity: String::new(),
            ..reported(Reporter::Source, 3)
        };
        let vault = "vault.bank.svc.cluster.local";
        let teller = ReportingProxy {
            namespace: "bank",
            workload: "teller-0",
            service_account: "teller",
        };
        // By an address; its service is known by what another one calls.
        graph.report(WEB, &[to("", "bank", "vault-0")], second, start);
        let of_bank = [
            to(vault, "bank", "vault-0"),
            to("x.bank.svc.a", "bank", "x-0"),
        ];
        graph.report(teller, &of_bank, second, start);
        for (namespace, count) in [("", 3), ("shop", 2), ("bank", 3), ("none", 0)] {
            let narrow = graph.reports(namespace, start);
            assert_eq!(narrow.reports.len(), count, "{namespace:?}");
            let all = graph.reports("", start);
            assert_eq!(all.of_namespace(namespace).reports.len(), count);
            let [all, narrow] = [all, narrow].map(|it| GraphReports::of_all([it]));
            assert_eq!(narrow.edges(namespace), all.edges(namespace));
            assert_eq!(narrow.stats(namespace), all.stats(namespace));
        }
        let edges = graph.edges("shop", start).edges;
        assert_eq!(edges[0].destination_service, "vault");
    }
}
