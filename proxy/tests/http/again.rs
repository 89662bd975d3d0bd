//! What is sent again: without a retry policy, only what provably did not reach the app.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use anyam_proxy::config::cluster::RetryLimit;
use anyam_proxy::config::cluster::UpstreamProtocol;
use anyam_proxy::config::route::{RetryOn, RetryPolicy};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response};
use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::harness::{Proxy, Setup};
use crate::hostile2::{GOAWAY, HEADERS, PREFACE, Raw, SETTINGS};
use crate::peers::{Client, get, h2_client, listen, ok, read_message};
use crate::settings::retry;

/// What the control plane configures where no manifest configures retries.
fn by_default() -> Option<Arc<RetryPolicy>> {
    policy(RetryOn::CONNECT_FAILURE | RetryOn::REFUSED_STREAM | RetryOn::RESET_BEFORE_REQUEST)
}

fn policy(on: RetryOn) -> Option<Arc<RetryPolicy>> {
    retry(on, 2)
}

/// Reads a request's HEADERS, then sends GOAWAY: streams up to `last` were accepted.
async fn go_away(mut tcp: TcpStream, last: u32, reason: u32) {
    tcp.read_exact(&mut [0; PREFACE.len()]).await.unwrap();
    let mut raw = Raw(tcp);
    raw.send(SETTINGS, 0, 0, &[]).await;
    raw.wait_for(HEADERS).await;
    let payload = [last.to_be_bytes(), reason.to_be_bytes()].concat();
    raw.send(GOAWAY, 0, 0, &payload).await;
    raw.0.shutdown().await.unwrap();
    let _ = raw.0.read_to_end(&mut Vec::new()).await;
}

async fn answer_all(tcp: TcpStream) {
    let mut connection = h2::server::handshake(tcp).await.unwrap();
    while let Some(Ok((_, mut respond))) = connection.accept().await {
        let _: h2::SendStream<Bytes> = respond.send_response(Response::new(()), true).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_goaway_leaves_out_is_sent_again_and_one_that_it_names_is_not() {
    for (last, reason, status, connections) in [
        (0, 0, "200", 2),
        // ENHANCE_YOUR_CALM: whatever the reason, the stream was not touched.
        (0, 11, "200", 2),
        (1, 0, "503", 1),
    ] {
        let seen = Arc::new(AtomicUsize::new(0));
        let counter = seen.clone();
        let upstream = listen(move |tcp, number| {
            counter.fetch_add(1, SeqCst);
            async move {
                match number {
                    0 => go_away(tcp, last, reason).await,
                    _ => answer_all(tcp).await,
                }
            }
        })
        .await;
        let setup = Setup::new(upstream).speaking(UpstreamProtocol::Http2);
        let proxy = Proxy::start(setup.with(|setup| setup.forward.retry = by_default()));
        let mut client = Client::connect(proxy.address).await;
        let post = "POST / HTTP/1.1\r\nHost: shop\r\nContent-Length: 5\r\n\r\nhello";
        let answer = client.ask(post).await;
        let start = format!("HTTP/1.1 {status} ");
        assert!(answer.starts_with(&start), "{last} {reason}: {answer}");
        assert_eq!(seen.load(SeqCst), connections, "{last} {reason}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_status_that_the_app_itself_gave_is_the_answer() {
    for status in ["14", "1"] {
        let seen = Arc::new(AtomicUsize::new(0));
        let counter = seen.clone();
        let upstream = crate::peers::h2(move |_, mut respond| {
            counter.fetch_add(1, SeqCst);
            async move {
                let mut response = Response::new(());
                let headers: &mut HeaderMap = response.headers_mut();
                headers.insert("grpc-status", HeaderValue::from_static(status));
                respond.send_response(response, true).unwrap();
            }
        })
        .await;
        let setup = Setup::new(upstream).speaking(UpstreamProtocol::Http2);
        let proxy = Proxy::start(setup.with(|setup| setup.forward.retry = by_default()));
        let mut client = h2_client(proxy.address).await.ready().await.unwrap();
        let head = http::Request::post("http://shop/a")
            .header("content-type", "application/grpc")
            .body(());
        let (answer, _) = client.send_request(head.unwrap(), true).unwrap();
        assert_eq!(answer.await.unwrap().headers()["grpc-status"], status);
        assert_eq!(seen.load(SeqCst), 1);
    }
}

/// How an app ends with a POST half done, on a connection that has served before.
#[derive(Clone, Copy, Debug)]
enum Death {
    /// With bytes unread: its kernel sends a reset.
    Unread,
    /// With all read that has come: FIN, then a reset for what still comes.
    Read,
    /// By a reset of its own.
    Abort,
}

async fn die(mut tcp: TcpStream, death: Death) {
    let mut buffer = Vec::new();
    read_message(&mut tcp, &mut buffer).await;
    tcp.write_all(ok("first").as_bytes()).await.unwrap();
    let wanted = match death {
        Death::Unread => 1,
        Death::Read | Death::Abort => "hel".len(),
    };
    let mut seen = Vec::new();
    while !seen.ends_with(b"\r\n\r\nhel") {
        let mut piece = vec![0; wanted.max(1)];
        let read = tcp.read(&mut piece).await.unwrap();
        seen.extend_from_slice(&piece[..read]);
        if matches!(death, Death::Unread) {
            break;
        }
    }
    if matches!(death, Death::Abort) {
        let _ = SockRef::from(&tcp).set_linger(Some(Duration::ZERO));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unsafe_request_whose_app_failed_is_not_sent_again() {
    for (death, method) in [Death::Unread, Death::Read, Death::Abort]
        .into_iter()
        .flat_map(|death| ["POST", "PUT", "DELETE"].map(|method| (death, method)))
    {
        let changes = Arc::new(AtomicUsize::new(0));
        let counter = changes.clone();
        let upstream = listen(move |mut tcp, number| {
            let counter = counter.clone();
            async move {
                if number == 0 {
                    return die(tcp, death).await;
                }
                let mut buffer = Vec::new();
                while read_message(&mut tcp, &mut buffer).await.is_some() {
                    counter.fetch_add(1, SeqCst);
                    tcp.write_all(ok("again").as_bytes()).await.unwrap();
                }
            }
        })
        .await;
        let setup = Setup::new(upstream).with(|setup| setup.forward.retry = by_default());
        let proxy = Proxy::start(setup);
        let mut client = Client::connect(proxy.address).await;
        assert!(client.ask(&get("/")).await.ends_with("first"));
        client
            .send(&format!(
                "{method} / HTTP/1.1\r\nHost: shop\r\nContent-Length: 10\r\n\r\nhel"
            ))
            .await;
        // A slow client: between its pieces a second attempt would have time to begin.
        tokio::time::sleep(Duration::from_millis(50)).await;
        let _ = client.tcp.write_all(b"lo hel").await;
        tokio::time::sleep(Duration::from_millis(50)).await;
        let _ = client.tcp.write_all(b"p").await;
        let answer = client.receive().await;
        assert!(
            answer.starts_with("HTTP/1.1 503 "),
            "{death:?} {method}: {answer}"
        );
        assert_eq!(changes.load(SeqCst), 0, "{death:?} {method}");
    }
}

/// When all kept connections end while their second request is read, only one more is tried, and
/// only for a safe request.
#[tokio::test(flavor = "multi_thread")]
async fn a_safe_request_is_sent_once_more() {
    const KEPT: usize = 4;
    for (method, expected) in [("GET", 2), ("OPTIONS", 2), ("DELETE", 1), ("PUT", 1)] {
        let seconds = Arc::new(AtomicUsize::new(0));
        let all_open = Arc::new(tokio::sync::Barrier::new(KEPT));
        let counter = seconds.clone();
        let upstream = listen(move |mut tcp, number| {
            let (counter, all_open) = (counter.clone(), all_open.clone());
            async move {
                assert!(number < KEPT);
                let mut buffer = Vec::new();
                read_message(&mut tcp, &mut buffer).await;
                all_open.wait().await;
                tcp.write_all(ok("first").as_bytes()).await.unwrap();
                if read_message(&mut tcp, &mut buffer).await.is_some() {
                    counter.fetch_add(1, SeqCst);
                }
            }
        })
        .await;
        let setup = Setup::new(upstream).with(|setup| setup.forward.retry = by_default());
        let proxy = Proxy::start(setup);
        let firsts = (0..KEPT).map(|_| async {
            let mut client = Client::connect(proxy.address).await;
            assert!(client.ask(&get("/")).await.ends_with("first"));
            client
        });
        let mut clients = futures_util::future::join_all(firsts).await;
        let request = format!("{method} / HTTP/1.1\r\nHost: shop\r\nContent-Length: 0\r\n\r\n");
        let answer = clients[0].ask(&request).await;
        assert!(answer.starts_with("HTTP/1.1 503 "), "{method}: {answer}");
        assert_eq!(seconds.load(SeqCst), expected, "{method}");
        let counted = expected as u64 - 1;
        assert_eq!(resends(&proxy), (counted, counted), "{method}");
    }
}

/// How many requests were sent again because a kept connection was closed; of these, how many
/// without proof that they had not arrived.
fn resends(proxy: &Proxy) -> (u64, u64) {
    let snapshot = proxy.store.load();
    let metrics = &snapshot.clusters["shop"].metrics;
    (metrics.resends.get(), metrics.unproven_resends.get())
}

/// Serves one request, then answers `second` once `least` bytes of another have come, then ends.
async fn once_then(mut tcp: TcpStream, second: &str, least: usize) {
    let mut buffer = Vec::new();
    read_message(&mut tcp, &mut buffer).await;
    tcp.write_all(ok("first").as_bytes()).await.unwrap();
    let mut seen = Vec::new();
    while seen.len() < least {
        if tcp.read_buf(&mut seen).await.unwrap() == 0 {
            return;
        }
    }
    tcp.write_all(second.as_bytes()).await.unwrap();
    // All of what the client still sends is read: the end is FIN, and no reset.
    tcp.shutdown().await.unwrap();
    let _ = tcp.read_to_end(&mut Vec::new()).await;
}

/// Neither after a byte of a response, nor when the body was too long to be kept.
#[tokio::test(flavor = "multi_thread")]
async fn a_safe_request_is_not_sent_again_when_it_may_have_had_an_effect() {
    let long = "x".repeat(256 << 10);
    let with_body = format!(
        "GET / HTTP/1.1\r\nHost: shop\r\nContent-Length: {}\r\n\r\n{long}",
        long.len()
    );
    for (second, request, least) in [
        ("H", get("/"), 1),
        ("HTTP/1.1 103 Early Hints\r\n\r\n", get("/"), 1),
        ("", with_body, 128 << 10),
    ] {
        let connections = Arc::new(AtomicUsize::new(0));
        let counter = connections.clone();
        let upstream = listen(move |tcp, _| {
            counter.fetch_add(1, SeqCst);
            once_then(tcp, second, least)
        })
        .await;
        let proxy = Proxy::start(Setup::new(upstream));
        let mut client = Client::connect(proxy.address).await;
        assert!(client.ask(&get("/")).await.ends_with("first"));
        client.send(&request).await;
        let mut answer = client.receive().await;
        if answer.starts_with("HTTP/1.1 103") {
            answer = client.receive().await;
        }
        assert!(answer.starts_with("HTTP/1.1 503 "), "{second:?}: {answer}");
        assert_eq!(connections.load(SeqCst), 1, "{second:?}");
        assert_eq!(resends(&proxy), (0, 0), "{second:?}");
    }
}

/// An attempt that can't be repeated takes no retry permit, so other requests can have it.
#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_cannot_be_replayed_takes_no_retry() {
    let upstream = crate::peers::h1(|_| {
        "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 4\r\n\r\nbusy".into()
    })
    .await;
    let setup = Setup::new(upstream).with(|setup| {
        setup.forward.retry = policy(RetryOn::FIVE_XX);
        // No retry is allowed: a request that would need one has the response flag.
        setup.thresholds.retries = RetryLimit::Fixed(0);
    });
    let proxy = Proxy::start(setup);
    let cluster = proxy.store.load().clusters["shop"].clone();
    let overflows = || cluster.metrics.retry_overflows.get();
    let mut client = Client::connect(proxy.address).await;
    let body = "x".repeat(2 << 20);
    let post = format!(
        "POST / HTTP/1.1\r\nHost: shop\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    assert!(client.ask(&post).await.ends_with("busy"));
    assert_eq!(overflows(), 0);
    assert!(client.ask(&get("/")).await.ends_with("busy"));
    assert_eq!(overflows(), 1);
}
