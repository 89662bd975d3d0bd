//! Access to the API; junk on every port, over real sockets with real clients.

use std::net::SocketAddr;
use std::time::Duration;

use http::StatusCode;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

use super::bench::{Bench, Delta, node};

/// Prometheus and the kubelet come under the pod's address, and have no token.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_port_for_metrics_has_metrics_and_health_only() {
    let bench = Bench::new().await;
    let port = bench.running.metrics_port.unwrap();
    let under = [("host", "10.244.0.7:15014")];
    let status = async |method, path| {
        let response = bench.open_at(port, (method, path), &under, "").await;
        response.status()
    };
    for path in ["/healthz", "/readyz", "/metrics"] {
        assert_eq!(status("GET", path).await, StatusCode::OK, "{path}");
        assert_eq!(status("HEAD", path).await, StatusCode::OK, "{path}");
        assert_eq!(status("POST", path).await, StatusCode::NOT_FOUND, "{path}");
    }
    for path in [
        "/",
        "/api/v1/proxies",
        "/api/v1/session",
        "/api/v1/dump/a/b/certs",
    ] {
        assert_eq!(status("GET", path).await, StatusCode::NOT_FOUND, "{path}");
    }
}

/// A connection from 127.0.0.`last`.
async fn connect_from(last: u8, port: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket
        .bind(SocketAddr::from(([127, 0, 0, last], 0)))
        .unwrap();
    socket.connect(port).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn peers_that_hold_the_port_for_metrics_keep_no_probe_out() {
    let bench = Bench::new().await;
    let port = bench.running.metrics_port.unwrap();
    let flood = b"GET /metrics HTTP/1.1\r\nhost: a\r\n\r\n".repeat(500);
    let mut held = Vec::new();
    // The first is more than one address may hold, all are more than the port has.
    for (last, silent) in [(2, 300), (3, 60), (4, 60), (5, 60), (6, 60)] {
        for _ in 0..silent {
            held.push(connect_from(last, port).await);
        }
        // These ask more than once and read no answer.
        for _ in 0..4 {
            let mut stream = connect_from(last, port).await;
            // It may be closed before all of it was taken.
            let _ = stream.write_all(&flood).await;
            held.push(stream);
        }
        for path in ["/healthz", "/readyz"] {
            let probe = bench.open_at(port, ("GET", path), &[], "");
            let probe = tokio::time::timeout(Duration::from_secs(5), probe).await;
            let probe = probe.expect("the probe is answered");
            assert_eq!(probe.status(), StatusCode::OK, "{path}");
        }
    }
    let (_, metrics) = bench.http("GET", "/metrics", &[], "").await;
    let metrics = String::from_utf8(metrics.to_vec()).unwrap();
    let counter = r#"anyam_control_connections_refused_total{reason="monitoring"} "#;
    assert!(metrics.contains(counter), "{metrics}");
    drop(held);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_to_the_port_for_metrics_has_one_response() {
    let bench = Bench::new().await;
    let port = bench.running.metrics_port.unwrap();
    let mut stream = TcpStream::connect(port).await.unwrap();
    let request = b"GET /readyz HTTP/1.1\r\nhost: a\r\n\r\n";
    stream.write_all(request).await.unwrap();
    let mut response = String::new();
    let end = stream.read_to_string(&mut response);
    // Before the time-out of a silent connection.
    let end = tokio::time::timeout(Duration::from_secs(5), end).await;
    end.expect("the connection is closed").unwrap();
    assert!(response.starts_with("HTTP/1.1 200 OK\r\n"), "{response}");
    assert!(response.ends_with("ready\n"), "{response}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_api_is_for_those_who_hold_the_token() {
    let bench = Bench::new().await;
    let (status, body) = bench.http("GET", "/api/v1/proxies", &[], "").await;
    assert_eq!(status, StatusCode::UNAUTHORIZED);
    let error: Value = serde_json::from_slice(&body).unwrap();
    assert!(
        error["todo"].as_str().unwrap().contains("api-token"),
        "{error}"
    );
    let (status, _) = bench
        .http("GET", "/", &[("host", "evil.example")], "")
        .await;
    assert_eq!(status, StatusCode::MISDIRECTED_REQUEST);
    for open in ["/", "/healthz", "/readyz", "/metrics"] {
        assert_eq!(
            bench.http("GET", open, &[], "").await.0,
            StatusCode::OK,
            "{open}"
        );
    }
    let (status, _) = bench.http("POST", "/api/v1/session", &[], "").await;
    assert_eq!(status, StatusCode::UNAUTHORIZED);
    let token = std::fs::read_to_string(&bench.running.token_file).unwrap();
    let bearer = format!("Bearer {}", token.trim());
    let session = bench
        .open("POST", "/api/v1/session", &[("authorization", &bearer)], "")
        .await;
    let cookie = session.headers()["set-cookie"].to_str().unwrap().to_owned();
    assert!(
        cookie.contains("HttpOnly") && cookie.contains("SameSite=Strict"),
        "{cookie}"
    );
    let cookie = cookie.split(';').next().unwrap();
    let (status, _) = bench
        .http("GET", "/api/v1/proxies", &[("cookie", cookie)], "")
        .await;
    assert_eq!(status, StatusCode::OK);
    let foreign = [("cookie", cookie), ("origin", "http://evil.example")];
    assert_eq!(
        bench.http("GET", "/api/v1/proxies", &foreign, "").await.0,
        StatusCode::FORBIDDEN
    );
    for (path, body) in [
        ("/api/v1/explain", "{"),
        (
            "/api/v1/explain",
            r#"{"source": "a/b", "destination": "", "bogus": 1}"#,
        ),
        (
            "/api/v1/explain",
            r#"{"source": "a/b/c", "destination": "x"}"#,
        ),
        (
            "/api/v1/explain",
            r#"{"source": "shop/web-0", "destination": "x:y"}"#,
        ),
    ] {
        let (status, error) = bench.post(path, body).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{error}");
        for part in ["what", "where", "todo"] {
            assert!(!error[part].as_str().unwrap().is_empty(), "{error}");
        }
    }
    let long = format!(r#"{{"source": "{}"}}"#, "x".repeat(100_000));
    assert_eq!(
        bench.post("/api/v1/explain", &long).await.0,
        StatusCode::BAD_REQUEST
    );
    let ghost = r#"{"source": "shop/ghost", "destination": "10.0.0.2:80"}"#;
    let (status, error) = bench.post("/api/v1/explain", ghost).await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    assert_eq!(error["what"], "there is no Workload shop/ghost");
    assert_eq!(bench.get("/api/v1/nothing").await.0, StatusCode::NOT_FOUND);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn junk_on_the_ports_is_closed_and_nothing_worse() {
    let bench = Bench::new().await;
    let ports = [
        bench.running.xds,
        bench.running.insecure_ads.unwrap(),
        bench.running.api,
    ];
    for port in ports {
        for junk in [
            &b"\x00\xff\x16\x03\x01\xff\xff"[..],
            &b"GET / HTTP/1.1\r\nbad\r\n\r\n"[..],
            &[0xff; 100_000][..],
        ] {
            let mut stream = TcpStream::connect(port).await.unwrap();
            // It may be closed before all of it was taken.
            let _ = stream.write_all(junk).await;
            let _ = stream.shutdown().await;
            let mut rest = Vec::new();
            let end = tokio::time::timeout(Duration::from_secs(15), stream.read_to_end(&mut rest));
            assert!(end.await.is_ok(), "{port} holds on to junk");
        }
    }
    assert_eq!(bench.get("/api/v1/proxies").await.0, StatusCode::OK);
    let mut stream = Delta::open(bench.plain().await, node("web-0"))
        .await
        .unwrap();
    stream.next().await.unwrap();
}
