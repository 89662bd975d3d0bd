//! Peers without a certificate on the xDS port, and how long a connection lasts.

use std::sync::Arc;
use std::time::Duration;

use rustls_pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use super::bench::{Bench, Delta, Nothing, eventually, node, options};
use crate::ads::testing::Memory;
use crate::server::{Options, start};

async fn bench(change: impl FnOnce(&mut Options)) -> Bench {
    let state = tempfile::tempdir().unwrap();
    let mesh = Arc::new(Memory::new().workload("shop", "web-0", "web"));
    let mut options = options(state.path());
    change(&mut options);
    let running = start(options, mesh.clone(), Arc::new(Nothing)).await;
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
async fn silent_peers_without_a_certificate_keep_nobody_out() {
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
async fn an_address_has_so_many_connections_and_proxies_so_many() {
    let few = bench(|options| options.max_connections_per_address = 5).await;
    let mut held = Vec::new();
    for _ in 0..5 {
        held.push(silent(&few).await);
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
    drop(held);
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
