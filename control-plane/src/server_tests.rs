//! The servers over real sockets, with real clients.

use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use http_body_util::BodyExt;
use serde_json::Value;
use tokio::net::TcpStream;
use tonic::{Code, Status};
use xds_proto::anyam::inspect::v1::control_message::Message as Command;
use xds_proto::anyam::inspect::v1::inspect_client::InspectClient;
use xds_proto::anyam::inspect::v1::proxy_message::Message;
use xds_proto::anyam::inspect::v1::{
    Decision, DumpChunk, Edge, Explanation, Hello, ProxyMessage, Report, TapEvent,
};
use xds_proto::envoy::config::core::v3::Node;
use xds_proto::type_url::CLUSTER;

use crate::server::{StartError, start};
use crate::testbench::{
    Agent, Bench, Client, DOMAIN, Delta, Nothing, certificate, csr, eventually, names, node,
    options,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_workload_joins_by_token_is_configured_and_renews_by_certificate() {
    let bench = Bench::new().await;
    bench.mesh.change(&[(CLUSTER, "a", Some("1"))]);
    let web = bench.join("web-0", "web").await;

    let channel = bench.channel(Some(&web)).await;
    let mut stream = Delta::open(channel.clone(), node("web-0")).await.unwrap();
    let first = stream.next().await.unwrap();
    assert_eq!(names(&first), ["a"]);
    stream.answer(&first, None).await;
    bench
        .mesh
        .change(&[(CLUSTER, "b", Some("1")), (CLUSTER, "a", None)]);
    let second = stream.next().await.unwrap();
    assert_eq!(names(&second), ["b"]);

    let (key, request) = csr(&format!("spiffe://{DOMAIN}/ns/shop/sa/web"));
    let chain = certificate(channel.clone(), &request, None).await.unwrap();
    let renewed = Client::new(key, &chain);
    assert_ne!(renewed.chain[0], web.chain[0]);
    let again = bench.channel(Some(&renewed)).await;
    let mut stream = Delta::open(again, node("web-0")).await.unwrap();
    assert_eq!(names(&stream.next().await.unwrap()), ["b"]);

    let (_, request) = csr(&format!("spiffe://{DOMAIN}/ns/shop/sa/cart"));
    let other = certificate(channel, &request, None).await.unwrap_err();
    assert_eq!(
        other.code(),
        Code::PermissionDenied,
        "renewal keeps the identity"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_is_configured_as_somebody_else() {
    let bench = Bench::new().await;
    let web = bench.join("web-0", "web").await;
    let refused = async |client: Option<&Client>, node: Node| {
        let channel = bench.channel(client).await;
        match Delta::open(channel, node).await {
            Ok(mut stream) => stream.next().await.unwrap_err(),
            Err(status) => status,
        }
    };
    assert_eq!(
        refused(None, node("web-0")).await.code(),
        Code::Unauthenticated
    );
    let other = refused(Some(&web), node("cart-0")).await;
    assert_eq!(other.code(), Code::PermissionDenied);
    assert!(
        other.message().contains("shop/cart-0") && other.message().contains("sa/web"),
        "{other}"
    );
    let sibling = refused(Some(&web), node("web-1")).await;
    assert_eq!(
        sibling.code(),
        Code::PermissionDenied,
        "same account, another workload"
    );
    let unknown = refused(Some(&web), node("ghost-0")).await;
    assert_eq!(unknown.code(), Code::PermissionDenied);
    for id in [
        "",
        "x",
        "sidecar~10.0.0.1~web-0~mesh.local",
        "sidecar~10.0.0.1~web-0.shop~other",
    ] {
        let node = Node {
            id: id.into(),
            ..Default::default()
        };
        assert_eq!(
            refused(Some(&web), node).await.code(),
            Code::PermissionDenied,
            "{id}"
        );
    }
    // A certificate of another mesh does not get past the handshake.
    let stranger = Bench::new().await.join("web-0", "web").await;
    let channel = bench.channel(Some(&stranger)).await;
    let (_, csr) = csr(&format!("spiffe://{DOMAIN}/ns/shop/sa/web"));
    assert!(certificate(channel, &csr, None).await.is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_buys_one_certificate_of_its_workload() {
    let bench = Bench::new().await;
    let token = bench.token("shop", "web-0", "web");
    let uri = |account: &str| format!("spiffe://{DOMAIN}/ns/shop/sa/{account}");
    let ask = async |bench: &Bench, account: &str, token: Option<&str>| {
        let channel = bench.channel(None).await;
        certificate(channel, &csr(&uri(account)).1, token).await
    };
    let code = |result: Result<Vec<String>, Status>| result.unwrap_err().code();
    assert_eq!(code(ask(&bench, "web", None).await), Code::Unauthenticated);
    assert_eq!(
        code(ask(&bench, "web", Some("junk")).await),
        Code::Unauthenticated
    );
    assert_eq!(
        code(ask(&bench, "cart", Some(&token)).await),
        Code::PermissionDenied
    );
    let removed = bench.token("shop", "removed-0", "web");
    assert_eq!(
        code(ask(&bench, "web", Some(&removed)).await),
        Code::PermissionDenied
    );
    let demoted = bench.token("shop", "cart-0", "web");
    assert_eq!(
        code(ask(&bench, "web", Some(&demoted)).await),
        Code::PermissionDenied
    );
    // What was refused for its form did not cost the token.
    ask(&bench, "web", Some(&token)).await.unwrap();
    assert_eq!(
        code(ask(&bench, "web", Some(&token)).await),
        Code::Unauthenticated
    );
    let root = bench.running.authority.root_hash();
    let bench = bench.restart().await;
    assert_eq!(bench.running.authority.root_hash(), root);
    assert_eq!(
        code(ask(&bench, "web", Some(&token)).await),
        Code::Unauthenticated
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_proxy_rejects_is_shown_until_it_accepts() {
    let bench = Bench::new().await;
    bench.mesh.change(&[(CLUSTER, "a", Some("1"))]);
    let web = bench.join("web-0", "web").await;
    let mut stream = Delta::open(bench.channel(Some(&web)).await, node("web-0"))
        .await
        .unwrap();
    let first = stream.next().await.unwrap();
    stream
        .answer(&first, Some("clusters[0].lb_policy: unknown"))
        .await;
    let proxy = eventually(async || {
        let (_, body) = bench.get("/api/v1/proxies").await;
        let proxy = body["proxies"][0].clone();
        (!proxy["rejected"].is_null()).then_some(proxy)
    })
    .await;
    assert_eq!(
        proxy["rejected"]["message"],
        "clusters[0].lb_policy: unknown"
    );
    assert_eq!(
        proxy["identity"],
        format!("spiffe://{DOMAIN}/ns/shop/sa/web")
    );
    assert_eq!(proxy["synced"], false);
    let (_, check) = bench.get("/api/v1/check").await;
    let found: Vec<_> = check["findings"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| &one["what"])
        .collect();
    assert!(
        found[0].as_str().unwrap().contains("lb_policy"),
        "{found:?}"
    );
    assert!(
        found[1].as_str().unwrap().contains("shop/absent-0"),
        "{found:?}"
    );

    bench.mesh.change(&[(CLUSTER, "a", Some("2"))]);
    let second = stream.next().await.unwrap();
    stream.answer(&second, None).await;
    eventually(async || {
        let (_, body) = bench.get("/api/v1/proxies").await;
        (body["proxies"][0]["synced"] == true).then_some(())
    })
    .await;
    drop(stream);
    eventually(async || {
        let (_, body) = bench.get("/api/v1/proxies").await;
        body["proxies"].as_array().unwrap().is_empty().then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_proxy_that_never_reads_delays_nobody() {
    let bench = Bench::new().await;
    let big = "x".repeat(1 << 20);
    let clusters: Vec<String> = (0..50).map(|n| format!("c{n}")).collect();
    let all: Vec<_> = clusters
        .iter()
        .map(|name| (CLUSTER, &**name, Some(&*big)))
        .collect();
    bench.mesh.change(&all);
    let channel = bench.plain().await;
    let slow = Delta::open(channel, node("web-0")).await.unwrap();
    let mut quick = Delta::open(bench.plain().await, node("web-1"))
        .await
        .unwrap();
    let mut seen = 0;
    while seen < 50 {
        let response = quick.next().await.unwrap();
        seen += response.resources.len();
        quick.answer(&response, None).await;
    }
    for version in 0..20 {
        bench
            .mesh
            .change(&[(CLUSTER, "c0", Some(&version.to_string()))]);
        let response = quick.next().await.unwrap();
        quick.answer(&response, None).await;
    }
    drop(slow);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_proxies_come_back_at_once() {
    let bench = Bench::new().await;
    let clusters: Vec<String> = (0..100).map(|n| format!("c{n}")).collect();
    let all: Vec<_> = clusters
        .iter()
        .map(|name| (CLUSTER, &**name, Some("1")))
        .collect();
    bench.mesh.change(&all);
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..20 {
        let channel = bench.plain().await;
        for _ in 0..50 {
            let channel = channel.clone();
            tasks.spawn(async move {
                let mut stream = Delta::open(channel, node("web-0")).await.unwrap();
                let response = stream.next().await.unwrap();
                assert_eq!(response.resources.len(), 100);
                stream
            });
        }
    }
    let streams = tasks.join_all().await;
    assert_eq!(streams.len(), 1000);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stopping_tells_the_streams_and_frees_the_state() {
    let bench = Bench::new().await;
    let mut stream = Delta::open(bench.plain().await, node("web-0"))
        .await
        .unwrap();
    stream.next().await.unwrap();
    let second = start(
        options(bench.state.path()),
        bench.mesh.clone(),
        Arc::new(Nothing),
    )
    .await;
    assert!(matches!(second, Err(StartError::InUse(_))));
    let bench = bench.restart().await;
    let end = stream.next().await.unwrap_err();
    assert_eq!(end.code(), Code::Unavailable, "{end}");
    let mut stream = Delta::open(bench.plain().await, node("web-0"))
        .await
        .unwrap();
    stream.next().await.unwrap();
    let mut open = options(bench.state.path());
    open.insecure_ads_listen = Some("0.0.0.0:0".parse().unwrap());
    let refused = start(open, bench.mesh.clone(), Arc::new(Nothing)).await;
    assert!(matches!(refused, Err(StartError::NotLoopback(_))));
}

fn decision(stage: &str, outcome: i32, subject: &str) -> Decision {
    Decision {
        stage: stage.into(),
        outcome,
        subject: subject.into(),
        reason: "because".into(),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_proxy_reports_is_an_edge_of_the_graph() {
    let bench = Bench::new().await;
    let web = Agent::open(&bench, "web-0", "10.0.0.1").await.unwrap();
    let mut latency = vec![0; 17];
    latency[4] = 30;
    web.say(Message::Report(Report {
        edges: vec![Edge {
            source_workload: "forged".into(),
            destination_service: "cart.shop.svc.cluster.local".into(),
            protocol: "http".into(),
            security: "mutual_tls".into(),
            requests: 30,
            latency,
            ..Default::default()
        }],
        ..Default::default()
    }))
    .await;
    let edge = eventually(async || {
        let (_, body) = bench.get("/api/v1/edges?namespace=shop").await;
        let edge = body["edges"][0].clone();
        (!edge.is_null()).then_some(edge)
    })
    .await;
    assert_eq!(
        (&edge["source_workload"], &edge["destination_service"]),
        (&"web-0".into(), &"cart".into())
    );
    assert_eq!(edge["signals"]["requests"], 30);
}

/// Until the control plane knows as many proxies.
async fn attached(bench: &Bench, count: usize) {
    eventually(async || {
        let (_, body) = bench.get("/api/v1/proxies").await;
        (body["proxies"].as_array()?.len() == count).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_proxies_explain_a_request() {
    let bench = Bench::new().await;
    let mut web = Agent::open(&bench, "web-0", "10.0.0.1").await.unwrap();
    let mut cart = Agent::open(&bench, "cart-0", "10.0.0.2").await.unwrap();
    attached(&bench, 2).await;
    let question = r#"{"source": "shop/web-0", "destination": "10.9.9.9:80", "method": "GET"}"#;
    let (answer, ()) = tokio::join!(bench.post("/api/v1/explain", question), async {
        let Command::Explain(ask) = web.asked().await else {
            panic!()
        };
        assert_eq!(
            (ask.inbound, &*ask.address, ask.port, &*ask.path),
            (false, "10.9.9.9", 80, "/")
        );
        let decisions = vec![
            decision("route", 0, "default"),
            decision("endpoint", 0, "10.0.0.2:8080 (least loaded)"),
        ];
        web.say(Message::Explanation(Explanation {
            id: ask.id,
            decisions,
        }))
        .await;
        let Command::Explain(ask) = cart.asked().await else {
            panic!()
        };
        assert_eq!(
            (ask.inbound, &*ask.address, ask.port),
            (true, "10.0.0.2", 8080)
        );
        assert_eq!(
            ask.peer_identity,
            format!("spiffe://{DOMAIN}/ns/shop/sa/web")
        );
        let decisions = vec![decision("policy", 3, "shop/deny-all")];
        cart.say(Message::Explanation(Explanation {
            id: ask.id,
            decisions,
        }))
        .await;
    });
    assert_eq!(answer.0, StatusCode::OK);
    assert_eq!(answer.1["verdict"], "denied");
    assert_eq!(answer.1["steps"][2]["proxy"], "shop/cart-0");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_proxy_s_pages_come_over_its_own_stream() {
    let bench = Bench::new().await;
    let mut web = Agent::open(&bench, "web-0", "10.0.0.1").await.unwrap();
    attached(&bench, 1).await;
    let (page, ()) = tokio::join!(bench.get("/api/v1/dump/shop/web-0/config_dump"), async {
        let Command::Dump(ask) = web.asked().await else {
            panic!()
        };
        for (data, last) in [("{\"a\":", false), ("1}", true)] {
            let data = data.as_bytes().to_vec();
            let id = ask.id.clone();
            web.say(Message::DumpChunk(DumpChunk { id, data, last }))
                .await;
        }
    });
    assert_eq!(page, (StatusCode::OK, serde_json::json!({"a": 1})));
    let (status, error) = bench.get("/api/v1/dump/shop/ghost/config_dump").await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    assert!(
        error["what"].as_str().unwrap().contains("shop/ghost"),
        "{error}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tap_lasts_as_long_as_its_reader() {
    let bench = Bench::new().await;
    let mut web = Agent::open(&bench, "web-0", "10.0.0.1").await.unwrap();
    attached(&bench, 1).await;
    let token = std::fs::read_to_string(&bench.running.token_file).unwrap();
    let bearer = format!("Bearer {}", token.trim());
    let headers = [("authorization", &*bearer)];
    let path = "/api/v1/tap?workload=shop/web-0&method=GET&seconds=60";
    let mut lines = bench.open("GET", path, &headers, "").await.into_body();
    let Command::StartTap(tap) = web.asked().await else {
        panic!()
    };
    assert_eq!(
        (
            tap.filter.as_ref().unwrap().method.as_str(),
            tap.max_per_second
        ),
        ("GET", 100)
    );
    let id = tap.id.clone();
    web.say(Message::TapEvent(TapEvent {
        id,
        path: "/x".into(),
        status: 200,
        ..Default::default()
    }))
    .await;
    let line = lines.frame().await.unwrap().unwrap().into_data().unwrap();
    let line: Value = serde_json::from_slice(&line).unwrap();
    assert_eq!(
        (&line["path"], &line["workload"]),
        (&"/x".into(), &"web-0".into())
    );
    drop(lines);
    let Command::StopTap(stop) = web.asked().await else {
        panic!()
    };
    assert_eq!(stop.id, tap.id, "a reader who leaves ends the tap");
    let (status, _) = bench.get("/api/v1/tap?workload=shop/web-0&bogus=1").await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_inspect_stream_is_its_own_workload_s() {
    let bench = Bench::new().await;
    let web = bench.join("web-0", "web").await;
    let attach = async |client: Option<&Client>, workload: &str| {
        let hello = ProxyMessage {
            message: Some(Message::Hello(Hello {
                node_id: format!("sidecar~10.0.0.1~{workload}.shop~{DOMAIN}"),
                ..Default::default()
            })),
        };
        let messages = tokio_stream::once(hello);
        let mut client = InspectClient::new(bench.channel(client).await);
        match client.attach(messages).await {
            Ok(stream) => stream
                .into_inner()
                .message()
                .await
                .err()
                .map(|status| status.code()),
            Err(status) => Some(status.code()),
        }
    };
    assert_eq!(attach(None, "web-0").await, Some(Code::Unauthenticated));
    assert_eq!(
        attach(Some(&web), "cart-0").await,
        Some(Code::PermissionDenied)
    );
    assert_eq!(attach(Some(&web), "web-0").await, None);
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
    assert_eq!(bench.get("/api/v1/nothing").await.0, StatusCode::NOT_FOUND);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn junk_on_the_ports_is_closed_and_nothing_worse() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
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
