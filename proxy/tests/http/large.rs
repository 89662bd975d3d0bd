//! Large bodies.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use anyam_proxy::config::cluster::UpstreamProtocol;
use bytes::Bytes;
use http::Response;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::harness::{Proxy, Setup};
use crate::interim::use_small_buffers;
use crate::namespace::run_in_namespace;
use crate::peers::{Client, h2, listen, read_all};

const LARGE: usize = 100 << 20;
/// More than the proxy, and the small socket buffers on its both sides, may keep of a response.
const KEPT: usize = 4 << 20;

/// Takes [`LARGE`] bytes, gives as many back, counts what it could send.
async fn large_h1(sent: Arc<AtomicUsize>) -> std::net::SocketAddr {
    listen(move |mut tcp, _| {
        let sent = sent.clone();
        async move {
            read_head(&mut tcp).await;
            let mut left = LARGE;
            let mut piece = vec![0; 64 << 10];
            while left > 0 {
                left -= tcp.read(&mut piece).await.unwrap();
            }
            let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {LARGE}\r\n\r\n");
            tcp.write_all(answer.as_bytes()).await.unwrap();
            for _ in 0..LARGE / piece.len() {
                tcp.write_all(&piece).await.unwrap();
                sent.fetch_add(piece.len(), SeqCst);
            }
            let _ = tcp.read(&mut piece).await;
        }
    })
    .await
}

async fn large_h2(sent: Arc<AtomicUsize>) -> std::net::SocketAddr {
    h2(move |request, mut respond| {
        let sent = sent.clone();
        async move {
            let mut body = request.into_body();
            assert_eq!(read_all(&mut body).await.len(), LARGE);
            let response = Response::builder().body(()).unwrap();
            let mut send = respond.send_response(response, false).unwrap();
            let mut left = LARGE;
            while left > 0 {
                send.reserve_capacity(64 << 10);
                let room = std::future::poll_fn(|cx| send.poll_capacity(cx)).await;
                let count = room.unwrap().unwrap().min(left);
                send.send_data(Bytes::from(vec![0; count]), false).unwrap();
                sent.fetch_add(count, SeqCst);
                left -= count;
            }
            send.send_data(Bytes::new(), true).unwrap();
        }
    })
    .await
}

async fn read_head(tcp: &mut tokio::net::TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(tcp.read_u8().await.unwrap());
    }
    String::from_utf8(head).unwrap()
}

/// 100 MiB each way to a reader that is slow to begin: what is between is bounded.
#[test]
fn large_bodies_stream_both_ways_and_a_slow_reader_holds_the_sender() {
    run_in_namespace("large::in_a_namespace");
}

#[ignore = "run by large_bodies_stream_both_ways_and_a_slow_reader_holds_the_sender"]
#[tokio::test(flavor = "multi_thread")]
async fn in_a_namespace() {
    use_small_buffers();
    for protocol in [UpstreamProtocol::Http1, UpstreamProtocol::Http2] {
        let sent = Arc::new(AtomicUsize::new(0));
        let upstream = match protocol {
            UpstreamProtocol::Http2 => large_h2(sent.clone()).await,
            _ => large_h1(sent.clone()).await,
        };
        let setup = Setup::new(upstream)
            .speaking(protocol)
            .with(|s| s.forward.timeout = None);
        let proxy = Proxy::start(setup);
        let mut client = Client::connect(proxy.address).await;
        client
            .send(&format!(
                "POST / HTTP/1.1\r\nHost: shop\r\nContent-Length: {LARGE}\r\n\r\n"
            ))
            .await;
        let piece = vec![0; 64 << 10];
        for _ in 0..LARGE / piece.len() {
            client.tcp.write_all(&piece).await.unwrap();
        }
        // Nothing is read: the upstream must come to a stop far from the end.
        let mut before = usize::MAX;
        let stopped = loop {
            tokio::time::sleep(Duration::from_millis(200)).await;
            let now = sent.load(SeqCst);
            if now == before && now > 0 {
                break now;
            }
            before = now;
        };
        assert!(
            stopped < KEPT,
            "{stopped} bytes taken for a client that reads none"
        );
        let chunked = read_head(&mut client.tcp).await.contains("chunked");
        let mut total = 0;
        let mut piece = vec![0; 256 << 10];
        while total < LARGE {
            let count = client.tcp.read(&mut piece).await.unwrap();
            assert!(count > 0, "cut after {total}");
            total += count;
        }
        assert!(chunked || total == LARGE);
    }
}
