//! A worker with a compiler in front, and the messages to feed it.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use anyam_proxy::config::compile::{Changes, Compiler, SecretStore};
use anyam_proxy::config::demand::OnDemandClient;
use anyam_proxy::dispatcher::timer::TimerFd;
use anyam_proxy::drain::Phase;
use anyam_proxy::listener::{Bound, ListenerContext};
use anyam_proxy::log_sink::Sinks;
use anyam_proxy::metrics::{Edges, Registry, SpliceMetrics};
use anyam_proxy::snapshot::{Snapshot, Store};
use anyam_proxy::telemetry::Telemetry;
use anyam_proxy::worker::Worker;
use rustls_pki_types::PrivateKeyDer;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::spawn_local;
use xds_proto::json::decode_json;

use crate::support::pki::{Ca, Issued, uri};

pub struct Rig {
    pub worker: Rc<Worker>,
    pub store: Arc<Store>,
    compiler: Compiler,
    registry: Arc<Registry>,
    pub drain: watch::Sender<Phase>,
}

impl Rig {
    pub fn new() -> Self {
        Self::with(None)
    }

    pub fn with(demand: Option<OnDemandClient>) -> Self {
        let registry = Registry::new().unwrap();
        let dropped = prometheus::IntCounter::new("dropped", "dropped").unwrap();
        let sinks = Arc::new(Sinks::new(dropped, 16 << 10));
        let compiler = Compiler::new(&registry, sinks, Arc::new(SecretStore::default())).unwrap();
        let registry = Arc::new(registry);
        let telemetry = Arc::new(Telemetry {
            edges: Edges::new(registry.clone()),
            splices: SpliceMetrics::new(&registry).unwrap(),
            local: Default::default(),
            taps: Default::default(),
        });
        let store = Arc::new(Store::new(Snapshot::default()));
        let (drain, draining) = watch::channel(Phase::Serving);
        let worker = Worker::new(0, store.clone(), telemetry, demand, draining);
        let context = ListenerContext::new(worker.clone());
        let running = context.clone();
        spawn_local(async move { running.run(TimerFd::new().unwrap()).await });
        let mut bound = Bound::new(context, store.follow());
        spawn_local(async move { bound.run().await });
        Rig {
            worker,
            store,
            compiler,
            registry,
            drain,
        }
    }

    /// With a listener, made for its port, whose cluster `echo` echoes.
    pub async fn echoing(listener: impl FnOnce(u16) -> Value) -> (Self, u16) {
        let mut rig = Self::new();
        let port = rig.free_port();
        let cluster = static_cluster("echo", echo_server().await);
        rig.apply(&[cluster], &[listener(port)]);
        (rig, port)
    }

    /// With a listener, made for its port, whose cluster `app` is the test's own server.
    pub async fn before_app(listener: impl FnOnce(u16) -> Value) -> (Self, u16, TcpListener) {
        let mut rig = Self::new();
        let port = rig.free_port();
        let app = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let cluster = static_cluster("app", app.local_addr().unwrap());
        rig.apply(&[cluster], &[listener(port)]);
        (rig, port, app)
    }

    /// With the secrets of the workload `cart`, a port, and the CA.
    pub fn of_cart() -> (Self, u16, Ca) {
        let mut rig = Self::new();
        let (port, ca) = (rig.free_port(), Ca::new());
        let shown = ca.issue(vec![uri("spiffe://mesh.local/ns/shop/sa/cart")]);
        rig.secrets(&shown, &ca);
        (rig, port, ca)
    }

    /// A port without a listener at the moment.
    pub fn free_port(&self) -> u16 {
        let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        socket.local_addr().unwrap().port()
    }

    pub fn apply(&mut self, clusters: &[Value], listeners: &[Value]) {
        let name = |value: &Value| value["name"].as_str().unwrap().to_owned();
        let changes = Changes {
            clusters: clusters
                .iter()
                .map(|c| (name(c), Some(decode_json(c).unwrap())))
                .collect(),
            listeners: listeners
                .iter()
                .map(|l| (name(l), Some(decode_json(l).unwrap())))
                .collect(),
            ..Changes::default()
        };
        self.change(changes);
    }

    pub fn remove_listener(&mut self, name: &str) {
        self.change(Changes {
            listeners: vec![(name.into(), None)],
            ..Changes::default()
        });
    }

    /// Bounds connections, of listeners that come after this.
    pub fn limit(&mut self, global: Option<u64>, listener: Option<(&str, u64)>) {
        let listeners = listener
            .into_iter()
            .map(|(name, most)| (name.to_owned(), most));
        self.compiler
            .limit_connections(global, &listeners.collect());
    }

    /// How long connections of listeners that are removed after this may go on.
    pub fn drain_time(&mut self, time: Duration) {
        self.compiler.set_drain_time(time);
    }

    /// The same, with a limit near which idle connections are closed.
    pub fn limit_closing_idle(&mut self, listener: &str, most: u64) {
        self.compiler.limit_listener(listener, most);
    }

    fn change(&mut self, changes: Changes) {
        let outcome = self.compiler.apply(&self.store, changes);
        let rejected: Vec<_> = outcome.rejected.iter().map(ToString::to_string).collect();
        assert!(rejected.is_empty(), "{rejected:?}");
    }

    /// The secrets that TLS contexts of sidecars name.
    pub fn secrets(&mut self, shown: &Issued, ca: &Ca) {
        let key = PrivateKeyDer::try_from(shown.key.serialize_der()).unwrap();
        let identity = anyam_proxy::tls::Identity::from_der(shown.chain.clone(), key).unwrap();
        let secrets = self.compiler.secrets();
        secrets.identity("default").set(Arc::new(identity));
        secrets.bundle("ROOTCA").set(ca.bundle());
    }

    pub fn metric(&self, line: &str) -> bool {
        String::from_utf8(self.registry.expose().unwrap())
            .unwrap()
            .contains(line)
    }

    /// The sum of all series of a counter.
    pub fn total(&self, counter: &str) -> f64 {
        let text = String::from_utf8(self.registry.expose().unwrap()).unwrap();
        let series = text.lines().filter_map(|line| line.strip_prefix(counter));
        let values = series.filter_map(|rest| rest.rsplit(' ').next());
        values.map(|value| value.parse::<f64>().unwrap()).sum()
    }

    /// Lets everything else run until `done`.
    pub async fn until(&self, done: impl Fn() -> bool) {
        while !done() {
            tokio::task::yield_now().await;
        }
    }
}

/// Connects once the port has a listener.
pub async fn connect(port: u16) -> TcpStream {
    connect_to(([127, 0, 0, 1], port).into()).await
}

pub async fn connect_to(address: SocketAddr) -> TcpStream {
    loop {
        if let Ok(stream) = TcpStream::connect(address).await {
            return stream;
        }
        tokio::task::yield_now().await;
    }
}

async fn serve<F: Future<Output = ()> + 'static>(each: fn(TcpStream) -> F) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    spawn_local(async move {
        while let Ok((stream, _)) = listener.accept().await {
            spawn_local(each(stream));
        }
    });
    address
}

pub async fn echo_server() -> SocketAddr {
    serve(|mut stream| async move {
        let (mut read, mut write) = stream.split();
        let _ = tokio::io::copy(&mut read, &mut write).await;
        let _ = write.shutdown().await;
    })
    .await
}

/// Greets each client, then answers one line.
pub async fn greeting_server() -> SocketAddr {
    serve(|mut stream| async move {
        let _ = stream.write_all(b"220 ready\n").await;
        let mut line = [0; 5];
        if stream.read_exact(&mut line).await.is_ok() {
            let _ = stream.write_all(b"BYE\n").await;
        }
    })
    .await
}

fn typed(kind: &str, mut fields: Value) -> Value {
    fields["@type"] = format!("type.googleapis.com/{kind}").into();
    fields
}

pub fn static_cluster(name: &str, endpoint: SocketAddr) -> Value {
    let address = json!({"socket_address": {
        "address": endpoint.ip().to_string(), "port_value": endpoint.port()}});
    json!({
        "name": name,
        "type": "STATIC",
        "connect_timeout": "2s",
        "load_assignment": {
            "cluster_name": name,
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address}}]}],
        },
    })
}

pub fn original_dst_cluster(name: &str) -> Value {
    json!({
        "name": name,
        "type": "ORIGINAL_DST",
        "connect_timeout": "2s",
        "lb_policy": "CLUSTER_PROVIDED",
    })
}

pub fn tcp_proxy(cluster: &str) -> Value {
    let kind = "envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy";
    json!({
        "name": "envoy.filters.network.tcp_proxy",
        "typed_config": typed(kind, json!({"stat_prefix": cluster, "cluster": cluster})),
    })
}

/// A listener on loopback with one chain, named `tcp`, to a cluster.
pub fn listener(name: &str, port: u16, matches: Value, cluster: &str) -> Value {
    json!({
        "name": name,
        "address": {"socket_address": {"address": "127.0.0.1", "port_value": port}},
        "filter_chains": [
            {"name": "tcp", "filter_chain_match": matches, "filters": [tcp_proxy(cluster)]},
        ],
    })
}

pub fn listener_filter(name: &str, message: &str) -> Value {
    let kind = format!("envoy.extensions.filters.listener.{name}.v3.{message}");
    json!({
        "name": format!("envoy.filters.listener.{name}"),
        "typed_config": typed(&kind, json!({})),
    })
}

pub fn http_direct_response(status: u32) -> Value {
    let kind = "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager";
    let router = typed("envoy.extensions.filters.http.router.v3.Router", json!({}));
    let manager = json!({
        "stat_prefix": "http",
        "route_config": {
            "name": "inline",
            "virtual_hosts": [{
                "name": "all",
                "domains": ["*"],
                "routes": [{"match": {"prefix": "/"}, "direct_response": {"status": status}}],
            }],
        },
        "http_filters": [{"name": "envoy.filters.http.router", "typed_config": router}],
    });
    json!({
        "name": "envoy.filters.network.http_connection_manager",
        "typed_config": typed(kind, manager),
    })
}

/// Only (`ALLOW`) or all but (`DENY`) the peer with this identity.
pub fn rbac(action: &str, identity: &str) -> Value {
    let policy = json!({
        "permissions": [{"any": true}],
        "principals": [{"authenticated": {"principal_name": {"exact": identity}}}],
    });
    let rules = json!({"action": action, "policies": {"one": policy}});
    let kind = "envoy.extensions.filters.network.rbac.v3.RBAC";
    json!({
        "name": "envoy.filters.network.rbac",
        "typed_config": typed(kind, json!({"stat_prefix": "rbac", "rules": rules})),
    })
}

pub fn downstream_tls() -> Value {
    let kind = "envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext";
    let context = json!({
        "require_client_certificate": true,
        "common_tls_context": {
            "tls_certificate_sds_secret_configs": [{"name": "default"}],
            "validation_context_sds_secret_config": {"name": "ROOTCA"},
            "alpn_protocols": ["anyam-tcp"],
        },
    });
    json!({"name": "tls", "typed_config": typed(kind, context)})
}
