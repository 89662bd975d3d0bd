//! Looking into proxies, over real sockets with real clients.

use std::sync::Arc;

use super::bench::{Agent, Bench, Client, DOMAIN, absent, eventually};
use crate::ads::testing::Memory;
use crate::api::access::tests::{EveryRight, RightsIn};
use crate::api::access::{ApiAccess, MeshRights};
use crate::types::ExplainRequest;
use http::StatusCode;
use http_body_util::BodyExt;
use serde_json::Value;
use tonic::Code;
use xds_proto::anyam::inspect::v1::control_message::Message as Command;
use xds_proto::anyam::inspect::v1::inspect_client::InspectClient;
use xds_proto::anyam::inspect::v1::proxy_message::Message;
use xds_proto::anyam::inspect::v1::{
    Decision, DumpChunk, Edge, Explanation, Hello, ProxyMessage, Report, TapEvent,
};

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

/// Waits until `count` proxies are connected.
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

/// A page has up to 64 MiB, and a user with the right to `dump` in one namespace may request many at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pages_that_a_user_asks_for_at_once_are_few() {
    let bench = Bench::new().await;
    let mut web = Agent::open(&bench, "web-0", "10.0.0.1").await.unwrap();
    attached(&bench, 1).await;
    let path = "/api/v1/dump/shop/web-0/certs";
    let token = std::fs::read_to_string(&bench.running.token_file).unwrap();
    let bearer = format!("Bearer {}", token.trim());
    let headers = [("authorization", &*bearer)];
    let (first, second, ()) = tokio::join!(bench.get(path), bench.get(path), async {
        let mut asked = Vec::new();
        for _ in 0..2 {
            let Command::Dump(ask) = web.asked().await else {
                panic!()
            };
            asked.push(ask.id);
        }
        let refused = bench.open("GET", path, &headers, "").await;
        assert_eq!(refused.status(), StatusCode::TOO_MANY_REQUESTS);
        assert_eq!(refused.headers()["retry-after"], "1");
        let body = refused.into_body().collect().await.unwrap().to_bytes();
        let error: Value = serde_json::from_slice(&body).unwrap();
        let todo = error["todo"].as_str().unwrap();
        assert!(todo.contains("when some are answered"), "{error}");
        for id in asked {
            let data = b"[]".to_vec();
            let last = true;
            web.say(Message::DumpChunk(DumpChunk { id, data, last }))
                .await;
        }
    });
    let empty = (StatusCode::OK, serde_json::json!([]));
    assert_eq!((&first, &second), (&empty, &empty));
    let (again, ()) = tokio::join!(bench.get(path), async {
        let Command::Dump(ask) = web.asked().await else {
            panic!()
        };
        let (id, data, last) = (ask.id, b"[]".to_vec(), true);
        web.say(Message::DumpChunk(DumpChunk { id, data, last }))
            .await;
    });
    assert_eq!(again, empty);
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

/// What the proxy of another namespace decides is shown to those who may see it there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn decisions_in_another_namespace_take_the_right_there() {
    let mesh = Memory::new()
        .workload("shop", "web-0", "web")
        .workload("bank", "vault-0", "vault");
    let bench = Bench::with(mesh, absent()).await;
    let mut web = Agent::open(&bench, "web-0", "10.0.0.1").await.unwrap();
    let vault = ("bank", "vault-0");
    let mut vault = Agent::of(bench.plain().await, vault, "10.0.0.2")
        .await
        .unwrap();
    attached(&bench, 2).await;
    let asked = || ExplainRequest {
        source: "web-0".to_owned(),
        destination: "10.9.9.9:80".to_owned(),
        ..ExplainRequest::default()
    };
    let rights: [(Arc<dyn MeshRights>, bool); 2] = [
        (Arc::new(RightsIn("shop")), false),
        (Arc::new(EveryRight), true),
    ];
    for (rights, seen) in rights {
        let access = ApiAccess::of_user("jane", "shop", rights);
        let explained = bench.running.shown.explain(asked(), &access);
        let (reply, ()) = tokio::join!(explained, async {
            let Command::Explain(ask) = web.asked().await else {
                panic!()
            };
            let chosen = vec![decision("endpoint", 0, "10.0.0.2:8080 (least loaded)")];
            web.say(Message::Explanation(Explanation {
                id: ask.id,
                decisions: chosen,
            }))
            .await;
            if !seen {
                return;
            }
            let Command::Explain(ask) = vault.asked().await else {
                panic!()
            };
            vault
                .say(Message::Explanation(Explanation {
                    id: ask.id,
                    decisions: vec![decision("policy", 3, "bank/deny-all")],
                }))
                .await;
        });
        let body = reply.unwrap().into_body().collect().await.unwrap();
        let answer: Value = serde_json::from_slice(&body.to_bytes()).unwrap();
        let steps = answer["steps"].as_array().unwrap().len();
        let verdict = answer["verdict"].as_str().unwrap();
        match seen {
            true => assert_eq!((steps, verdict), (2, "denied"), "{answer}"),
            false => {
                assert_eq!((steps, verdict), (1, "unknown"), "{answer}");
                let gap = answer["gaps"][0].as_str().unwrap();
                assert!(gap.contains("in namespace bank"), "{gap}");
            }
        }
    }
    // Of a source in another namespace nothing is asked.
    let elsewhere = ExplainRequest {
        source: "bank/vault-0".to_owned(),
        ..asked()
    };
    let access = ApiAccess::of_user("jane", "", Arc::new(RightsIn("shop")));
    let refused = bench.running.shown.explain(elsewhere, &access).await;
    assert_eq!(refused.unwrap_err().status(), StatusCode::FORBIDDEN);
}
