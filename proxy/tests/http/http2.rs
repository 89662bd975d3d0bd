//! HTTP/2 on one side or both; gRPC.

use std::time::Duration;

use anyam_proxy::config::cluster::UpstreamProtocol;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::harness::{Proxy, Setup};
use crate::peers::{Client, echo_body, get, h1, h2, h2_client, listen, ok, read_all, read_message};

fn request(method: &str, path: &str) -> http::request::Builder {
    Request::builder()
        .method(method)
        .uri(format!("http://shop{path}"))
}

/// Echoes the body after its path, with trailers.
async fn echo() -> std::net::SocketAddr {
    h2(|request, mut respond| async move {
        let path = request.uri().path().to_owned();
        let (parts, mut body) = request.into_parts();
        assert!(parts.headers.get("connection").is_none());
        let all = read_all(&mut body).await;
        let trailers = body.trailers().await.unwrap();
        let response = Response::builder()
            .header("x-seen", path)
            .header("x-host", parts.uri.authority().unwrap().as_str())
            .body(())
            .unwrap();
        let mut send = respond.send_response(response, false).unwrap();
        send.send_data(Bytes::from(all), false).unwrap();
        let mut back = HeaderMap::new();
        back.insert("x-end", HeaderValue::from_static("yes"));
        if let Some(sum) = trailers.as_ref().and_then(|t| t.get("x-sum")) {
            back.insert("x-sum", sum.clone());
        }
        send.send_trailers(back).unwrap();
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn two_to_two_with_trailers_both_ways() {
    let proxy = Proxy::start(Setup::new(echo().await).speaking(UpstreamProtocol::Http2));
    let mut client = h2_client(proxy.address).await;
    let mut answers = Vec::new();
    for n in 0..20 {
        let head = request("POST", &format!("/{n}")).body(()).unwrap();
        client = client.ready().await.unwrap();
        let (answer, mut send) = client.send_request(head, false).unwrap();
        send.send_data(Bytes::from(format!("body {n}")), false)
            .unwrap();
        let mut trailers = HeaderMap::new();
        trailers.insert("x-sum", HeaderValue::from(n));
        send.send_trailers(trailers).unwrap();
        answers.push(answer);
    }
    for (n, answer) in answers.into_iter().enumerate() {
        let answer = answer.await.unwrap();
        assert_eq!(answer.status(), 200);
        assert_eq!(answer.headers()["x-seen"], format!("/{n}"));
        assert_eq!(answer.headers()["x-host"], "shop");
        let mut body = answer.into_body();
        assert_eq!(read_all(&mut body).await, format!("body {n}").as_bytes());
        let trailers = body.trailers().await.unwrap().unwrap();
        assert_eq!(trailers["x-sum"], format!("{n}"));
        assert_eq!(trailers["x-end"], "yes");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_to_two() {
    let proxy = Proxy::start(Setup::new(echo().await).speaking(UpstreamProtocol::Http2));
    let mut client = Client::connect(proxy.address).await;
    let post = "POST /x HTTP/1.1\r\nHost: shop\r\nTE: trailers\r\nConnection: te\r\n\
                Content-Length: 5\r\n\r\nhello";
    for _ in 0..3 {
        let response = client.ask(post).await;
        assert!(response.starts_with("HTTP/1.1 200 "), "{response}");
        assert!(response.contains("x-seen: /x\r\n"), "{response}");
        assert!(
            response.contains("5\r\nhello\r\n0\r\nx-end: yes\r\n"),
            "{response}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_to_one() {
    let upstream = h1(|request| {
        assert!(request.starts_with("POST /x?y HTTP/1.1\r\n"), "{request}");
        assert!(request.contains("cookie: a=1; b=2\r\n"), "{request}");
        assert_eq!(
            request.to_lowercase().matches("\r\nhost: shop\r\n").count(),
            1
        );
        ok(request.split("\r\n\r\n").nth(1).unwrap())
    })
    .await;
    let proxy = Proxy::start(Setup::new(upstream));
    let mut client = h2_client(proxy.address).await;
    let head = request("POST", "/x?y")
        .header("content-length", "5")
        .header("cookie", "a=1")
        .header("cookie", "b=2")
        .body(())
        .unwrap();
    let (answer, mut send) = client.send_request(head, false).unwrap();
    send.send_data(Bytes::from_static(b"hello"), true).unwrap();
    let answer = answer.await.unwrap();
    assert_eq!(answer.status(), 200);
    assert_eq!(answer.headers()["content-length"], "5");
    assert_eq!(read_all(&mut answer.into_body()).await, b"hello");
}

#[tokio::test(flavor = "multi_thread")]
async fn grpc_streams_both_ways_and_its_errors_are_grpc() {
    let upstream = h2(|request, mut respond| async move {
        assert_eq!(request.headers()["te"], "trailers");
        let response = Response::builder()
            .header("content-type", "application/grpc")
            .body(())
            .unwrap();
        let mut send = respond.send_response(response, false).unwrap();
        let mut body = request.into_body();
        // Message by message: an answer before the next question.
        while let Some(data) = body.data().await {
            let data = data.unwrap();
            let _ = body.flow_control().release_capacity(data.len());
            send.send_data(data, false).unwrap();
        }
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", HeaderValue::from_static("0"));
        send.send_trailers(trailers).unwrap();
    })
    .await;
    let proxy = Proxy::start(Setup::new(upstream).speaking(UpstreamProtocol::Http2));
    let mut client = h2_client(proxy.address).await;
    let head = |path: &str| {
        request("POST", path)
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(())
            .unwrap()
    };
    let (answer, mut send) = client.send_request(head("/s/m"), false).unwrap();
    let mut body = answer.await.unwrap().into_body();
    for n in 0..50u8 {
        send.send_data(Bytes::from(vec![n; 100]), false).unwrap();
        let data = body.data().await.unwrap().unwrap();
        assert_eq!(data, vec![n; 100]);
        let _ = body.flow_control().release_capacity(data.len());
    }
    send.send_data(Bytes::new(), true).unwrap();
    assert!(body.data().await.is_none());
    let trailers = body.trailers().await.unwrap().unwrap();
    assert_eq!(trailers["grpc-status"], "0");

    // Bound, so that no other test gets it, and not listening.
    let closed = tokio::net::TcpSocket::new_v4().unwrap();
    closed.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = closed.local_addr().unwrap();
    let proxy = Proxy::start(Setup::new(address).speaking(UpstreamProtocol::Http2));
    let mut client = h2_client(proxy.address).await;
    let (answer, _) = client.send_request(head("/s/m"), true).unwrap();
    let answer = answer.await.unwrap();
    assert_eq!(answer.status(), 200);
    assert_eq!(answer.headers()["grpc-status"], "14");
    assert!(answer.into_body().is_end_stream());
}

#[tokio::test(flavor = "multi_thread")]
async fn grpc_time_limits_of_the_client_count_where_the_route_says_so() {
    let upstream = h2(|request, respond| async move {
        std::future::pending::<()>().await;
        drop((request, respond));
    })
    .await;
    let setup = Setup::new(upstream)
        .speaking(UpstreamProtocol::Http2)
        .with(|setup| setup.forward.max_grpc_timeout = Some(Duration::ZERO));
    let proxy = Proxy::start(setup);
    let mut client = h2_client(proxy.address).await;
    let head = request("POST", "/s/m")
        .header("content-type", "application/grpc")
        .header("grpc-timeout", "50m")
        .body(())
        .unwrap();
    let (answer, _) = client.send_request(head, true).unwrap();
    assert_eq!(answer.await.unwrap().headers()["grpc-status"], "14");
}

#[tokio::test(flavor = "multi_thread")]
async fn heads_are_limited_in_decoded_bytes_and_in_fields() {
    let upstream = h1(|_| ok("fine")).await;
    let proxy = Proxy::start(Setup::new(upstream));
    let mut client = h2_client(proxy.address).await;
    let mut crumbs = request("GET", "/");
    for n in 0..150 {
        crumbs = crumbs.header("cookie", format!("c{n}=1"));
    }
    let mut long = request("GET", "/");
    for n in 0..90 {
        long = long.header(format!("x-{n}"), "v".repeat(900));
    }
    for head in [crumbs, long] {
        client = client.ready().await.unwrap();
        let (answer, _) = client.send_request(head.body(()).unwrap(), true).unwrap();
        assert_eq!(answer.await.unwrap().status(), 431);
    }
    client = client.ready().await.unwrap();
    let head = request("GET", "/").body(()).unwrap();
    let (answer, _) = client.send_request(head, true).unwrap();
    assert_eq!(answer.await.unwrap().status(), 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_that_goes_away_between_streams_does_not_show() {
    let upstream = listen(|tcp, _| async move {
        let mut connection = h2::server::handshake(tcp).await.unwrap();
        let mut served = 0;
        while let Some(Ok((_, mut respond))) = connection.accept().await {
            let response = Response::builder().body(()).unwrap();
            respond.send_response(response, true).unwrap();
            served += 1;
            if served == 3 {
                connection.graceful_shutdown();
            }
        }
    })
    .await;
    let proxy = Proxy::start(Setup::new(upstream).speaking(UpstreamProtocol::Http2));
    let mut client = Client::connect(proxy.address).await;
    for _ in 0..50 {
        let response = client.ask(&get("/")).await;
        assert!(response.starts_with("HTTP/1.1 200 "), "{response}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn resets_cross_over() {
    let (told, mut hear) = tokio::sync::mpsc::channel(1);
    let upstream = h2(move |request, respond| {
        let told = told.clone();
        async move {
            if request.uri().path() == "/reset" {
                let mut respond = respond;
                respond.send_reset(h2::Reason::INTERNAL_ERROR);
                return;
            }
            let mut respond = respond;
            let reset = std::future::poll_fn(|cx| respond.poll_reset(cx)).await;
            told.send(reset.unwrap()).await.unwrap();
        }
    })
    .await;
    let proxy = Proxy::start(Setup::new(upstream).speaking(UpstreamProtocol::Http2));
    let mut client = h2_client(proxy.address).await;
    let (answer, _) = client
        .send_request(request("GET", "/reset").body(()).unwrap(), true)
        .unwrap();
    assert_eq!(answer.await.unwrap().status(), 503);
    client = client.ready().await.unwrap();
    let (_, mut send) = client
        .send_request(request("GET", "/wait").body(()).unwrap(), false)
        .unwrap();
    send.send_data(Bytes::from_static(b"x"), false).unwrap();
    tokio::time::timeout(Duration::from_secs(5), async {
        // Not before it got there.
        while hear.is_empty() {
            tokio::task::yield_now().await;
            send.send_reset(h2::Reason::CANCEL);
        }
        assert_eq!(hear.recv().await, Some(h2::Reason::CANCEL));
    })
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn connect_passes_bytes_either_way() {
    let upstream = listen(|mut tcp, _| async move {
        let mut buffer = Vec::new();
        let request = read_message(&mut tcp, &mut buffer).await.unwrap();
        assert!(
            request.starts_with("CONNECT shop:80 HTTP/1.1\r\n"),
            "{request}"
        );
        assert!(buffer.is_empty(), "nothing may come before the answer");
        tcp.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
        let mut ping = [0; 4];
        tcp.read_exact(&mut ping).await.unwrap();
        tcp.write_all(b"pong").await.unwrap();
        assert_eq!(tcp.read(&mut ping).await.unwrap(), 0);
        tcp.write_all(b"bye").await.unwrap();
    })
    .await;
    let setup = Setup::new(upstream)
        .with(|setup| setup.matches = anyam_proxy::config::route::PathMatch::Connect);
    let proxy = Proxy::start(setup);
    let mut client = Client::connect(proxy.address).await;
    client
        .send("CONNECT shop:80 HTTP/1.1\r\nHost: shop:80\r\n\r\nping")
        .await;
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(client.tcp.read_u8().await.unwrap());
    }
    assert!(head.starts_with(b"HTTP/1.1 200 "));
    let mut pong = [0; 4];
    client.tcp.read_exact(&mut pong).await.unwrap();
    assert_eq!(&pong, b"pong");
    client.tcp.shutdown().await.unwrap();
    assert_eq!(client.rest().await, "bye");
}

/// A WebSocket-like upgrade, the client HTTP/1 or 2, the upstream HTTP/1 or 2.
#[tokio::test(flavor = "multi_thread")]
async fn upgrades_cross_protocols() {
    let one = listen(|mut tcp, _| async move {
        let mut buffer = Vec::new();
        let request = read_message(&mut tcp, &mut buffer).await.unwrap();
        let lower = request.to_lowercase();
        assert!(request.starts_with("GET /chat HTTP/1.1\r\n"), "{request}");
        assert!(lower.contains("upgrade: websocket\r\n"), "{request}");
        assert!(lower.contains("connection: upgrade\r\n"), "{request}");
        assert!(lower.contains("sec-websocket-key: "), "{request}");
        let agree = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\
                     Connection: Upgrade\r\nSec-WebSocket-Accept: x\r\n\r\n";
        tcp.write_all(agree.as_bytes()).await.unwrap();
        let (mut read, mut write) = tcp.split();
        let _ = tokio::io::copy(&mut read, &mut write).await;
    })
    .await;
    let two = h2(|request, respond| async move {
        assert_eq!(request.method(), "CONNECT");
        let protocol = request.extensions().get::<h2::ext::Protocol>().unwrap();
        assert_eq!(protocol.as_str(), "websocket");
        assert_eq!(request.uri().path(), "/chat");
        echo_body(request, respond, 200).await;
    })
    .await;
    for (upstream, protocol) in [
        (one, UpstreamProtocol::Http1),
        (two, UpstreamProtocol::Http2),
    ] {
        let proxy = Proxy::start(Setup::new(upstream).speaking(protocol));
        let mut client = Client::connect(proxy.address).await;
        client
            .send(
                "GET /chat HTTP/1.1\r\nHost: shop\r\nConnection: Upgrade\r\n\
                 Upgrade: websocket\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\nearly",
            )
            .await;
        let answer = client.receive().await;
        assert!(answer.starts_with("HTTP/1.1 101 "), "{answer}");
        assert!(
            answer.to_lowercase().contains("upgrade: websocket\r\n"),
            "{answer}"
        );
        if matches!(protocol, UpstreamProtocol::Http2) {
            assert!(answer.contains("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="), "{answer}");
        }
        client.send(" and late").await;
        client.tcp.shutdown().await.unwrap();
        assert_eq!(client.rest().await, "early and late");

        let tcp = tokio::net::TcpStream::connect(proxy.address).await.unwrap();
        let (send, connection) = h2::client::handshake(tcp).await.unwrap();
        tokio::spawn(connection);
        let mut send: h2::client::SendRequest<Bytes> = send.ready().await.unwrap();
        while !send.is_extended_connect_protocol_enabled() {
            tokio::task::yield_now().await;
        }
        let mut head = request("CONNECT", "/chat").body(()).unwrap();
        let websocket = h2::ext::Protocol::from_static("websocket");
        head.extensions_mut().insert(websocket);
        let (answer, mut stream) = send.send_request(head, false).unwrap();
        let answer = answer.await.unwrap();
        assert_eq!(answer.status(), 200);
        stream
            .send_data(Bytes::from_static(b"hello"), true)
            .unwrap();
        assert_eq!(read_all(&mut answer.into_body()).await, b"hello");
    }
}
