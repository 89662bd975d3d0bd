//! Active health checks of what comes over ADS: endpoints that are removed, clusters that are new, and
//! clusters that get health checks later.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::ads::{
    ControlPlane, all_to, cluster, eds_cluster, endpoints, http_listener, listener, static_cluster,
};
use crate::ports::free_port;
use crate::process::{Proxy, first_status, status};

/// A server that answers health checks with 200 or 503, by `healthy`, and requests with the status that
/// it was started with.
struct Server {
    address: SocketAddr,
    healthy: Arc<AtomicBool>,
    /// Checks do not end before this is set.
    answers: Arc<AtomicBool>,
    checks: Arc<AtomicUsize>,
}

impl Server {
    async fn start(status: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = Self {
            address: listener.local_addr().unwrap(),
            healthy: Arc::new(AtomicBool::new(true)),
            answers: Arc::new(AtomicBool::new(true)),
            checks: Arc::default(),
        };
        let (healthy, answers) = (server.healthy.clone(), server.answers.clone());
        let checks = server.checks.clone();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let (healthy, answers) = (healthy.clone(), answers.clone());
                let checks = checks.clone();
                tokio::spawn(async move {
                    let mut request = Vec::new();
                    while !request.ends_with(b"\r\n\r\n") {
                        if stream.read_buf(&mut request).await.unwrap_or(0) == 0 {
                            return;
                        }
                    }
                    let is_check = request.starts_with(b"GET /healthz");
                    if is_check {
                        checks.fetch_add(1, SeqCst);
                        while !answers.load(SeqCst) {
                            tokio::task::yield_now().await;
                        }
                    }
                    let status = match (is_check, healthy.load(SeqCst)) {
                        (false, _) => status,
                        (true, true) => 200,
                        (true, false) => 503,
                    };
                    let answer = format!(
                        "HTTP/1.1 {status} A\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
                    );
                    let _ = stream.write_all(answer.as_bytes()).await;
                });
            }
        });
        server
    }
}

fn with_checks(mut cluster: Value, more: &Value) -> Value {
    cluster["health_checks"] = json!([{
        "timeout": "10s", "interval": "0.05s", "no_traffic_interval": "0.05s",
        "unhealthy_threshold": 1, "healthy_threshold": 1,
        "http_health_check": {"path": "/healthz"},
    }]);
    cluster["common_lb_config"] = json!({"healthy_panic_threshold": {"value": 0}});
    for (key, value) in more.as_object().unwrap() {
        cluster[key] = value.clone();
    }
    cluster
}

async fn flags(proxy: &Proxy, server: &Server) -> Option<String> {
    let (_, page) = proxy.admin("/clusters").await;
    let start = format!("::{}::health_flags::", server.address);
    let (_, rest) = page.split_once(&start)?;
    Some(rest.lines().next()?.to_owned())
}

async fn until_flags(proxy: &Proxy, server: &Server, wanted: Option<&str>) {
    while flags(proxy, server).await.as_deref() != wanted {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn an_endpoint_that_is_removed_serves_while_it_passes() {
    let mut control = ControlPlane::start().await;
    let port = free_port();
    let proxy = Proxy::start(control.bootstrap(&[], &[]));
    let mut stream = control.stream().await;
    let (old, new) = (Server::start(201).await, Server::start(202).await);
    let up = with_checks(eds_cluster("up", "60s"), &json!({}));
    stream.give(cluster("1", &up)).await;
    stream.give(endpoints("up", "1", old.address)).await;
    let front = http_listener("front", port, all_to("up"));
    stream.give(listener("1", &front)).await;
    while first_status(port).await != 201 {}
    stream.give(endpoints("up", "2", new.address)).await;
    until_flags(&proxy, &new, Some("healthy")).await;
    until_flags(&proxy, &old, Some("/pending_dynamic_removal")).await;
    let mut seen = std::collections::BTreeSet::new();
    while seen.len() < 2 {
        seen.insert(status(port).await.unwrap());
    }
    assert_eq!(seen.into_iter().collect::<Vec<_>>(), [201, 202]);
    // It fails, and is gone with its checks.
    old.healthy.store(false, SeqCst);
    until_flags(&proxy, &old, None).await;
    let (checks, others) = (old.checks.load(SeqCst), new.checks.load(SeqCst));
    while new.checks.load(SeqCst) < others + 5 {
        tokio::task::yield_now().await;
    }
    assert!(old.checks.load(SeqCst) <= checks + 1);
    assert_eq!(status(port).await, Some(202));
}

#[tokio::test]
async fn an_endpoint_that_is_removed_goes_at_once_where_that_is_configured() {
    let mut control = ControlPlane::start().await;
    let proxy = Proxy::start(control.bootstrap(&[], &[]));
    let mut stream = control.stream().await;
    let (old, new) = (Server::start(201).await, Server::start(202).await);
    let more = json!({"ignore_health_on_host_removal": true});
    let up = with_checks(eds_cluster("up", "60s"), &more);
    stream.give(cluster("1", &up)).await;
    stream.give(endpoints("up", "1", old.address)).await;
    until_flags(&proxy, &old, Some("healthy")).await;
    stream.give(endpoints("up", "2", new.address)).await;
    until_flags(&proxy, &new, Some("healthy")).await;
    assert_eq!(flags(&proxy, &old).await, None);
}

#[tokio::test]
async fn a_new_cluster_has_no_endpoint_before_the_first_results() {
    let mut control = ControlPlane::start().await;
    let port = free_port();
    let proxy = Proxy::start(control.bootstrap(&[], &[]));
    let mut stream = control.stream().await;
    let (server, other) = (Server::start(200).await, Server::start(201).await);
    stream
        .give(cluster("1", &static_cluster("other", other.address)))
        .await;
    let front = |cluster| http_listener("front", port, all_to(cluster));
    stream.give(listener("1", &front("other"))).await;
    assert_eq!(first_status(port).await, 201);
    while !proxy.is_live().await {}
    server.answers.store(false, SeqCst);
    // In panic it would get requests without any result.
    let panics = json!({"common_lb_config": {"healthy_panic_threshold": {"value": 50}}});
    let up = with_checks(static_cluster("up", server.address), &panics);
    stream.give(cluster("1", &up)).await;
    stream.give(listener("2", &front("up"))).await;
    assert_eq!(status(port).await, Some(503));
    until_flags(&proxy, &server, Some("/failed_active_hc")).await;
    assert_eq!(status(port).await, Some(503));
    server.answers.store(true, SeqCst);
    while status(port).await != Some(200) {}
    assert_eq!(flags(&proxy, &server).await.as_deref(), Some("healthy"));
}

#[tokio::test]
async fn the_first_listeners_open_after_the_first_results() {
    let mut control = ControlPlane::start().await;
    let port = free_port();
    let _proxy = Proxy::start(control.bootstrap(&[], &[]));
    let mut stream = control.stream().await;
    let server = Server::start(200).await;
    server.answers.store(false, SeqCst);
    let up = with_checks(static_cluster("up", server.address), &json!({}));
    stream.give(cluster("1", &up)).await;
    while server.checks.load(SeqCst) == 0 {
        tokio::task::yield_now().await;
    }
    let front = http_listener("front", port, all_to("up"));
    let given = stream.give(listener("1", &front));
    let open = async {
        assert_eq!(status(port).await, None);
        server.answers.store(true, SeqCst);
        assert_eq!(first_status(port).await, 200);
    };
    tokio::join!(given, open);
}

#[tokio::test]
async fn a_cluster_that_gets_checks_goes_on_serving_until_they_say_otherwise() {
    let mut control = ControlPlane::start().await;
    let port = free_port();
    let proxy = Proxy::start(control.bootstrap(&[], &[]));
    let mut stream = control.stream().await;
    let server = Server::start(200).await;
    let plain = static_cluster("up", server.address);
    stream.give(cluster("1", &plain)).await;
    let front = http_listener("front", port, all_to("up"));
    stream.give(listener("1", &front)).await;
    assert_eq!(first_status(port).await, 200);
    server.answers.store(false, SeqCst);
    server.healthy.store(false, SeqCst);
    stream
        .give(cluster("2", &with_checks(plain.clone(), &json!({}))))
        .await;
    while server.checks.load(SeqCst) == 0 {
        tokio::task::yield_now().await;
    }
    assert_eq!(status(port).await, Some(200));
    assert_eq!(flags(&proxy, &server).await.as_deref(), Some("healthy"));
    server.answers.store(true, SeqCst);
    while status(port).await != Some(503) {}
    // A later version of the cluster knows what the one before found.
    let mut later = with_checks(plain.clone(), &json!({}));
    later["connect_timeout"] = "3s".into();
    stream.give(cluster("3", &later)).await;
    assert_eq!(status(port).await, Some(503));
    // Without checks there is nothing against the endpoint.
    stream.give(cluster("4", &plain)).await;
    assert_eq!(status(port).await, Some(200));
    assert_eq!(flags(&proxy, &server).await.as_deref(), Some("healthy"));
}
