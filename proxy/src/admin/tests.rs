//! The admin server over real sockets.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::server::{bind, serve};
use super::surface::Surface;
use super::*;
use crate::snapshot::Snapshot;
use prost::Message;
use xds_proto::envoy::config::bootstrap::v3::Bootstrap;

fn admin() -> Arc<Admin> {
    let (_listening, listening) = watch::channel(true);
    Arc::new(Admin {
        store: Arc::new(Store::new(Snapshot::default())),
        registry: Arc::new(Registry::new().unwrap()),
        drain: Arc::default(),
        logging: Logging::new("info", |_| Ok(())),
        sinks: Arc::new(Sinks::new(
            prometheus::IntCounter::new("dropped", "dropped").unwrap(),
            0,
        )),
        xds: None,
        identity: None,
        prober: None,
        scrapes: ScrapePages::default(),
        bootstrap: bootstrap(),
        statics: Vec::new(),
        node: serde_json::json!({ "id": "n" }),
        options: serde_json::Value::Null,
        listening,
        started: SystemTime::now(),
        since: Instant::now(),
    })
}

/// With two layers that differ.
fn bootstrap() -> Bytes {
    let layers = serde_json::json!({"layered_runtime": {"layers": [
        {"name": "base", "static_layer": {"envoy": {"reloadable_features": {"x": 1}}}},
        {"name": "admin", "admin_layer": {}},
        {"name": "top", "static_layer": {"envoy.reloadable_features.x": 7}},
    ]}});
    let message = xds_proto::json::decode_json::<Bootstrap>(&layers).unwrap();
    message.encode_to_vec().into()
}

async fn start(surface: Surface, admin: Arc<Admin>) -> SocketAddr {
    let port = bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let address = port.listener.local_addr().unwrap();
    tokio::spawn(async move { serve(&port, surface, &admin).await });
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
        ("/config_dump?mask=static_clusters", "ClustersConfigDump"),
        ("/clusters?format=json", "cluster_statuses"),
        ("/listeners?format=json", "listener_statuses"),
        ("/certs", "certificates"),
        ("/stats", "anyam_telemetry_edges_overflowed_total: 0"),
        ("/stats/prometheus", "# TYPE"),
        ("/server_info", "\"state\": \"LIVE\""),
        ("/memory", "\"total_physical_bytes\": \""),
        ("/runtime", "\"final_value\": \"7\""),
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
        "/reopen_logs",
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
async fn host_names_are_accepted_on_addresses_other_than_loopback() {
    // Of loopback, but not 127.0.0.1: what counts is our end of the connection.
    let head = |host: &str| {
        let request = http::Request::get("/certs").header("host", host);
        request.body(()).unwrap().into_parts().0
    };
    let admin = admin();
    for (local, host, status) in [
        ("10.0.0.7", "proxy.shop.svc:15000", 200),
        ("fd00::7", "proxy.shop.svc", 200),
        ("::ffff:127.0.0.1", "proxy.shop.svc", 403),
        ("::1", "proxy.shop.svc", 403),
        ("127.0.0.9", "proxy.shop.svc", 403),
        ("127.0.0.9", "localhost:15000", 200),
    ] {
        let local = local.parse().unwrap();
        let answer = routes::answer(Surface::Admin, &admin, local, &head(host)).await;
        assert_eq!(answer.status(), status, "{local} {host}");
    }
}

#[tokio::test]
async fn json_has_one_object_for_all_histograms() {
    use prometheus::core::Collector;

    let admin = admin();
    let labels = vec![
        "edge";
        admin.registry.request_duration.desc()[0]
            .variable_labels
            .len()
    ];
    let histogram = admin.registry.request_duration.with_label_values(&labels);
    (0..4).for_each(|_| histogram.observe(0.25));
    let query = "format=json&filter=%5E(istio_request_duration|anyam_panics)";
    let page = admin.page("/stats", query).await.unwrap();
    let page: serde_json::Value = serde_json::from_slice(&page.body).unwrap();
    let stats = page["stats"].as_array().unwrap();
    assert_eq!(stats.len(), 2, "{page}");
    assert_eq!(stats[0]["name"], "anyam_panics_total");
    let histograms = &stats[1]["histograms"];
    let supported = serde_json::json!([0.0, 25.0, 50.0, 75.0, 90.0, 95.0, 99.0, 99.5, 99.9, 100.0]);
    assert_eq!(histograms["supported_quantiles"], supported);
    let computed = histograms["computed_quantiles"].as_array().unwrap();
    assert_eq!(computed.len(), 1);
    let name = computed[0]["name"].as_str().unwrap();
    assert!(name.starts_with("istio_request_duration_milliseconds{"));
    assert_eq!(computed[0]["values"].as_array().unwrap().len(), 10);
    let last = &computed[0]["values"][9];
    assert!(last["interval"].is_null() && last["cumulative"].as_f64().unwrap() >= 0.25);
    // Prometheus' own formats keep the buckets.
    let page = admin.page("/stats", "format=prometheus").await.unwrap();
    let text = String::from_utf8(page.body.to_vec()).unwrap();
    assert!(text.contains("istio_request_duration_milliseconds_bucket{"));
}

#[tokio::test]
async fn pages_say_what_they_were_asked_for_and_no_more() {
    let admin = admin();
    let family = admin.registry.counters("shop_total", "Test.", &["of"]);
    let family = family.unwrap();
    family.with_label_values(&["tea"]).inc();
    family.with_label_values(&["salt"]).reset();
    let page = async |path: &str, query: &str| {
        let page = admin.page(path, query).await?;
        Ok::<_, PageError>(String::from_utf8(page.body.to_vec()).unwrap())
    };
    let tea = "shop_total{of=\"tea\"}";
    let all = page("/stats", "filter=%5Eshop_").await.unwrap();
    assert_eq!(all, format!("shop_total{{of=\"salt\"}}: 0\n{tea}: 1\n"));
    let used = page("/stats", "usedonly&filter=shop").await.unwrap();
    assert_eq!(used, format!("{tea}: 1\n"));
    let json = page("/stats", "format=json&filter=tea").await.unwrap();
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(
        json["stats"],
        serde_json::json!([{"name": tea, "value": 1}])
    );
    for path in ["/stats/prometheus", "/stats"] {
        let text = page(path, "format=prometheus&filter=of%3D&usedonly").await;
        let text = text.unwrap();
        assert!(text.contains(tea) && text.contains("# TYPE shop_total counter"));
        assert!(
            !text.contains("salt") && !text.contains("edges_overflowed"),
            "{text}"
        );
    }
    assert_eq!(page("/stats", "type=Gauges&filter=shop").await.unwrap(), "");
    for (path, query, status) in [
        ("/stats", "filter=(", 400),
        ("/stats", "format=html", 400),
        ("/stats", "type=Words", 400),
        ("/config_dump", "name_regex=(", 400),
        ("/config_dump", "resource=bootstrap", 400),
        ("/config_dump", "resource=nothing", 404),
        ("/nothing", "", 404),
    ] {
        let error = page(path, query).await.unwrap_err();
        assert_eq!(error.status, status, "{path}?{query}: {error:?}");
    }
    let masked = page("/config_dump", "mask=bootstrap.node").await.unwrap();
    assert!(
        !masked.contains("layered_runtime") && !masked.contains("Clusters"),
        "{masked}"
    );
}

/// A connection that sends nothing.
async fn silent(address: SocketAddr, from: &str) -> TcpStream {
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind(format!("{from}:0").parse().unwrap()).unwrap();
    socket.connect(address).await.unwrap()
}

async fn ends(tcp: &mut TcpStream) {
    // A reset is an end as well.
    let _ = tcp.read(&mut [0; 64]).await;
}

#[tokio::test]
async fn a_probe_is_answered_while_others_hold_all_connections() {
    let admin = admin();
    for surface in [
        Surface::Health,
        Surface::Metrics,
        Surface::Admin,
        Surface::Status,
    ] {
        let address = start(surface, admin.clone()).await;
        let path = match surface {
            Surface::Health | Surface::Status => "/healthz/ready",
            Surface::Metrics | Surface::Admin => "/stats/prometheus",
        };
        let mut held = Vec::new();
        for number in 0..200 {
            held.push(silent(address, &format!("127.0.0.{}", 2 + number % 100)).await);
        }
        let began = Instant::now();
        let answer = call(address, "GET", path, "").await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{surface:?}: {answer}");
        assert!(began.elapsed().as_secs() < 5, "{surface:?}");
        // The oldest have gone.
        ends(&mut held[0]).await;
    }
}

#[tokio::test]
async fn connections_of_silent_peers_are_closed_soon() {
    let address = start(Surface::Health, admin()).await;
    let began = Instant::now();
    ends(&mut silent(address, "127.0.0.2").await).await;
    let after = began.elapsed().as_millis();
    assert!((500..8000).contains(&after), "{after} ms");
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

/// They cost the process some work each, and every peer may send them.
#[tokio::test]
async fn only_so_many_selections_of_metrics_are_made() {
    let metrics = start(Surface::Metrics, admin()).await;
    let mut statuses = std::collections::HashSet::new();
    for _ in 0..10 {
        let asked = (0..12).map(|_| call(metrics, "GET", "/metrics?usedonly", ""));
        for answer in futures_util::future::join_all(asked).await {
            statuses.insert(answer[..12].to_owned());
        }
        // What Prometheus asks for is always there.
        let answer = call(metrics, "GET", "/metrics", "").await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }
    let mut statuses: Vec<_> = statuses.into_iter().collect();
    statuses.sort();
    assert_eq!(statuses, ["HTTP/1.1 200", "HTTP/1.1 503"]);
}

#[test]
fn times_are_rfc3339() {
    let time = SystemTime::UNIX_EPOCH + std::time::Duration::from_millis(1_700_000_000_123);
    assert_eq!(rfc3339(time), "2023-11-14T22:13:20.123Z");
}
