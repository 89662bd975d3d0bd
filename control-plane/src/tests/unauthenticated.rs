//! What peers can take of the xDS port, without a certificate and with one, and how long a connection
//! lasts.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::StreamBody;
use hyper::body::Frame;
use hyper_util::rt::TokioIo;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;
use tonic::Code;
use xds_proto::envoy::service::discovery::v3::DeltaDiscoveryRequest;
use xds_proto::envoy::service::discovery::v3::aggregated_discovery_service_client::AggregatedDiscoveryServiceClient;
use xds_proto::type_url::CLUSTER;

use super::bench::{Bench, Delta, absent, eventually, names, node, options};
use super::credential::certificate;
use crate::ads::listen::UNVERIFIED_LIFE;
use crate::ads::streams::OF_WORKLOAD;
use crate::ads::testing::Memory;
use crate::server::{Options, start};

async fn bench(change: impl FnOnce(&mut Options)) -> Bench {
    let state = tempfile::tempdir().unwrap();
    let mesh = Arc::new(Memory::new().workload("shop", "web-0", "web"));
    let mut options = options(state.path());
    change(&mut options);
    let running = start(options, mesh.clone(), Arc::new(absent())).await;
    Bench {
        state,
        mesh,
        running: running.unwrap(),
    }
}

async fn try_silent(bench: &Bench) -> std::io::Result<TlsStream<TcpStream>> {
    let stream = TcpStream::connect(bench.running.xds).await?;
    let name = ServerName::try_from("anyam-control").unwrap();
    bench.connector(None).connect(name, stream).await
}

/// A handshake without a certificate, and then nothing.
async fn silent(bench: &Bench) -> TlsStream<TcpStream> {
    try_silent(bench).await.unwrap()
}

/// How long until the other side ends the connection.
async fn ended<S: AsyncReadExt + Unpin>(mut stream: S) -> Duration {
    let began = std::time::Instant::now();
    let mut rest = Vec::new();
    let reading = stream.read_to_end(&mut rest);
    let read = tokio::time::timeout(Duration::from_secs(25), reading).await;
    assert!(read.is_ok(), "the connection stays open");
    began.elapsed()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn silent_peers_without_a_certificate_keep_no_proxy_out() {
    let bench = bench(|options| options.max_streams = 4).await;
    let mut held = Vec::new();
    for _ in 0..50 {
        held.push(silent(&bench).await);
    }
    // A join and a stream, with as many silent connections as there are places and more.
    let web = bench.join("web-0", "web").await;
    let channel = bench.channel(Some(&web)).await;
    let mut stream = Delta::open(channel, node("web-0")).await.unwrap();
    stream.next().await.unwrap();
    // Before and after the preface alike, silence ends it.
    let mut greeted = held.pop().unwrap();
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
    greeted.write_all(preface).await.unwrap();
    let (greeted, silent) = tokio::join!(ended(greeted), ended(held.pop().unwrap()));
    assert!(greeted < Duration::from_secs(15) && silent < Duration::from_secs(15));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn proxies_of_an_address_have_so_many_connections_whatever_is_silent_there() {
    let few = bench(|options| options.max_connections_per_address = 5).await;
    let web = few.join("web-0", "web").await;
    let mut held = Vec::new();
    for _ in 0..5 {
        held.push(silent(&few).await);
    }
    let mut proxies = Vec::new();
    for _ in 0..5 {
        let channel = few.channel(Some(&web)).await;
        let mut stream = Delta::open(channel, node("web-0")).await.unwrap();
        stream.next().await.unwrap();
        proxies.push(stream);
    }
    // They have made room, long before their silence would have ended them.
    for silent in held {
        assert!(ended(silent).await < Duration::from_secs(5));
    }
    let mut one_more = TcpStream::connect(few.running.xds).await.unwrap();
    // Closed at once, without a handshake.
    let closed = one_more.read(&mut [0]).await;
    assert!(matches!(closed, Ok(0) | Err(_)));
    let token = std::fs::read_to_string(&few.running.token_file).unwrap();
    let bearer = format!("Bearer {}", token.trim());
    let headers = [("authorization", &*bearer)];
    let (_, metrics) = few.http("GET", "/metrics", &headers, "").await;
    let metrics = String::from_utf8(metrics.to_vec()).unwrap();
    let line = r#"anyam_control_connections_refused_total{reason="address"} 1"#;
    assert!(metrics.contains(line), "{metrics}");
    // A place that is given back can be had again.
    drop(proxies);
    eventually(|| async { try_silent(&few).await.ok() }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_ends_at_its_age_and_the_proxy_comes_back() {
    let bench = bench(|options| options.max_connection_age = Duration::from_secs(2)).await;
    let web = bench.join("web-0", "web").await;
    for _ in 0..2 {
        let channel = bench.channel(Some(&web)).await;
        let mut stream = Delta::open(channel, node("web-0")).await.unwrap();
        let ended = async { while stream.next().await.is_ok() {} };
        let ended = tokio::time::timeout(Duration::from_secs(15), ended).await;
        ended.expect("the stream outlives its connection's age");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_workload_takes_the_places_of_its_own_streams_only() {
    let state = tempfile::tempdir().unwrap();
    let mesh = Memory::new().workload("shop", "web-0", "web");
    let mesh = Arc::new(mesh.workload("shop", "cart-0", "cart"));
    let mut options = options(state.path());
    options.max_streams = OF_WORKLOAD + 2;
    let running = start(options, mesh.clone(), Arc::new(absent())).await;
    let bench = Bench {
        state,
        mesh,
        running: running.unwrap(),
    };
    let (web, cart) = tokio::join!(bench.join("web-0", "web"), bench.join("cart-0", "cart"));
    let mut live = Delta::open(bench.channel(Some(&cart)).await, node("cart-0"))
        .await
        .unwrap();
    let first = live.next().await.unwrap();
    live.answer(&first, None).await;
    // More streams than are allowed, over some connections; and as many connections that send
    // nothing.
    let mut held = Vec::new();
    let mut silent = Vec::new();
    for _ in 0..3 {
        let channel = bench.channel(Some(&web)).await;
        for _ in 0..OF_WORKLOAD {
            held.push(Delta::open(channel.clone(), node("web-0")).await.unwrap());
            let mut client = AggregatedDiscoveryServiceClient::new(channel.clone());
            let nothing = tokio_stream::pending::<DeltaDiscoveryRequest>();
            silent.push(client.delta_aggregated_resources(nothing).await);
        }
    }
    // The first of them ended for the others, with a reason.
    let mut first = held.remove(0);
    let ended = loop {
        match first.next().await {
            Ok(_) => {}
            Err(status) => break status,
        }
    };
    assert_eq!(ended.code(), Code::Aborted, "{ended}");
    let mut second = Delta::open(bench.channel(Some(&cart)).await, node("cart-0"))
        .await
        .unwrap();
    second.next().await.unwrap();
    // The live one was not touched.
    bench.mesh.change(&[(CLUSTER, "a", Some("1"))]);
    assert_eq!(names(&live.next().await.unwrap()), ["a"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_of_one_certificate_keep_no_other_proxy_out() {
    let state = tempfile::tempdir().unwrap();
    let mesh = Memory::new().workload("shop", "web-0", "web");
    let mesh = Arc::new(mesh.workload("shop", "cart-0", "cart"));
    let mut options = options(state.path());
    options.max_streams = 20;
    let running = start(options, mesh.clone(), Arc::new(absent())).await;
    let bench = Bench {
        state,
        mesh,
        running: running.unwrap(),
    };
    let (web, cart) = tokio::join!(bench.join("web-0", "web"), bench.join("cart-0", "cart"));
    let mut held = Vec::new();
    for _ in 0..50 {
        let stream = TcpStream::connect(bench.running.xds).await.unwrap();
        let name = ServerName::try_from("anyam-control").unwrap();
        held.push(bench.connector(Some(&web)).connect(name, stream).await);
    }
    // The oldest ended for the newer ones, before their silence ends them.
    let oldest = held.remove(0).unwrap();
    assert!(ended(oldest).await < Duration::from_secs(5));
    for (client, workload) in [(&cart, "cart-0"), (&web, "web-0")] {
        let channel = bench.channel(Some(client)).await;
        let mut stream = Delta::open(channel, node(workload)).await.unwrap();
        stream.next().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_control_frames_ends_the_connection() {
    const SETTINGS: &[u8] = b"\0\0\0\x04\0\0\0\0\0";
    const PING: &[u8] = b"\0\0\x08\x06\0\0\0\0\0\0\0\0\0\0\0\0\0";
    let bench = bench(|_| {}).await;
    let web = bench.join("web-0", "web").await;
    for frame in [PING, SETTINGS] {
        let stream = TcpStream::connect(bench.running.xds).await.unwrap();
        let name = ServerName::try_from("anyam-control").unwrap();
        let tls = bench.connector(Some(&web)).connect(name, stream).await;
        let (read, mut write) = tokio::io::split(tls.unwrap());
        let flood = async {
            write.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await?;
            write.write_all(SETTINGS).await?;
            for _ in 0..200 {
                write.write_all(&frame.repeat(100)).await?;
            }
            write.flush().await
        };
        // The connection may end before all is written.
        let (took, _) = tokio::join!(ended(read), flood);
        assert!(took < Duration::from_secs(5), "{took:?}");
    }
    let token = std::fs::read_to_string(&bench.running.token_file).unwrap();
    let bearer = format!("Bearer {}", token.trim());
    let headers = [("authorization", &*bearer)];
    let (_, metrics) = bench.http("GET", "/metrics", &headers, "").await;
    let metrics = String::from_utf8(metrics.to_vec()).unwrap();
    let line = r#"anyam_control_connections_refused_total{reason="flood"} 2"#;
    assert!(metrics.contains(line), "{metrics}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_of_a_request_without_a_credential_is_read() {
    let bench = bench(|_| {}).await;
    for credential in ["", "Bearer anyam-join.v1.x"] {
        let executor = hyper_util::rt::TokioExecutor::new();
        let io = TokioIo::new(silent(&bench).await);
        let (mut send, connection) = hyper::client::conn::http2::handshake(executor, io)
            .await
            .unwrap();
        tokio::spawn(connection);
        // A body that never comes.
        let body = StreamBody::new(tokio_stream::pending::<Result<Frame<Bytes>, Infallible>>());
        let path = "/istio.v1.auth.IstioCertificateService/CreateCertificate";
        let request = http::Request::post(format!("http://anyam-control{path}"))
            .header("content-type", "application/grpc")
            .header("authorization", credential);
        let answer = send.send_request(request.body(body).unwrap());
        let answer = tokio::time::timeout(Duration::from_secs(8), answer).await;
        let answer = answer.expect("an answer to the head alone").unwrap();
        let code = Code::Unauthenticated as i32;
        assert_eq!(answer.headers()["grpc-status"], code.to_string());
    }
    let token = bench.token("shop", "web-0", "web");
    // What has a credential is bounded.
    let csr = "x".repeat(100 << 10);
    let channel = bench.channel(None).await;
    let refused = certificate(channel, &csr, Some(&token)).await.unwrap_err();
    assert_eq!(refused.code(), Code::OutOfRange, "{refused}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_without_a_certificate_is_short_however_active_it_is() {
    let bench = bench(|_| {}).await;
    let web = bench.join("web-0", "web").await;
    let channel = bench.channel(Some(&web)).await;
    let mut proxy = Delta::open(channel, node("web-0")).await.unwrap();
    let first = proxy.next().await.unwrap();
    proxy.answer(&first, None).await;

    let began = std::time::Instant::now();
    let io = TokioIo::new(silent(&bench).await);
    let executor = hyper_util::rt::TokioExecutor::new();
    // The client sends PING frames from its first request on.
    let (mut send, connection) = hyper::client::conn::http2::Builder::new(executor)
        .timer(hyper_util::rt::TokioTimer::new())
        .keep_alive_interval(Duration::from_secs(1))
        .keep_alive_while_idle(true)
        .handshake(io)
        .await
        .unwrap();
    let connection = tokio::spawn(connection);
    let path = "/istio.v1.auth.IstioCertificateService/CreateCertificate";
    let request = http::Request::post(format!("http://anyam-control{path}"))
        .header("content-type", "application/grpc")
        .body(http_body_util::Empty::<Bytes>::new());
    let answer = send.send_request(request.unwrap()).await.unwrap();
    assert_eq!(answer.status(), 200);
    let ended = tokio::time::timeout(UNVERIFIED_LIFE * 2, connection).await;
    assert!(ended.is_ok(), "the connection stays open");
    let life = began.elapsed();
    assert!(life >= UNVERIFIED_LIFE, "it ended after {life:?}");
    // An older connection with a certificate stays open.
    bench.mesh.change(&[(CLUSTER, "a", Some("1"))]);
    assert_eq!(names(&proxy.next().await.unwrap()), ["a"]);
}
