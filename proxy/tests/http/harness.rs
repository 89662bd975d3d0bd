//! A worker on a thread of its own, serving a snapshot that a test builds by hand.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyam_proxy::config::cluster::{
    Cluster, Discovery, LbPolicy, Transport, TransportMatch, UpstreamHttp1, UpstreamProtocol,
};
use anyam_proxy::config::endpoint::{Endpoint, EndpointSet, HealthStatus, Priority};
use anyam_proxy::config::http::HttpConnectionManager;
use anyam_proxy::config::listener::{
    ChainMatch, Direction, FilterChain, Listener, ListenerDef, ListenerFilters, TerminalFilter,
};
use anyam_proxy::config::policy::Rbac;
use anyam_proxy::config::route::{
    Action, HeaderEdits, PathMatch, Route, RouteAction, RouteConfig, RouteTable, VirtualHost,
};
use anyam_proxy::dispatcher::timer::Alarm;
use anyam_proxy::http::connection::serve;
use anyam_proxy::http::connection::serve::HttpConnection;
use anyam_proxy::metrics::OpenConnection;
use anyam_proxy::metrics::Registry;
use anyam_proxy::metrics::resource::{ClusterFamilies, ListenerFamilies};
use anyam_proxy::snapshot::{Link, RouteLink};
use anyam_proxy::snapshot::{Snapshot, Store};
use anyam_proxy::stream::Stream;
use anyam_proxy::tls::ServerContext;
use anyam_proxy::upstream::limits::{CircuitBreakers, Thresholds};
use anyam_proxy::worker::{Phase, Worker};
use bytes::BytesMut;
use tokio::sync::{oneshot, watch};

pub use crate::settings::route;
use crate::settings::{forward, http2, manager};

/// What a test changes before the proxy starts, or while it runs.
pub struct Setup {
    pub manager: HttpConnectionManager,
    pub forward: RouteAction,
    pub matches: PathMatch,
    pub protocol: UpstreamProtocol,
    pub thresholds: Thresholds,
    pub max_requests_per_connection: Option<u32>,
    pub upstreams: Vec<SocketAddr>,
    pub more_routes: Vec<Arc<Route>>,
    /// Of the listener.
    pub tls: Option<Arc<ServerContext>>,
    /// Towards the upstreams.
    pub transport: Transport,
    pub rbac: Option<Arc<Rbac>>,
    /// The last word on the cluster.
    pub adjust: fn(&mut Cluster),
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
            more_routes: Vec::new(),
            tls: None,
            transport: Transport::RawBuffer,
            rbac: None,
            adjust: |_| {},
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
        let mut cluster = Cluster {
            name: "shop".into(),
            id: 1,
            pool_key: 0,
            discovery: Discovery::Static {
                hosts: Vec::new(),
                overprovisioning: 140,
            },
            connect_timeout: Duration::from_secs(2),
            lb: LbPolicy::RoundRobin,
            transport: vec![TransportMatch {
                name: "raw".into(),
                criteria: Vec::new(),
                tunnel: false,
                transport: self.transport.clone(),
            }],
            secrets: Vec::new(),
            patience: None,
            protocol: self.protocol,
            http1: UpstreamHttp1 {
                preserve_case: true,
            },
            http2: http2(),
            idle_timeout: Some(Duration::from_secs(3600)),
            max_connection_duration: None,
            max_requests_per_connection: self.max_requests_per_connection,
            max_response_headers_count: 100,
            max_response_headers_bytes: 60 << 10,
            keepalive: None,
            outlier: None,
            detector: Arc::default(),
            turn: Arc::default(),
            thresholds: self.thresholds,
            limits: CircuitBreakers::new(self.thresholds),
            panic_threshold: 50,
            retry: None,
            metrics: Arc::new(self.families.clusters.handles("shop")),
            service: None,
            bind_source: Default::default(),
            endpoints: EndpointSet::default().into_swap(),
        };
        (self.adjust)(&mut cluster);
        let endpoints = self.upstreams.iter().map(|address| {
            Arc::new(Endpoint {
                address: *address,
                host_name: None,
                weight: 1,
                locality: None,
                transport_metadata: Arc::default(),
                transport: Some(0),
                tunnel_port: None,
                health: HealthStatus::Healthy,
                state: Arc::default(),
                workload: None,
            })
        });
        let priority = Priority {
            endpoints: endpoints.collect(),
        };
        cluster.set_endpoints(vec![priority], 140);
        cluster
    }

    /// The snapshot; consumes what cannot be cloned.
    pub fn snapshot(self, generation: u64) -> Snapshot {
        let cluster = Arc::new(self.cluster());
        let mut routes = self.more_routes;
        routes.push(route(self.matches, Action::Forward(Box::new(self.forward))));
        let table = RouteTable {
            name: "routes".into(),
            virtual_hosts: vec![VirtualHost {
                name: "all".into(),
                routes,
                request_headers: HeaderEdits::default(),
                response_headers: HeaderEdits::default(),
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
                gates: Vec::new(),
                backlog: 128,
                access_log: Vec::new(),
                metrics: Arc::new(self.families.listeners.handles("front")),
                secrets: Vec::new(),
                patience: None,
            }),
            clusters: Box::new([]),
            routes: Box::new([RouteLink::Inline(config)]),
        });
        Snapshot {
            generation,
            listeners: HashMap::from([("front".into(), listener)]),
            clusters: HashMap::from([("shop".into(), cluster)]),
            ..Snapshot::default()
        }
    }
}

trait IntoSwap {
    fn into_swap(self) -> arc_swap::ArcSwap<EndpointSet>;
}

impl IntoSwap for EndpointSet {
    fn into_swap(self) -> arc_swap::ArcSwap<EndpointSet> {
        arc_swap::ArcSwap::from_pointee(self)
    }
}

/// A running proxy. Ends when it is dropped.
pub struct Proxy {
    pub address: SocketAddr,
    pub store: Arc<Store>,
    pub drain: watch::Sender<Phase>,
    /// Of the worker's thread, below /proc.
    thread_folder: std::path::PathBuf,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Proxy {
    pub fn start(setup: Setup) -> Self {
        let store = Arc::new(Store::new(setup.snapshot(1)));
        let (drain, drained) = watch::channel(Phase::Serving);
        let (stop, stopped) = oneshot::channel();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let shared = store.clone();
        let (tell, folder) = std::sync::mpsc::channel();
        let thread = std::thread::spawn(move || {
            tell.send(std::fs::read_link("/proc/thread-self").unwrap())
                .unwrap();
            // As a worker's: without timers of the runtime's.
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_io()
                .build_local(tokio::runtime::LocalOptions::default())
                .unwrap();
            runtime.block_on(async move {
                let worker = Worker::new(0, shared, telemetry(), None, drained);
                let chores = worker.clone();
                tokio::task::spawn_local(async move { chores.run(Alarm::new().unwrap()).await });
                let listener = tokio::net::TcpListener::from_std(listener).unwrap();
                tokio::select! {
                    () = accept(worker, listener) => {}
                    _ = stopped => {}
                }
            });
        });
        Self {
            address,
            store,
            drain,
            thread_folder: folder.recv().unwrap(),
            stop: Some(stop),
            thread: Some(thread),
        }
    }

    /// Time that the worker has run for.
    pub fn cpu_time(&self) -> Duration {
        let path = std::path::Path::new("/proc").join(&self.thread_folder);
        let text = std::fs::read_to_string(path.join("schedstat")).unwrap();
        Duration::from_nanos(text.split(' ').next().unwrap().parse().unwrap())
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
            && !std::thread::panicking()
        {
            panic!("the proxy panicked");
        }
    }
}

async fn accept(worker: std::rc::Rc<Worker>, sockets: tokio::net::TcpListener) {
    loop {
        let (tcp, peer) = sockets.accept().await.unwrap();
        let local = tcp.local_addr().unwrap();
        let listener = worker.store.load().listeners["front"].clone();
        let chain = listener.def.chains[0].clone();
        let TerminalFilter::Http(manager) = &chain.terminal else {
            panic!("not HTTP");
        };
        let manager = manager.clone();
        let open = OpenConnection::of(&listener.def.metrics);
        let worker = worker.clone();
        tokio::task::spawn_local(async move {
            let stream = match &chain.tls {
                None => Stream::from(tcp),
                Some(context) => match worker.tls.accept(tcp, &[], context).await {
                    Ok(stream) => Stream::from(stream),
                    Err(_) => return,
                },
            };
            let connection = HttpConnection {
                would_admit: anyam_proxy::listener::would_admit,
                stream,
                prefix: BytesMut::new(),
                manager,
                listener,
                chain,
                peer,
                local,
                original_dst: None,
            };
            serve::serve(&worker, connection, open);
        });
    }
}

fn telemetry() -> Arc<anyam_proxy::telemetry::Telemetry> {
    use anyam_proxy::metrics::{Edges, Registry, SpliceMetrics};
    use anyam_proxy::telemetry::Telemetry;
    let registry = Arc::new(Registry::new().unwrap());
    Arc::new(Telemetry {
        splices: SpliceMetrics::new(&registry).unwrap(),
        edges: Edges::new(registry),
        local: Default::default(),
        taps: Default::default(),
    })
}
