//! The health checker on a thread of its own, like the control thread: how many checks run at once, a
//! check that panics, checks inside tunnels.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use anyam_proxy::bug;
use anyam_proxy::config::compile::{Changes, Compiler, SecretStore};
use anyam_proxy::health::{CheckLimits, HealthChecker};
use anyam_proxy::log_sink::Sinks;
use anyam_proxy::metrics::Registry;
use anyam_proxy::snapshot::{Snapshot, Store};
use anyam_proxy::upstream::cluster::Cluster;
use bytes::Bytes;
use http::Response;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use xds_proto::json::decode_json;

/// Runs the checker of one cluster beside `test`.
fn beside<T>(cluster: &Value, limits: CheckLimits, test: impl AsyncFnOnce(Arc<Cluster>) -> T) -> T {
    let registry = Registry::new().unwrap();
    let dropped = prometheus::IntCounter::new("dropped", "dropped").unwrap();
    let sinks = Arc::new(Sinks::new(dropped, 16 << 10));
    let mut compiler = Compiler::new(&registry, sinks, Arc::new(SecretStore::default())).unwrap();
    let store = Arc::new(Store::new(Snapshot::default()));
    let changes = Changes {
        clusters: vec![("up".into(), Some(decode_json(cluster).unwrap()))],
        ..Changes::default()
    };
    let outcome = compiler.apply(&store, changes);
    assert!(outcome.rejected.is_empty(), "{:?}", outcome.rejected);
    let cluster = store.load().clusters["up"].clone();
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_all();
    let runtime = runtime.build_local(Default::default()).unwrap();
    runtime.block_on(async {
        let mut checker = HealthChecker::new(store, limits).unwrap();
        let test = tokio::time::timeout(Duration::from_secs(30), test(cluster));
        tokio::select! {
            done = test => done.expect("the test hangs"),
            () = checker.run() => panic!("the checker ends"),
        }
    })
}

fn cluster(endpoints: &[Value], check: &Value) -> Value {
    json!({
        "name": "up", "type": "STATIC",
        "load_assignment": {"cluster_name": "up", "endpoints": [{"lb_endpoints": endpoints}]},
        "health_checks": [check],
    })
}

fn endpoint(at: SocketAddr) -> Value {
    json!({"endpoint": {"address": {"socket_address": {
        "address": at.ip().to_string(), "port_value": at.port()}}}})
}

fn check(timeout: &str, more: (&str, Value)) -> Value {
    let mut check = json!({
        "timeout": timeout, "interval": "0.02s", "no_traffic_interval": "0.02s",
        "unhealthy_threshold": 1, "healthy_threshold": 1,
    });
    check[more.0] = more.1;
    check
}

const LIMITS: CheckLimits = CheckLimits {
    at_once: 8,
    kept: 4,
};

async fn until(mut done: impl FnMut() -> bool) {
    while !done() {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

fn healthy(cluster: &Cluster) -> i64 {
    cluster.metrics.members_healthy.get()
}

fn attempts(cluster: &Cluster) -> u64 {
    cluster.checks.as_ref().unwrap().metrics.attempts.get()
}

/// A server at all loopback addresses, and how many connections it has had at once.
async fn everywhere(answers: bool) -> (u16, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("0.0.0.0:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (open, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let seen = most.clone();
    tokio::spawn(async move {
        while let Ok((mut tcp, _)) = listener.accept().await {
            let open = open.clone();
            seen.fetch_max(open.fetch_add(1, SeqCst) + 1, SeqCst);
            tokio::spawn(async move {
                let mut request = [0; 4096];
                while let Ok(1..) = tcp.read(&mut request).await {
                    let answer = b"HTTP/1.1 200 A\r\ncontent-length: 0\r\n\r\n";
                    if answers && tcp.write_all(answer).await.is_err() {
                        break;
                    }
                }
                open.fetch_sub(1, SeqCst);
            });
        }
    });
    (port, most)
}

/// Hosts at `port` of so many addresses.
fn hosts(count: u8, port: u16) -> Vec<Value> {
    let at = |n| endpoint(SocketAddr::from(([127, 2, 0, n + 1], port)));
    (0..count).map(at).collect()
}

#[test]
fn no_more_checks_than_may_be_run_at_once() {
    let http = || ("http_health_check", json!({"path": "/"}));
    for answers in [true, false] {
        let mut runtime = tokio::runtime::Builder::new_multi_thread();
        let servers = runtime.worker_threads(1).enable_all().build().unwrap();
        let (port, most) = servers.block_on(everywhere(answers));
        let timeout = if answers { "20s" } else { "0.05s" };
        let up = cluster(&hosts(100, port), &check(timeout, http()));
        beside(&up, LIMITS, async |cluster| match answers {
            true => {
                until(|| healthy(&cluster) == 100).await;
                until(|| attempts(&cluster) > 500).await;
            }
            false => {
                until(|| attempts(&cluster) > 200).await;
                assert_eq!(healthy(&cluster), 0);
            }
        });
        // The server sees the end of a connection somewhat later.
        let most = most.load(SeqCst);
        assert!(most <= 2 * (LIMITS.at_once + LIMITS.kept), "{most} at once");
    }
}

#[test]
fn a_check_that_panics_is_made_again() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let up = cluster(
        &[endpoint(listener.local_addr().unwrap())],
        &check("1s", ("tcp_health_check", json!({}))),
    );
    bug::count_panics();
    bug::panic_at(std::thread::current().id(), "health_check");
    let before = bug::panics();
    beside(&up, LIMITS, async |cluster| {
        until(|| healthy(&cluster) == 1).await;
        until(|| attempts(&cluster) > 3).await;
    });
    assert!(bug::panics() > before);
}

/// Takes CONNECT, and answers `pong` to `ping` inside; the authorities that were asked for.
async fn tunnels(listener: TcpListener, asked: tokio::sync::mpsc::UnboundedSender<String>) {
    while let Ok((tcp, _)) = listener.accept().await {
        let asked = asked.clone();
        tokio::spawn(async move {
            let mut connection = h2::server::handshake(tcp).await.unwrap();
            while let Some(Ok((request, mut respond))) = connection.accept().await {
                let _ = asked.send(request.uri().to_string());
                let mut send = respond.send_response(Response::new(()), false).unwrap();
                tokio::spawn(async move {
                    let mut body = request.into_body();
                    while let Some(Ok(data)) = body.data().await {
                        assert_eq!(data, "ping");
                        let _ = send.send_data(Bytes::from_static(b"pong"), false);
                    }
                });
            }
        });
    }
}

#[test]
fn checks_of_a_cluster_with_tunnels_go_through_them() {
    let carrier = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    carrier.set_nonblocking(true).unwrap();
    let port = carrier.local_addr().unwrap().port();
    // Nothing listens there: it is reached by tunnel only.
    let mut inside = endpoint("127.0.0.1:1".parse().unwrap());
    inside["metadata"] = json!({"filter_metadata": {
        "envoy.transport_socket_match": {"tunnel": "h2"},
        "anyam.tunnel": {"port": port},
    }});
    let tcp = json!({"send": {"text": "70696e67"}, "receive": [{"text": "706f6e67"}]});
    let mut up = cluster(&[inside], &check("1s", ("tcp_health_check", tcp)));
    up["transport_socket_matches"] = json!([{
        "name": "tunnel", "match": {"tunnel": "h2"},
        "transport_socket": {"name": "raw", "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer",
        }},
    }]);
    beside(&up, LIMITS, async |cluster| {
        let carrier = TcpListener::from_std(carrier).unwrap();
        let (asked, mut heard) = tokio::sync::mpsc::unbounded_channel();
        tokio::spawn(tunnels(carrier, asked));
        until(|| healthy(&cluster) == 1).await;
        until(|| attempts(&cluster) > 3).await;
        assert_eq!(heard.recv().await.unwrap(), "127.0.0.1:1");
        // The connection inside is kept.
        assert!(heard.try_recv().is_err());
    });
}
