//! Mirrored requests: complete, streamed as the body comes in, and abandoned when they are too
//! slow.

use std::time::Duration;

use anyam_proxy::config::ClusterRef;
use anyam_proxy::config::filter::FilterConfig;
use anyam_proxy::config::route::Mirror;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use crate::harness::{Proxy, Setup};
use crate::peers::{Client, get, listen, ok, read_message};
use crate::settings::filter;

const SOON: Duration = Duration::from_secs(20);

fn mirrored(upstream: std::net::SocketAddr) -> Setup {
    Setup::new(upstream).with(|setup| {
        setup.forward.mirrors.push(Mirror {
            cluster: ClusterRef(0),
            fraction: 1_000_000,
            keep_host: false,
        });
    })
}

/// What a copy's upstream does with its body.
#[derive(Clone, Copy)]
enum Reads {
    All,
    Nothing,
}

/// Answers the original once it has `length` bytes of its body; reports how many of a copy's came.
async fn upstream(
    length: usize,
    reads: Reads,
    told: UnboundedSender<usize>,
) -> std::net::SocketAddr {
    listen(move |mut tcp, _| {
        let told = told.clone();
        async move {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                match tcp.read_u8().await {
                    Ok(byte) => head.push(byte),
                    Err(_) => return,
                }
            }
            let copy = String::from_utf8_lossy(&head).contains("shop-shadow");
            if copy && matches!(reads, Reads::Nothing) {
                told.send(0).unwrap();
                return std::future::pending().await;
            }
            let mut piece = vec![0; 64 << 10];
            let mut seen = 0;
            while seen < length {
                match tcp.read(&mut piece).await {
                    Ok(count @ 1..) => seen += count,
                    _ => break,
                }
                if copy {
                    let _ = told.send(seen);
                }
            }
            let _ = tcp.write_all(ok("fine").as_bytes()).await;
        }
    })
    .await
}

async fn came(hear: &mut UnboundedReceiver<usize>, wanted: usize) {
    let waiting = async {
        let mut last = 0;
        while last < wanted {
            last = hear.recv().await.unwrap();
        }
        assert_eq!(last, wanted);
    };
    let all = tokio::time::timeout(SOON, waiting).await;
    assert!(all.is_ok(), "the copy is not whole");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_of_any_length_is_copied_as_it_comes() {
    let length = 12 << 20;
    let (told, mut hear) = unbounded_channel();
    let proxy = Proxy::start(mirrored(upstream(length, Reads::All, told).await));
    let mut client = Client::connect(proxy.address).await;
    client
        .send(&format!(
            "POST / HTTP/1.1\r\nHost: shop\r\nContent-Length: {length}\r\n\r\n"
        ))
        .await;
    let piece = "x".repeat(1 << 20);
    for number in 1..=12 {
        client.send(&piece).await;
        // Here before the next piece is sent: nothing waits for the end.
        came(&mut hear, number << 20).await;
    }
    assert!(client.receive().await.ends_with("fine"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_that_falls_behind_is_given_up_and_counted() {
    let length = 64 << 20;
    let (told, _hear) = unbounded_channel();
    let proxy = Proxy::start(mirrored(upstream(length, Reads::Nothing, told).await));
    let cluster = proxy.store.load().clusters["shop"].clone();
    let mut client = Client::connect(proxy.address).await;
    let head = format!("POST / HTTP/1.1\r\nHost: shop\r\nContent-Length: {length}\r\n\r\n");
    client.send(&head).await;
    client.send(&"x".repeat(length)).await;
    assert!(client.receive().await.ends_with("fine"));
    assert_eq!(cluster.metrics.mirror_overflows.get(), 1);
}

/// A request that is broken off leaves no copy behind that waits for its end.
#[tokio::test(flavor = "multi_thread")]
async fn a_copy_ends_with_its_request() {
    let (told, mut hear) = unbounded_channel();
    let proxy = Proxy::start(mirrored(upstream(1 << 20, Reads::All, told).await));
    let limits = proxy.store.load().clusters["shop"].limits.clone();
    let mut client = Client::connect(proxy.address).await;
    client
        .send("POST / HTTP/1.1\r\nHost: shop\r\nContent-Length: 1048576\r\n\r\nhello")
        .await;
    came(&mut hear, 5).await;
    drop(client);
    let waiting = async {
        while limits.active_requests() > 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let ended = tokio::time::timeout(SOON, waiting).await;
    assert!(ended.is_ok(), "{} under way", limits.active_requests());
}

/// When a filter has waited for the whole body, the mirrored request has the body too.
#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_a_filter_waited_for_is_copied() {
    let length = 100_000;
    let (told, mut hear) = unbounded_channel();
    let setup = mirrored(upstream(length, Reads::All, told).await).with(|setup| {
        let buffer = filter("buffer", FilterConfig::Buffer(1 << 20));
        setup.manager.filters.push(buffer);
    });
    let proxy = Proxy::start(setup);
    let cluster = proxy.store.load().clusters["shop"].clone();
    let mut client = Client::connect(proxy.address).await;
    let body = "x".repeat(length);
    for head in [
        format!("Content-Length: {length}\r\n\r\n{body}"),
        format!("Transfer-Encoding: chunked\r\n\r\n{length:x}\r\n{body}\r\n0\r\nx-sum: 1\r\n\r\n"),
    ] {
        let request = format!("POST / HTTP/1.1\r\nHost: shop\r\n{head}");
        assert!(client.ask(&request).await.ends_with("fine"));
        // The body is chunked, so its end is framed.
        let whole = async { while hear.recv().await.unwrap() < length {} };
        assert!(tokio::time::timeout(SOON, whole).await.is_ok());
    }
    assert_eq!(cluster.metrics.mirror_failures.get(), 0);
}

/// The mirror's cluster closes connections without a response.
#[tokio::test(flavor = "multi_thread")]
async fn a_copy_that_cannot_be_delivered_is_counted() {
    let upstream = listen(|mut tcp, _| async move {
        let mut buffer = Vec::new();
        let request = read_message(&mut tcp, &mut buffer).await.unwrap();
        if !request.contains("shop-shadow") {
            let _ = tcp.write_all(ok("fine").as_bytes()).await;
        }
    })
    .await;
    let proxy = Proxy::start(mirrored(upstream));
    let cluster = proxy.store.load().clusters["shop"].clone();
    let mut client = Client::connect(proxy.address).await;
    assert!(client.ask(&get("/")).await.ends_with("fine"));
    let counted = async {
        while cluster.metrics.mirror_failures.get() == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    assert!(tokio::time::timeout(SOON, counted).await.is_ok());
}
