//! All edges of the process. Their number is bounded: at the bound, edges without recent traffic
//! are evicted, and calls without an edge are counted under the label `overflow`, so a hostile peer
//! cannot grow the label space.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::metrics::edge::{Edge, EdgeKey, Peer, Service};
use crate::metrics::registry::Registry;

/// Edges kept; one more is counted as overflow.
const MAX_EDGES: usize = 2000;
/// An edge that no connection holds, and that carried nothing for so long, may be evicted.
const QUIET: Duration = Duration::from_secs(60);
/// Time between two sweeps for edges to evict.
const SWEEP: Duration = Duration::from_secs(1);

/// See the module.
pub struct Edges {
    registry: Arc<Registry>,
    table: Mutex<EdgeTable>,
}

struct EdgeTable {
    edges: HashMap<EdgeKey, KnownEdge>,
    swept: Instant,
}

struct KnownEdge {
    edge: Arc<Edge>,
    /// Its count at the last sweep, and since when that is unchanged.
    activity: u64,
    since: Instant,
}

impl EdgeTable {
    /// Records which edges have traffic; `evict`: drops those without.
    fn sweep(&mut self, evict: bool, now: Instant) {
        self.swept = now;
        self.edges.retain(|_, known| {
            let activity = known.edge.counts.activity();
            if activity != known.activity {
                (known.activity, known.since) = (activity, now);
            }
            let quiet = now.saturating_duration_since(known.since) >= QUIET;
            // Further references are made only from this table, under the same lock.
            !(evict && quiet && Arc::strong_count(&known.edge) == 1)
        });
    }
}

impl Edges {
    pub fn new(registry: Arc<Registry>) -> Self {
        Self {
            registry,
            table: Mutex::new(EdgeTable {
                edges: HashMap::new(),
                swept: Instant::now(),
            }),
        }
    }

    fn lock(&self) -> MutexGuard<'_, EdgeTable> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The edge of `key`, made on first use. Called per connection or endpoint, not per request.
    pub fn get(&self, key: EdgeKey) -> Arc<Edge> {
        self.get_at(key, Instant::now())
    }

    fn get_at(&self, key: EdgeKey, now: Instant) -> Arc<Edge> {
        let mut table = self.lock();
        if let Some(known) = table.edges.get(&key) {
            return known.edge.clone();
        }
        if table.edges.len() >= MAX_EDGES && now.saturating_duration_since(table.swept) >= SWEEP {
            table.sweep(true, now);
        }
        let key = if table.edges.len() < MAX_EDGES {
            key
        } else {
            self.registry.edges_overflowed.inc();
            overflow(&key)
        };
        let known = table.edges.entry(key).or_insert_with_key(|key| KnownEdge {
            edge: Arc::new(Edge::new(key.clone(), self.registry.clone())),
            activity: 0,
            since: now,
        });
        known.edge.clone()
    }

    /// Every edge, for reports.
    pub fn all(&self) -> Vec<Arc<Edge>> {
        let mut table = self.lock();
        table.sweep(false, Instant::now());
        let known = table.edges.values();
        known.map(|known| known.edge.clone()).collect()
    }
}

/// The key under which edges beyond the bound are counted: direction, protocol and security stay.
fn overflow(key: &EdgeKey) -> EdgeKey {
    let peer = || Peer {
        workload: "overflow".into(),
        namespace: "overflow".into(),
        principal: "overflow".into(),
        app: "overflow".into(),
        version: "overflow".into(),
        cluster: "overflow".into(),
    };
    EdgeKey {
        reporter: key.reporter,
        source: peer(),
        destination: peer(),
        service: Service {
            host: "overflow".into(),
            name: "overflow".into(),
            namespace: "overflow".into(),
        },
        mutual_tls: key.mutual_tls,
        protocol: key.protocol,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering::Relaxed;

    use super::*;
    use crate::metrics::edge::{MAX_OUTCOMES, Reporter, RequestProtocol, RequestSample};
    use crate::metrics::flags::ResponseFlags;

    fn key(n: usize) -> EdgeKey {
        EdgeKey {
            reporter: Reporter::Destination,
            source: Peer {
                workload: format!("w{n}"),
                ..Peer::default()
            },
            destination: Peer::default(),
            service: Service::default(),
            mutual_tls: true,
            protocol: RequestProtocol::Http,
        }
    }

    fn sample(code: u16) -> RequestSample {
        RequestSample {
            code,
            grpc: -1,
            flags: ResponseFlags::NONE,
            duration: Duration::from_millis(3),
            request_bytes: 10,
            response_bytes: 20,
            denied: false,
        }
    }

    #[test]
    fn requests_show_under_istios_names_and_labels() {
        let registry = Arc::new(Registry::new().unwrap());
        let edge = Edges::new(registry.clone()).get(key(1));
        edge.record(&sample(200));
        edge.record(&sample(503));
        let text = String::from_utf8(registry.expose().unwrap()).unwrap();
        let line = text
            .lines()
            .find(|l| l.starts_with("istio_requests_total") && l.contains("response_code=\"503\""))
            .unwrap();
        for label in [
            "reporter=\"destination\"",
            "source_workload=\"w1\"",
            "destination_service=\"unknown\"",
            "connection_security_policy=\"mutual_tls\"",
            "response_flags=\"-\"",
        ] {
            assert!(line.contains(label), "{label} missing in {line}");
        }
        assert!(line.ends_with(" 1"));
        assert_eq!(edge.counts.failures.load(Relaxed), 1);
    }

    #[test]
    fn label_space_is_bounded_in_edges_and_in_outcomes() {
        let registry = Arc::new(Registry::new().unwrap());
        let edges = Edges::new(registry.clone());
        for n in 0..MAX_EDGES + 50 {
            edges.get(key(n)).tcp_opened();
        }
        assert_eq!(edges.all().len(), MAX_EDGES + 1);
        let edge = edges.get(key(0));
        for code in 100..600 {
            edge.record(&sample(code));
        }
        assert!(edge.outcomes.load().len() <= MAX_OUTCOMES);
        assert_eq!(edge.counts.requests.load(Relaxed), 500);
    }

    #[test]
    fn edges_without_traffic_give_way_with_their_series() {
        let registry = Arc::new(Registry::new().unwrap());
        let edges = Edges::new(registry.clone());
        let start = Instant::now();
        let held = edges.get_at(key(0), start);
        for n in 1..MAX_EDGES {
            let edge = edges.get_at(key(n), start);
            edge.tcp_opened();
            edge.record(&sample(200));
            edge.tcp_closed(ResponseFlags::UPSTREAM_REMOTE_RESET, false, false);
        }
        let series = || String::from_utf8(registry.expose().unwrap()).unwrap();
        let of = |n: usize| format!("source_workload=\"w{n}\"");
        assert!(series().contains(&of(7)));
        // All had traffic a moment ago.
        let new = edges.get_at(key(5000), start + QUIET);
        assert_eq!(new.key.source.workload, "overflow");
        edges.get_at(key(7), start + QUIET).tcp_bytes(1, 1);
        let later = start + QUIET * 2;
        let edge = edges.get_at(key(5001), later);
        assert_eq!(edge.key.source.workload, "w5001");
        assert!(series().contains(&of(7)), "it had traffic");
        assert!(!series().contains(&of(8)), "its series stay");
        let again = edges.get_at(key(0), later);
        assert!(Arc::ptr_eq(&held, &again), "a connection has it");
    }
}
