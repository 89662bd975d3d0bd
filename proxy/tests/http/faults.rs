//! Heads that are refused: what was read of them can be read in full by all that reports the
//! request (access logs, taps, metrics), on both sides and in both protocols.

use std::sync::Arc;
use std::time::Duration;

use anyam_proxy::bug;
use anyam_proxy::config::cluster::UpstreamProtocol;
use anyam_proxy::config::route::RetryOn;
use bytes::Bytes;

use crate::harness::{Proxy, Setup};
use crate::peers::{self, Client};
use crate::settings::retry_after;

/// Refused after something of them was understood; status, and the path that the log has.
fn refused() -> Vec<(String, u16, &'static str)> {
    let long = "x".repeat(90 << 10);
    vec![
        ("GET /x HTTP/1.1\nHost: a\n\n".into(), 400, "/x"),
        ("FOO /x HTTP/1.1\r\nHost: a\n\r\n".into(), 400, "/x"),
        (
            "POST /x HTTP/1.1\r\nContent-Type: text/plain\nHost: a\r\n\r\n".into(),
            400,
            "/x",
        ),
        (format!("GET /x HTTP/1.1\r\nHost: a\r\nlong: {long}"), 431, "/x"),
        (
            format!("GET /x HTTP/1.1\r\nHost: a\r\nlong: {long}\r\n\r\n"),
            431,
            "/x",
        ),
        (format!("GET /{long} HTTP/1.1\r\nHost: a\r\n\r\n"), 431, ""),
        (
            "GET /x HTTP/1.1\r\nHost: a\r\nHost: b\r\nContent-Type: t\r\n\r\n".into(),
            400,
            "/x",
        ),
        (
            "POST http://h/x HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n"
                .into(),
            400,
            "http://h/x",
        ),
        ("GET /x HTTP/1.1\r\nHost: a\r\n fold\r\n\r\n".into(), 400, ""),
    ]
}

/// The upstream chooses the field's value, so it must not put a blank into the text log.
#[tokio::test]
async fn the_grpc_status_in_the_log_is_a_number_of_a_grpc_call() {
    let upstream = peers::h1(|request| {
        let (_, status) = request.split_once("/status").unwrap();
        let (status, _) = status.split_once(' ').unwrap();
        let status = status.replace("%20", " ");
        format!("HTTP/1.1 200 OK\r\ngrpc-status: {status}\r\nContent-Length: 0\r\n\r\n")
    })
    .await;
    let proxy = Proxy::start(Setup::new(upstream));
    let mut client = Client::connect(proxy.address).await;
    let forged = "0%20UAEX%20denied";
    let expected = [
        (false, "0", None),
        (false, forged, None),
        (true, "0", Some("0")),
        (true, forged, Some("-1")),
        (true, "", Some("-1")),
        // As Envoy logs it, whatever the number.
        (true, "4242", Some("4242")),
        (true, "99999999999", Some("-1")),
    ];
    for (is_grpc, status, _) in expected {
        let kind = if is_grpc {
            "application/grpc"
        } else {
            "text/plain"
        };
        client
            .ask(&format!(
                "POST /status{status} HTTP/1.1\r\nHost: a\r\nContent-Type: {kind}\r\n\
                 Content-Length: 0\r\n\r\n"
            ))
            .await;
    }
    let lines = proxy.end();
    let logged: Vec<_> = lines.iter().map(|line| line["grpc"].as_str()).collect();
    assert_eq!(logged, expected.map(|(_, _, logged)| logged));
}

#[tokio::test]
async fn a_refused_request_is_logged_tapped_and_counted() {
    let upstream = peers::h1(|_| peers::ok("")).await;
    let mut proxy = Proxy::start(Setup::new(upstream));
    let before = bug::failures();
    for (request, status, path) in refused() {
        for kept in [false, true] {
            let mut client = Client::connect(proxy.address).await;
            if kept {
                client.ask(&peers::get("/first")).await;
                assert_eq!(proxy.tap.recv().await.unwrap().status, 200);
            }
            client.send(&request).await;
            let answer = client.receive().await;
            assert!(
                answer.starts_with(&format!("HTTP/1.1 {status} ")),
                "{answer}"
            );
            let event = proxy.tap.recv().await.unwrap();
            assert_eq!((event.status, &*event.path), (status, path));
        }
    }
    let log = proxy.end();
    let told: Vec<_> = log.iter().filter(|line| line["code"] != 200).collect();
    let expected: Vec<_> = refused()
        .into_iter()
        .flat_map(|case| [case.clone(), case])
        .collect();
    assert_eq!(told.len(), expected.len());
    for (line, (_, status, path)) in told.iter().zip(expected) {
        assert_eq!(line["code"], status);
        let logged = line["path"].as_str().unwrap_or_default();
        assert_eq!(logged, path, "{line}");
    }
    assert_eq!(bug::failures(), before);
}

/// Retries on resets, with a pause in which the client leaves.
fn retrying(setup: &mut Setup) {
    let policy = retry_after(Duration::from_secs(5), RetryOn::RESET, 1000);
    setup.forward.retry = Some(Arc::new(policy));
}

#[tokio::test]
async fn a_refused_response_is_no_response() {
    for junk in [
        "HTTP/1.1 200 OK\r\nx: y\ngrpc-status: 0\r\n\r\n".to_owned(),
        "HTTP/1.1 200 OK\r\ngrpc-status: 0\r\nContent-Length: a\r\n\r\n".to_owned(),
        format!(
            "HTTP/1.1 200 OK\r\ngrpc-status: 0\r\nlong: {}",
            "x".repeat(90 << 10)
        ),
    ] {
        let answer = junk.clone();
        let upstream = peers::h1(move |_| answer.clone()).await;
        no_response_is_logged(Setup::new(upstream)).await;
    }
}

#[tokio::test]
async fn a_refused_http2_response_is_no_response() {
    let upstream = peers::h2(|_, mut respond| async move {
        let response = http::Response::builder()
            .header("grpc-status", "0")
            .header("content-length", "+1");
        let _ = respond.send_response(response.body(()).unwrap(), true);
    });
    no_response_is_logged(Setup::new(upstream.await).speaking(UpstreamProtocol::Http2)).await;
}

/// For a client that waits, and for one that disconnects during the pause before the second
/// attempt.
async fn no_response_is_logged(setup: Setup) {
    let before = bug::failures();
    let setup = setup.with(retrying);
    let mut proxy = Proxy::start(setup);
    let request = "POST /leaves HTTP/1.1\r\nHost: a\r\nContent-Type: application/grpc\r\nContent-Length: 0\r\n\r\n";
    let mut client = Client::connect(proxy.address).await;
    client.send(request).await;
    let retries = || proxy.store.load().clusters["shop"].metrics.retries.get();
    while retries() == 0 {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    drop(client);
    let event = proxy.tap.recv().await.unwrap();
    assert_eq!((event.status, &*event.grpc_status), (0, ""));
    let log = proxy.end();
    assert_eq!(
        (&log[0]["code"], &log[0]["grpc"]),
        (&0.into(), &serde_json::Value::Null)
    );
    assert_eq!(bug::failures(), before);
}

#[tokio::test]
async fn a_refused_http2_request_is_logged_tapped_and_counted() {
    let upstream = peers::h1(|_| peers::ok("")).await;
    let mut proxy = Proxy::start(Setup::new(upstream));
    let mut client = peers::h2_client(proxy.address).await;
    let request = http::Request::builder()
        .uri("http://a/x")
        .header("host", "b")
        .header("content-type", "application/grpc");
    let (answer, _) = client
        .send_request(request.body(()).unwrap(), true)
        .unwrap();
    let _ = answer.await;
    let event = proxy.tap.recv().await.unwrap();
    assert_eq!(event.method, "GET");
    drop::<h2::client::SendRequest<Bytes>>(client);
    assert_eq!(proxy.end().len(), 1);
}
