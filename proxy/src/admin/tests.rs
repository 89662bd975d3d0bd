//! The admin server over real sockets.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::server::{Surface, bind, serve};
use super::*;
use crate::snapshot::Snapshot;

fn admin() -> Arc<Admin> {
    let (_listening, listening) = watch::channel(true);
    Arc::new(Admin {
        store: Arc::new(Store::new(Snapshot::default())),
        registry: Arc::new(Registry::new().unwrap()),
        drain: Arc::default(),
        logging: Logging::new("info", |_| Ok(())),
        xds: None,
        identity: None,
        bootstrap: Bytes::new(),
        statics: Vec::new(),
        node: serde_json::json!({ "id": "n" }),
        options: serde_json::Value::Null,
        listening,
        started: SystemTime::now(),
        since: Instant::now(),
    })
}

async fn start(surface: Surface, admin: Arc<Admin>) -> SocketAddr {
    let listener = bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { serve(&listener, surface, &admin).await });
    address
}

async fn ask(address: SocketAddr, request: &str) -> String {
    let mut tcp = TcpStream::connect(address).await.unwrap();
    tcp.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    // A refused head may be answered and reset.
    let _ = tcp.read_to_string(&mut answer).await;
    answer
}

async fn call(address: SocketAddr, method: &str, path: &str, headers: &str) -> String {
    let request = format!(
        "{method} {path} HTTP/1.1\r\nhost: {address}\r\n{headers}connection: close\r\n\r\n"
    );
    ask(address, &request).await
}

#[tokio::test]
async fn every_page_answers() {
    let address = start(Surface::Admin, admin()).await;
    for (path, part) in [
        ("/", "/config_dump"),
        ("/ready", "LIVE"),
        ("/config_dump", "envoy.admin.v3.BootstrapConfigDump"),
        ("/config_dump?resource=static_clusters", "\"configs\": []"),
        ("/clusters?format=json", "cluster_statuses"),
        ("/listeners?format=json", "listener_statuses"),
        ("/certs", "certificates"),
        ("/stats", "anyam_telemetry_edges_overflowed_total: 0"),
        ("/stats/prometheus", "# TYPE"),
        ("/server_info", "\"state\": \"LIVE\""),
        ("/logging", "info"),
    ] {
        let answer = call(address, "GET", path, "").await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{path}: {answer}");
        assert!(answer.contains(part), "{path}: {answer}");
    }
    let answer = call(address, "GET", "/nothing", "").await;
    assert!(answer.starts_with("HTTP/1.1 404"), "{answer}");
}

#[tokio::test]
async fn what_changes_something_needs_a_post_from_no_web_page() {
    let admin = admin();
    let address = start(Surface::Admin, admin.clone()).await;
    for path in [
        "/drain",
        "/quitquitquit",
        "/healthcheck/fail",
        "/logging?level=debug",
    ] {
        let answer = call(address, "GET", path, "").await;
        assert!(answer.starts_with("HTTP/1.1 405"), "{path}: {answer}");
        for header in [
            "origin: http://evil.example\r\n",
            "sec-fetch-site: cross-site\r\n",
        ] {
            let answer = call(address, "POST", path, header).await;
            assert!(answer.starts_with("HTTP/1.1 403"), "{path}: {answer}");
        }
    }
    assert_eq!(admin.logging.current(), "info");
    assert!(admin.drain.is_healthy());
    let answer = call(address, "POST", "/logging?level=debug", "").await;
    assert!(answer.ends_with("debug\n"), "{answer}");
    call(address, "POST", "/healthcheck/fail", "").await;
    let answer = call(address, "GET", "/ready", "").await;
    assert!(answer.starts_with("HTTP/1.1 503") && answer.contains("DRAINING"));
    call(address, "POST", "/healthcheck/ok", "").await;
    let answer = call(address, "GET", "/ready", "").await;
    assert!(answer.starts_with("HTTP/1.1 200"));
    call(address, "POST", "/quitquitquit", "").await;
    admin.drain.quit_asked().await;
}

#[tokio::test]
async fn a_name_that_could_be_rebound_is_refused() {
    let address = start(Surface::Admin, admin()).await;
    for (host, fine) in [
        ("host: localhost:15000\r\n", true),
        ("host: [::1]:15000\r\n", true),
        ("host: 127.0.0.1\r\n", true),
        ("host: evil.example:15000\r\n", false),
        ("host: 127.0.0.1.evil.example\r\n", false),
        ("host: localhost\r\nhost: evil.example\r\n", false),
        ("", false),
    ] {
        let request = format!("GET /certs HTTP/1.1\r\n{host}connection: close\r\n\r\n");
        let answer = ask(address, &request).await;
        assert_eq!(
            answer.starts_with("HTTP/1.1 200"),
            fine,
            "{host:?}: {answer}"
        );
    }
}

#[tokio::test]
async fn the_other_ports_have_one_page_each() {
    let admin = admin();
    let metrics = start(Surface::Metrics, admin.clone()).await;
    let health = start(Surface::Health, admin).await;
    assert!(
        call(metrics, "GET", "/stats/prometheus", "")
            .await
            .contains("# HELP")
    );
    assert!(
        call(health, "GET", "/healthz/ready", "")
            .await
            .starts_with("HTTP/1.1 200")
    );
    for address in [metrics, health] {
        for path in ["/config_dump", "/quitquitquit", "/certs"] {
            let answer = call(address, "POST", path, "").await;
            assert!(answer.starts_with("HTTP/1.1 404"), "{answer}");
        }
    }
    let huge = format!("x: {}\r\n", "y".repeat(64 << 10));
    let answer = call(health, "GET", "/healthz/ready", &huge).await;
    assert!(!answer.starts_with("HTTP/1.1 200"), "{answer}");
}

#[test]
fn times_are_rfc3339() {
    let time = SystemTime::UNIX_EPOCH + std::time::Duration::from_millis(1_700_000_000_123);
    assert_eq!(rfc3339(time), "2023-11-14T22:13:20.123Z");
}
