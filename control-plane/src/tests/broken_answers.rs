//! Answers between replicas that break off, or stall.

use std::net::SocketAddr;
use std::time::Duration;

use http::StatusCode;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpStream};
use xds_proto::anyam::inspect::v1::control_message::Message as Command;
use xds_proto::anyam::inspect::v1::proxy_message::Message;
use xds_proto::anyam::inspect::v1::{DumpChunk, Explanation, TapEvent};

use super::bench::Agent;
use super::replicas::{Replicas, decision, replica};
use crate::api::reply::BrokenBody;

/// Leads to a replica; each connection is cut once so many bytes have come from it.
async fn cut_after(bytes: u64, to: SocketAddr) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut from_client, mut to_client) = client.into_split();
                let (from_replica, mut to_replica) =
                    TcpStream::connect(to).await.unwrap().into_split();
                let asking = tokio::io::copy(&mut from_client, &mut to_replica);
                let mut some = from_replica.take(bytes);
                tokio::select! {
                    _ = tokio::io::copy(&mut some, &mut to_client) => {}
                    never = async { let _ = asking.await; std::future::pending::<()>().await } => never,
                }
            });
        }
    });
    address
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_breaks_off_between_replicas_is_no_answer() {
    let replicas = Replicas::new().await;
    let mut web = Agent::open(&replicas.two, "web-0", "10.0.0.1")
        .await
        .unwrap();
    replicas.attached(1).await;
    // More than the handshake and a head, less than the answers.
    let cut = cut_after(40_000, replicas.running[1].address).await;
    replicas.others.send_replace(vec![replica("two", cut)]);

    let path = "/api/v1/dump/shop/web-0/config_dump";
    let ((status, error), ()) = tokio::join!(replicas.one.get(path), async {
        let Command::Dump(ask) = web.asked().await else {
            panic!()
        };
        web.say(Message::DumpChunk(DumpChunk {
            id: ask.id,
            data: vec![b'['; 200_000],
            last: true,
        }))
        .await;
    });
    assert_eq!(status, StatusCode::BAD_GATEWAY, "{error}");
    let what = error["what"].as_str().unwrap();
    assert!(what.contains("broke off: two: "), "{what}");

    let question = r#"{"source": "shop/web-0", "destination": "10.9.9.9:80", "method": "GET"}"#;
    let asked = replicas.one.post("/api/v1/explain", question);
    let ((status, error), ()) = tokio::join!(asked, async {
        let Command::Explain(ask) = web.asked().await else {
            panic!()
        };
        // What is cut off would deny.
        let mut decisions = vec![decision("route", 0, "default"); 5_000];
        decisions.push(decision("policy", 3, "shop/deny-all"));
        web.say(Message::Explanation(Explanation {
            id: ask.id,
            decisions,
        }))
        .await;
    });
    assert_eq!(status, StatusCode::BAD_GATEWAY, "{error}");
    let what = error["what"].as_str().unwrap();
    assert!(what.contains("broke off: two: "), "{what}");

    let token = std::fs::read_to_string(&replicas.one.running.token_file).unwrap();
    let bearer = format!("Bearer {}", token.trim());
    let path = "/api/v1/tap?workload=shop/web-0&seconds=60";
    let mut tap = replicas
        .one
        .open("GET", path, &[("authorization", &bearer)], "")
        .await;
    let Command::StartTap(started) = web.asked().await else {
        panic!()
    };
    for _ in 0..100 {
        let event = TapEvent {
            id: started.id.clone(),
            path: "x".repeat(1000),
            ..TapEvent::default()
        };
        web.say(Message::TapEvent(event)).await;
    }
    let end = async {
        while let Some(frame) = tap.body_mut().frame().await {
            frame?;
        }
        Ok::<_, hyper::Error>(())
    };
    let end = tokio::time::timeout(Duration::from_secs(10), end).await;
    assert!(end.unwrap().is_err(), "its reader sees that it broke off");
}

/// The head comes, and then nothing.
#[tokio::test]
async fn an_answer_that_stalls_is_given_up() {
    let forever = tokio_stream::pending::<Result<Frame<bytes::Bytes>, BrokenBody>>();
    let stalled = StreamBody::new(forever).boxed_unsync();
    let problem = crate::api::replicas::whole(stalled, Duration::from_millis(10));
    let problem = problem.await.unwrap_err();
    assert_eq!(problem.status(), StatusCode::BAD_GATEWAY);
    assert!(problem.error().what.contains("within 10ms"), "{problem:?}");
}
