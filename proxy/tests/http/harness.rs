//! Workers on threads of their own, serving a snapshot that a test builds by hand. Every request is
//! written to access logs that have everything in them, and shown to a tap.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyam_proxy::bug;
use anyam_proxy::config::balancing::LocalityPolicy;
use anyam_proxy::config::cluster::Thresholds;
use anyam_proxy::config::cluster::{
    ClusterDef, Discovery, LbPolicy, Transport, TransportMatch, UpstreamProtocol,
};
use anyam_proxy::config::endpoint::{AssignmentPolicy, HealthStatus};
use anyam_proxy::config::http::HttpConnectionManager;
use anyam_proxy::config::listener::{
    ChainMatch, Direction, FilterChain, ListenerDef, ListenerFilters, SocketProtocol,
    TerminalFilter,
};
use anyam_proxy::config::policy::Rbac;
use anyam_proxy::config::route::{
    Action, HeaderEdits, PathMatch, Route, RouteAction, RouteTable, VirtualHost,
};
use anyam_proxy::connection_limit::ConnectionLimit;
use anyam_proxy::dispatcher::timer::TimerFd;
use anyam_proxy::drain::Phase;
use anyam_proxy::listener::ListenerContext;
use anyam_proxy::metrics::Registry;
use anyam_proxy::metrics::resource::{ClusterFamilies, ListenerFamilies};
use anyam_proxy::snapshot::Listener;
use anyam_proxy::snapshot::RouteConfig;
use anyam_proxy::snapshot::{Link, RouteLink};
use anyam_proxy::snapshot::{Snapshot, Store};
use anyam_proxy::telemetry::tap::{Filter, TapEvent};
use anyam_proxy::tls::ServerContext;
use anyam_proxy::upstream::cluster::Cluster;
use anyam_proxy::upstream::endpoint::{Endpoint, EndpointSet, Priority};
use anyam_proxy::upstream::limits::CircuitBreakers;
use anyam_proxy::worker::Worker;
use tokio::sync::{mpsc, watch};

use crate::front::accept;
use crate::logs::{Logs, telemetry};
use crate::panicked;
pub use crate::settings::route;
use crate::settings::{forward, http1, http2, manager};

/// A tap's time.
const LONG: Duration = Duration::from_secs(3600);

/// What a test changes before the proxy starts, or while it runs.
pub struct Setup {
    pub manager: HttpConnectionManager,
    pub forward: RouteAction,
    pub matches: PathMatch,
    pub protocol: UpstreamProtocol,
    pub thresholds: Thresholds,
    pub max_requests_per_connection: Option<u32>,
    pub upstreams: Vec<SocketAddr>,
    /// Of each of them.
    pub health: HealthStatus,
    pub more_routes: Vec<Arc<Route>>,
    /// Of the listener.
    pub tls: Option<Arc<ServerContext>>,
    /// Towards the upstreams.
    pub transport: Transport,
    pub rbac: Option<Arc<Rbac>>,
    /// Changes the cluster, after everything else.
    pub adjust: fn(&mut ClusterDef),
    /// Changes the routes, after everything else.
    pub adjust_routes: fn(&mut RouteTable),
    /// Number of workers, each with an address of its own.
    pub workers: usize,
    pub upstream_limit: Option<Arc<ConnectionLimit>>,
    logs: Arc<Logs>,
    families: Arc<Families>,
}

pub struct Families {
    listeners: ListenerFamilies,
    clusters: ClusterFamilies,
}

impl Setup {
    pub fn new(upstream: SocketAddr) -> Self {
        let registry = Registry::new().unwrap();
        Self {
            manager: manager(),
            forward: forward(),
            matches: PathMatch::Prefix("/".into()),
            protocol: UpstreamProtocol::Http1,
            thresholds: Thresholds::default(),
            max_requests_per_connection: None,
            upstreams: vec![upstream],
            health: HealthStatus::Healthy,
            more_routes: Vec::new(),
            tls: None,
            transport: Transport::RawBuffer,
            rbac: None,
            adjust: |_| {},
            adjust_routes: |_| {},
            workers: 1,
            upstream_limit: None,
            logs: Arc::new(Logs::new()),
            families: Arc::new(Families {
                listeners: ListenerFamilies::new(&registry).unwrap(),
                clusters: ClusterFamilies::new(&registry).unwrap(),
            }),
        }
    }

    pub fn speaking(mut self, protocol: UpstreamProtocol) -> Self {
        self.protocol = protocol;
        self
    }

    pub fn with(mut self, change: impl FnOnce(&mut Self)) -> Self {
        change(&mut self);
        self
    }

    fn cluster(&self) -> Cluster {
        let mut def = ClusterDef {
            name: "shop".into(),
            declared_by: None,
            discovery: Discovery::Static {
                hosts: Vec::new(),
                policy: AssignmentPolicy::default(),
            },
            connect_timeout: Duration::from_secs(2),
            lb: LbPolicy::RoundRobin,
            slow_start: None,
            locality: LocalityPolicy::Ignored,
            subsets: None,
            hash_policy: None,
            session_health: Default::default(),
            transport: vec![TransportMatch {
                name: "raw".into(),
                criteria: Vec::new(),
                tunnel: false,
                transport: self.transport.clone(),
            }],
            secrets: Vec::new(),
            initial_fetch_timeout: None,
            protocol: self.protocol,
            http1: http1(),
            http2: http2(),
            idle_timeout: Some(Duration::from_secs(3600)),
            max_connection_duration: None,
            max_requests_per_connection: self.max_requests_per_connection,
            max_response_headers_count: 100,
            max_response_headers_bytes: 80 << 10,
            keepalive: None,
            outlier: None,
            health: None,
            ignores_new_hosts: false,
            removes_healthy_hosts: false,
            thresholds: self.thresholds,
            close_connections_on_host_set_change: false,
            panic_threshold: 50,
            retry: None,
            service: None,
            bind_source: Default::default(),
        };
        (self.adjust)(&mut def);
        let cluster = Cluster {
            id: 1,
            pool_key: 0,
            detector: Arc::default(),
            turn: Arc::default(),
            limits: CircuitBreakers::new(self.thresholds),
            metrics: Arc::new(self.families.clusters.handles("shop")),
            checks: None,
            stale: Default::default(),
            rebuild: Arc::default(),
            place: Arc::default(),
            endpoints: arc_swap::ArcSwap::from_pointee(EndpointSet::default()),
            def,
        };
        let endpoints = self.upstreams.iter().map(|address| {
            Arc::new(Endpoint {
                transport: Some(0),
                health: self.health,
                ..Endpoint::at(*address)
            })
        });
        let priority = Priority {
            endpoints: endpoints.collect(),
        };
        cluster.set_endpoints(vec![priority], AssignmentPolicy::default());
        cluster
    }

    /// The snapshot; consumes what cannot be cloned.
    pub fn snapshot(mut self, generation: u64) -> Snapshot {
        self.manager.access_log = self.logs.access_logs();
        let cluster = Arc::new(self.cluster());
        let mut routes = self.more_routes;
        routes.push(route(self.matches, Action::Forward(Box::new(self.forward))));
        let mut table = RouteTable {
            name: "routes".into(),
            virtual_hosts: vec![VirtualHost {
                name: "all".into(),
                routes,
                request_headers: HeaderEdits::default(),
                response_headers: HeaderEdits::default(),
                rate_limits: Vec::new(),
                include_attempt_count: false,
                include_attempt_count_in_response: true,
            }],
            exact: Default::default(),
            suffix: Vec::new(),
            prefix: Vec::new(),
            any: Some(0),
            ignore_port: false,
            request_headers: HeaderEdits::default(),
            response_headers: HeaderEdits::default(),
            most_specific_wins: false,
            internal_only_headers: Vec::new(),
        };
        (self.adjust_routes)(&mut table);
        let link = |cluster: &Arc<Cluster>| Link {
            name: cluster.name.clone(),
            target: Some(cluster.clone()),
        };
        let config = Arc::new(RouteConfig {
            table: Arc::new(table),
            clusters: Box::new([link(&cluster)]),
        });
        let chain = FilterChain {
            name: "only".into(),
            matches: ChainMatch::default(),
            tls: self.tls,
            transport_key: 0,
            handshake_timeout: Duration::from_secs(5),
            rbac: self.rbac.into_iter().collect(),
            terminal: TerminalFilter::Http(Arc::new(self.manager)),
        };
        let listener = Arc::new(Listener {
            def: Arc::new(ListenerDef {
                name: "front".into(),
                protocol: SocketProtocol::Tcp,
                address: ([127, 0, 0, 1], 0).into(),
                more_addresses: Vec::new(),
                bind_to_port: true,
                original_dst: false,
                use_original_dst: false,
                direction: Direction::Outbound,
                inspect: ListenerFilters::default(),
                chains: vec![Arc::new(chain)],
                default_chain: None,
                per_connection_buffer_limit: 1 << 20,
                connection_limits: Vec::new(),
                upstream_limit: self.upstream_limit,
                backlog: 128,
                access_log: Vec::new(),
                declared_by: None,
                gives_reasons: false,
                metrics: Arc::new(self.families.listeners.handles("front")),
                secrets: Vec::new(),
                initial_fetch_timeout: None,
            }),
            clusters: Box::new([]),
            routes: Box::new([RouteLink::Inline(config)]),
        });
        Snapshot {
            generation,
            listeners: [("front".into(), listener)].into(),
            clusters: [("shop".into(), cluster)].into(),
            ..Snapshot::default()
        }
    }
}

/// A running proxy. Ends when it is dropped.
pub struct Proxy {
    /// Of the first worker.
    pub address: SocketAddr,
    pub store: Arc<Store>,
    pub drain: watch::Sender<Phase>,
    /// Of the first worker's thread, below /proc.
    thread_folder: std::path::PathBuf,
    pub registry: Arc<Registry>,
    /// Every request that has ended.
    pub tap: mpsc::Receiver<TapEvent>,
    pub logs: Arc<Logs>,
    stop: watch::Sender<bool>,
    threads: Vec<std::thread::JoinHandle<()>>,
    wanted_panics: usize,
}

impl Proxy {
    pub fn start(setup: Setup) -> Self {
        panicked::watch();
        let (workers, logs) = (setup.workers, setup.logs.clone());
        Self::serving(Arc::new(Store::new(setup.snapshot(1))), workers, logs)
    }

    /// Another worker with the same configuration, at an address of its own.
    pub fn another_worker(&self) -> Self {
        Self::serving(self.store.clone(), 1, self.logs.clone())
    }

    fn serving(store: Arc<Store>, workers: usize, logs: Arc<Logs>) -> Self {
        let (drain, drained) = watch::channel(Phase::Serving);
        let (stop, stopped) = watch::channel(false);
        let registry = Arc::new(Registry::new().unwrap());
        let telemetry = telemetry(&registry);
        let tap = telemetry
            .taps
            .open("all", Filter::default(), true, u32::MAX, LONG);
        let tap = tap.unwrap();
        let (mut addresses, mut threads) = (Vec::new(), Vec::new());
        let (tell, folder) = std::sync::mpsc::channel();
        for index in 0..workers {
            let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            listener.set_nonblocking(true).unwrap();
            addresses.push(listener.local_addr().unwrap());
            let (store, telemetry) = (store.clone(), telemetry.clone());
            let (drained, mut stopped) = (drained.clone(), stopped.clone());
            let worker = move || Worker::new(index, store, telemetry, None, drained);
            let tell = tell.clone();
            threads.push(std::thread::spawn(move || {
                let folder = std::fs::read_link("/proc/thread-self").unwrap();
                if index == 0 {
                    tell.send(folder).unwrap();
                }
                // As a worker's: without timers of the runtime's.
                let runtime = tokio::runtime::Builder::new_current_thread()
                    .enable_io()
                    .build_local(tokio::runtime::LocalOptions::default())
                    .unwrap();
                runtime.block_on(async move {
                    let context = ListenerContext::new(worker());
                    let running = context.clone();
                    tokio::task::spawn_local(
                        async move { running.run(TimerFd::new().unwrap()).await },
                    );
                    let listener = tokio::net::TcpListener::from_std(listener).unwrap();
                    tokio::select! {
                        () = accept(context.clone(), listener) => {}
                        _ = stopped.wait_for(|stop| *stop) => {}
                    }
                    context.logs.flush();
                });
            }));
        }
        Self {
            address: addresses[0],
            store,
            drain,
            thread_folder: folder.recv().unwrap(),
            registry,
            tap,
            logs,
            stop,
            threads,
            wanted_panics: 0,
        }
    }

    /// The first worker panics the next time that it comes by this [`bug::point`].
    pub fn panic_at(&mut self, place: &'static str) {
        bug::panic_at(self.threads[0].thread().id(), place);
        self.wanted_panics += 1;
    }

    /// Ends the workers; what is in their logs then.
    pub fn end(mut self) -> Vec<serde_json::Value> {
        self.join();
        self.logs.json()
    }

    fn join(&mut self) {
        self.stop.send_replace(true);
        let mut panics = 0;
        for thread in self.threads.drain(..) {
            let id = thread.thread().id();
            let _ = thread.join();
            panics += panicked::times(id);
        }
        let as_wanted = panics == std::mem::take(&mut self.wanted_panics);
        assert!(as_wanted || std::thread::panicking(), "{panics} panics");
    }

    /// Time that the first worker has run for.
    pub fn cpu_time(&self) -> Duration {
        let path = std::path::Path::new("/proc").join(&self.thread_folder);
        let text = std::fs::read_to_string(path.join("schedstat")).unwrap();
        Duration::from_nanos(text.split(' ').next().unwrap().parse().unwrap())
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        if !self.threads.is_empty() {
            self.join();
        }
    }
}
