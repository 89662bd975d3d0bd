//! Two replicas of one control plane, over real sockets: whichever is asked answers for all proxies.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::StatusCode;
use http_body_util::BodyExt;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use xds_proto::anyam::inspect::v1::control_message::Message as Command;
use xds_proto::anyam::inspect::v1::proxy_message::Message;
use xds_proto::anyam::inspect::v1::{
    Decision, DumpChunk, Edge, Explanation, Report, Reporter, TapEvent,
};

use super::bench::{Agent, Bench, DOMAIN, csr, eventually};
use crate::ca::Identity;
use crate::replicas::addresses::ReplicaAddress;
use crate::replicas::{ReplicasOptions, RunningReplicas, start};

/// Two replicas that know each other, and what runs them.
pub(super) struct Replicas {
    pub(super) one: Bench,
    pub(super) two: Bench,
    pub(super) running: Vec<RunningReplicas>,
    /// What the first takes the others to be.
    pub(super) others: watch::Sender<Vec<ReplicaAddress>>,
}

pub(super) fn replica(name: &str, address: SocketAddr) -> ReplicaAddress {
    ReplicaAddress {
        name: name.to_owned(),
        address: Some(address),
    }
}

impl Replicas {
    pub(super) async fn new() -> Self {
        let one = Bench::new().await;
        let two = one.replica().await;
        let mut running = Vec::new();
        let mut others = Vec::new();
        for bench in [&one, &two] {
            let (known, addresses) = watch::channel(Vec::new());
            let options = ReplicasOptions {
                listen: "127.0.0.1:0".parse().unwrap(),
            };
            let shown = Arc::clone(&bench.running.shown);
            running.push(start(options, shown, addresses).await.unwrap());
            others.push(known);
        }
        others[1].send_replace(vec![replica("one", running[0].address)]);
        let of_one = others.swap_remove(0);
        of_one.send_replace(vec![replica("two", running[1].address)]);
        Replicas {
            one,
            two,
            running,
            others: of_one,
        }
    }

    /// Waits until the first shows `count` proxies.
    pub(super) async fn attached(&self, count: usize) {
        eventually(async || {
            let (_, body) = self.one.get("/api/v1/proxies").await;
            (body["proxies"].as_array()?.len() == count).then_some(())
        })
        .await;
    }
}

pub(super) fn decision(stage: &str, outcome: i32, subject: &str) -> Decision {
    Decision {
        stage: stage.into(),
        outcome,
        subject: subject.into(),
        reason: "because".into(),
    }
}

fn edge(reporter: Reporter) -> Edge {
    Edge {
        reporter: reporter.into(),
        source_workload: "web-0".into(),
        source_namespace: "shop".into(),
        destination_service: "cart.shop.svc.cluster.local".into(),
        destination_namespace: "shop".into(),
        destination_workload: "cart-0".into(),
        protocol: "http".into(),
        security: "mutual_tls".into(),
        requests: 30,
        latency: vec![0; 17],
        ..Edge::default()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_ends_of_an_edge_report_to_different_replicas() {
    let replicas = Replicas::new().await;
    let web = Agent::open(&replicas.one, "web-0", "10.0.0.1")
        .await
        .unwrap();
    let cart = Agent::open(&replicas.two, "cart-0", "10.0.0.2")
        .await
        .unwrap();
    replicas.attached(2).await;
    for (agent, reporter) in [(&web, Reporter::Source), (&cart, Reporter::Destination)] {
        let report = Report {
            edges: vec![edge(reporter)],
            ..Report::default()
        };
        agent.say(Message::Report(report)).await;
    }
    for bench in [&replicas.one, &replicas.two] {
        let edges = eventually(async || {
            let (_, body) = bench.get("/api/v1/edges").await;
            let both = body["edges"][0]["reporters"].as_array()?.len() == 2;
            both.then_some(body)
        })
        .await;
        assert_eq!(edges["edges"].as_array().unwrap().len(), 1, "{edges}");
        assert_eq!(edges["edges"][0]["signals"]["requests"], 30);
        assert_eq!(edges.get("unreachable_replicas"), None);
        let (_, stats) = bench.get("/api/v1/stat").await;
        assert_eq!(stats["stats"].as_array().unwrap().len(), 2, "{stats}");
        let (_, check) = bench.get("/api/v1/check").await;
        assert_eq!(check["checked"][2], "2 proxies");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn questions_go_to_the_replica_that_has_the_proxy() {
    let replicas = Replicas::new().await;
    let mut web = Agent::open(&replicas.two, "web-0", "10.0.0.1")
        .await
        .unwrap();
    let mut cart = Agent::open(&replicas.one, "cart-0", "10.0.0.2")
        .await
        .unwrap();
    replicas.attached(2).await;
    let question = r#"{"source": "shop/web-0", "destination": "10.9.9.9:80", "method": "GET"}"#;
    let asked = replicas.one.post("/api/v1/explain", question);
    let ((status, answer), ()) = tokio::join!(asked, async {
        let Command::Explain(ask) = web.asked().await else {
            panic!()
        };
        let chosen = vec![decision("endpoint", 0, "10.0.0.2:8080 (least loaded)")];
        web.say(Message::Explanation(Explanation {
            id: ask.id,
            decisions: chosen,
        }))
        .await;
        let Command::Explain(ask) = cart.asked().await else {
            panic!()
        };
        assert_eq!((ask.inbound, &*ask.peer_address), (true, "10.0.0.1"));
        cart.say(Message::Explanation(Explanation {
            id: ask.id,
            decisions: vec![decision("policy", 3, "shop/deny-all")],
        }))
        .await;
    });
    assert_eq!(status, StatusCode::OK, "{answer}");
    assert_eq!(answer["steps"].as_array().unwrap().len(), 2, "{answer}");

    let path = "/api/v1/dump/shop/web-0/stats/prometheus";
    let ((status, page), ()) = tokio::join!(replicas.one.get(path), async {
        let Command::Dump(ask) = web.asked().await else {
            panic!()
        };
        assert_eq!(ask.what, "stats/prometheus");
        web.say(Message::DumpChunk(DumpChunk {
            id: ask.id,
            data: b"[1]".to_vec(),
            last: true,
        }))
        .await;
    });
    assert_eq!((status, page[0].as_u64()), (StatusCode::OK, Some(1)));

    let path = "/api/v1/tap?workload=shop/web-0&path=/a%20b&seconds=60";
    let token = std::fs::read_to_string(&replicas.one.running.token_file).unwrap();
    let bearer = format!("Bearer {}", token.trim());
    let mut tap = replicas
        .one
        .open("GET", path, &[("authorization", &bearer)], "")
        .await;
    let Command::StartTap(started) = web.asked().await else {
        panic!()
    };
    assert_eq!(started.filter.unwrap().path, "/a b");
    web.say(Message::TapEvent(TapEvent {
        id: started.id,
        path: "/a b/c".into(),
        ..TapEvent::default()
    }))
    .await;
    let line = tap.body_mut().frame().await;
    let line = line.unwrap().unwrap().into_data().unwrap();
    assert!(
        line.ends_with(b"\n") && line.starts_with(b"{\"at\""),
        "{line:?}"
    );
    // The reader leaves, and the tap ends at the proxy.
    drop(tap);
    assert!(matches!(web.asked().await, Command::StopTap(_)));

    let (status, error) = replicas.one.get("/api/v1/dump/shop/ghost/certs").await;
    assert_eq!(status, StatusCode::NOT_FOUND, "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_without_an_answer_is_named_after_two_seconds() {
    let replicas = Replicas::new().await;
    let _web = Agent::open(&replicas.one, "web-0", "10.0.0.1")
        .await
        .unwrap();
    let _cart = Agent::open(&replicas.two, "cart-0", "10.0.0.2")
        .await
        .unwrap();
    replicas.attached(2).await;
    // One accepts connections and is silent, one is of an older version.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let older = ReplicaAddress {
        name: "older".to_owned(),
        address: None,
    };
    let known = vec![
        replica("two", replicas.running[1].address),
        replica("silent", silent.local_addr().unwrap()),
        older,
    ];
    replicas.others.send_replace(known);
    let (body, took) = eventually(async || {
        let asked = Instant::now();
        let (_, body) = replicas.one.get("/api/v1/proxies").await;
        let named = body["unreachable_replicas"].is_array();
        named.then_some((body, asked.elapsed()))
    })
    .await;
    assert!(took < Duration::from_secs(4), "{took:?}");
    assert_eq!(body["proxies"].as_array().unwrap().len(), 2, "{body}");
    let named = body["unreachable_replicas"].to_string();
    assert!(named.contains("silent: no answer within 2 s"), "{named}");
    assert!(named.contains("older: it does not listen"), "{named}");
    let (_, check) = replicas.one.get("/api/v1/check").await;
    assert!(
        check["findings"].to_string().contains("(silent: "),
        "{check}"
    );
    let (status, error) = replicas.one.get("/api/v1/dump/shop/ghost/certs").await;
    assert_eq!(status, StatusCode::BAD_GATEWAY, "{error}");
    assert!(
        error["what"].as_str().unwrap().contains("silent"),
        "{error}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sidecars_are_refused_by_replicas_and_get_no_certificate_of_one() {
    let replicas = Replicas::new().await;
    let sidecar = replicas.one.join("web-0", "web").await;
    for client in [None, Some(&sidecar)] {
        let tls = replicas.one.connector_for(client, b"http/1.1");
        let tcp = TcpStream::connect(replicas.running[0].address)
            .await
            .unwrap();
        let name = ServerName::try_from("anyam-control").unwrap();
        let mut answer = Vec::new();
        // With TLS 1.3 a client hears of the refusal when it reads.
        if let Ok(mut stream) = tls.connect(name, tcp).await {
            let request = b"GET /replica/v1/observation HTTP/1.1\r\nhost: a\r\n\r\n";
            let _ = stream.write_all(request).await;
            let _ = stream.read_to_end(&mut answer).await;
        }
        assert!(answer.is_empty(), "{answer:?}");
    }
    // The sidecar's; a client without a certificate fails in the handshake.
    let counted = r#"anyam_control_peers_refused_total{port="replicas"} 1"#;
    eventually(async || {
        let (_, metrics) = replicas.one.http("GET", "/metrics", &[], "").await;
        let metrics = String::from_utf8(metrics.to_vec()).unwrap();
        metrics.contains(counted).then_some(())
    })
    .await;
    // A workload that runs as the control plane's service account is refused by the CA.
    let own = replicas.one.running.authority.own_identity();
    let expected = Identity {
        trust_domain: DOMAIN.into(),
        namespace: "anyam-system".into(),
        service_account: "anyam-control".into(),
    };
    assert_eq!(own, expected);
    let (_, request) = csr(&own.to_string());
    let authority = &replicas.one.running.authority;
    let refused = authority.sign_request(&request, &own, "anyam-control", Duration::ZERO);
    let refused = refused.unwrap_err().to_string();
    assert!(
        refused.contains("the control plane's own identity"),
        "{refused}"
    );
    // So is `anyam-control certificate`.
    let pair = authority.issue_pair(&own, "anyam-control", Duration::ZERO);
    let refused = pair.map(|_| ()).unwrap_err().to_string();
    assert!(
        refused.contains("the control plane's own identity"),
        "{refused}"
    );
}
