//! Where a message has no body, its HEADERS frame ends the stream: clients of gRPC read the status
//! of an answer from its first frame only then.

use std::path::Path;

use anyam_proxy::config::cluster::UpstreamProtocol;
use anyam_proxy::config::route::{Action, PathMatch};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response};
use tokio::io::AsyncWriteExt;

use crate::harness::{Proxy, Setup, route};
use crate::hostile2::{END_HEADERS, END_STREAM, HEADERS, Raw, field};
use crate::peers::{h1, h2, h2_client, listen, read_all, read_message};

fn head(method: &str, path: &str) -> Vec<u8> {
    [
        field(":method", method),
        field(":scheme", "http"),
        field(":authority", "shop"),
        field(":path", path),
    ]
    .concat()
}

/// Flags of the answer's HEADERS.
async fn flags(proxy: &Proxy, method: &str, path: &str, more: &[(&str, &str)]) -> u8 {
    let mut raw = Raw::connect(proxy.address).await;
    let mut block = head(method, path);
    for (name, value) in more {
        block.extend(field(name, value));
    }
    raw.send(HEADERS, END_HEADERS | END_STREAM, 1, &block).await;
    raw.wait_for(HEADERS).await.0
}

fn answer_of_one(request: &str) -> String {
    match request.split(' ').nth(1).unwrap() {
        "/empty" => "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
        "/grpc" => {
            "HTTP/1.1 200 OK\r\nContent-Type: application/grpc\r\ngrpc-status: 5\r\n\
             Content-Length: 0\r\n\r\n"
        }
        "/204" => "HTTP/1.1 204 No Content\r\n\r\n",
        "/304" => "HTTP/1.1 304 Not Modified\r\nContent-Length: 10\r\n\r\n",
        "/10" => "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n",
        _ => "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n",
    }
    .into()
}

fn with_replies(setup: Setup) -> Setup {
    setup.with(|setup| {
        let direct = |body: &'static [u8]| Action::Direct {
            status: 403,
            body: Bytes::from_static(body),
        };
        for (path, action) in [("/direct", direct(b"")), ("/says", direct(b"no"))] {
            let exact = PathMatch::Exact(path.into());
            setup.more_routes.push(route(exact, action));
        }
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_without_a_body_end_with_their_head() {
    let one = h1(answer_of_one).await;
    let proxy = Proxy::start(with_replies(Setup::new(one)));
    for (method, path) in [
        ("GET", "/empty"),
        ("GET", "/grpc"),
        ("GET", "/204"),
        ("GET", "/304"),
        ("HEAD", "/10"),
        ("HEAD", "/says"),
        ("GET", "/direct"),
    ] {
        let flags = flags(&proxy, method, path, &[]).await;
        assert!(flags & END_STREAM != 0, "{method} {path}");
    }
    assert!(flags(&proxy, "GET", "/says", &[]).await & END_STREAM == 0);

    // An upstream that ends such answers with a frame of their own.
    let two = h2(|request, mut respond| async move {
        let status = match request.uri().path() {
            "/204" => 204,
            "/304" => 304,
            _ => 200,
        };
        let response = Response::builder().status(status).body(()).unwrap();
        let ended = request.uri().path() == "/ended";
        let mut send = respond.send_response(response, ended).unwrap();
        if !ended {
            let _ = send.send_data(Bytes::new(), true);
        }
    })
    .await;
    let proxy = Proxy::start(Setup::new(two).speaking(UpstreamProtocol::Http2));
    for (method, path) in [
        ("GET", "/ended"),
        ("GET", "/204"),
        ("GET", "/304"),
        ("HEAD", "/"),
    ] {
        let flags = flags(&proxy, method, path, &[]).await;
        assert!(flags & END_STREAM != 0, "{method} {path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failure_of_a_grpc_call_ends_with_its_head() {
    let closed = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap()
    };
    let proxy = Proxy::start(Setup::new(closed));
    let grpc = [("content-type", "application/grpc"), ("te", "trailers")];
    let flags = flags(&proxy, "POST", "/shop.Cart/Get", &grpc).await;
    assert!(flags & END_STREAM != 0);
}

/// A length of 0 does not rule out trailers over HTTP/2.
#[tokio::test(flavor = "multi_thread")]
async fn trailers_after_a_length_of_zero_arrive() {
    let two = h2(|_, mut respond| async move {
        let response = Response::builder()
            .header("content-length", "0")
            .body(())
            .unwrap();
        let mut send = respond.send_response(response, false).unwrap();
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", HeaderValue::from_static("7"));
        send.send_trailers(trailers).unwrap();
    })
    .await;
    let proxy = Proxy::start(Setup::new(two).speaking(UpstreamProtocol::Http2));
    let client = h2_client(proxy.address).await;
    let head = http::Request::builder().uri("http://shop/").body(());
    let mut client = client.ready().await.unwrap();
    let (answer, _) = client.send_request(head.unwrap(), true).unwrap();
    let mut body = answer.await.unwrap().into_body();
    assert!(read_all(&mut body).await.is_empty());
    assert_eq!(body.trailers().await.unwrap().unwrap()["grpc-status"], "7");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_without_a_body_ends_with_its_head() {
    let (told, mut ends) = tokio::sync::mpsc::unbounded_channel();
    let two = h2(move |request, mut respond| {
        let told = told.clone();
        async move {
            told.send(request.body().is_end_stream()).unwrap();
            let _ = respond.send_response(Response::new(()), true);
        }
    })
    .await;
    let proxy = Proxy::start(Setup::new(two).speaking(UpstreamProtocol::Http2));
    let mut client = crate::peers::Client::connect(proxy.address).await;
    for request in [
        "GET / HTTP/1.1\r\nHost: shop\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: shop\r\nContent-Length: 0\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: shop\r\nContent-Length: 0\r\n\r\n",
    ] {
        client.ask(request).await;
        assert_eq!(ends.recv().await, Some(true), "{request}");
    }
}

/// gRPC's own client, against answers that the proxy makes and answers from HTTP/1 upstreams.
#[tokio::test(flavor = "multi_thread")]
async fn a_grpc_client_reads_the_status() {
    let python = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.cache/venv/bin/python");
    assert!(
        python.exists(),
        "{} is missing: run tests/prerequisites.sh root test",
        python.display()
    );
    let dead = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap()
    };
    let one = listen(|mut tcp, _| async move {
        let mut buffer = Vec::new();
        while read_message(&mut tcp, &mut buffer).await.is_some() {
            let answer = answer_of_one("GET /grpc");
            tcp.write_all(answer.as_bytes()).await.unwrap();
        }
    })
    .await;
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/peers/grpc_status.py");
    for (upstream, status) in [(dead, "UNAVAILABLE"), (one, "NOT_FOUND")] {
        let proxy = Proxy::start(Setup::new(upstream));
        let mut client = tokio::process::Command::new(&python);
        client.arg(&script).arg(proxy.address.to_string());
        let output = client.output().await.unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert_eq!(said.trim(), status, "{output:?}");
    }
}
