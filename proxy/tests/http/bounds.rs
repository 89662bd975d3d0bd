//! How long streams and connections may last, and how much of a response's head is taken.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::{Duration, Instant};

use anyam_proxy::config::cluster::UpstreamProtocol;
use bytes::Bytes;
use http::{Request, Response};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;

use crate::harness::{Proxy, Setup};
use crate::peers::{Client, get, h2, h2_client, listen, ok, read_message};

/// An HTTP/1 upstream and the number of its connections.
async fn counted(answer: String) -> (std::net::SocketAddr, Arc<AtomicUsize>) {
    let count = Arc::new(AtomicUsize::new(0));
    let counter = count.clone();
    let upstream = listen(move |mut tcp, _| {
        counter.fetch_add(1, SeqCst);
        let answer = answer.clone();
        async move {
            let mut buffer = Vec::new();
            while read_message(&mut tcp, &mut buffer).await.is_some() {
                if tcp.write_all(answer.as_bytes()).await.is_err() {
                    return;
                }
            }
        }
    })
    .await;
    (upstream, count)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_connection_past_its_time_is_not_used_again() {
    let (upstream, connections) = counted(ok("fine")).await;
    let proxy = Proxy::start(Setup::new(upstream));
    let mut client = Client::connect(proxy.address).await;
    for _ in 0..3 {
        assert!(client.ask(&get("/")).await.ends_with("fine"));
    }
    assert_eq!(connections.load(SeqCst), 1);

    let (upstream, connections) = counted(ok("fine")).await;
    let short = Setup::new(upstream).with(|setup| {
        setup.adjust = |cluster| cluster.max_connection_duration = Some(Duration::from_nanos(1));
    });
    let proxy = Proxy::start(short);
    let mut client = Client::connect(proxy.address).await;
    for _ in 0..3 {
        assert!(client.ask(&get("/")).await.ends_with("fine"));
    }
    assert_eq!(connections.load(SeqCst), 3);
}

/// An HTTP/2 upstream that answers each stream with the number of its connection.
async fn numbered() -> std::net::SocketAddr {
    listen(move |tcp, number| async move {
        let mut connection = h2::server::handshake(tcp).await.unwrap();
        while let Some(Ok((_, mut respond))) = connection.accept().await {
            let mut body = respond.send_response(Response::new(()), false).unwrap();
            body.send_data(number.to_string().into(), true).unwrap();
        }
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shared_upstream_connection_past_its_time_takes_no_new_stream() {
    let upstream = numbered().await;
    let short = Setup::new(upstream)
        .speaking(UpstreamProtocol::Http2)
        .with(|setup| {
            setup.adjust =
                |cluster| cluster.max_connection_duration = Some(Duration::from_nanos(1));
        });
    let proxy = Proxy::start(short);
    let mut client = Client::connect(proxy.address).await;
    for number in 0..3 {
        let response = client.ask(&get("/")).await;
        assert!(
            response.contains(&format!("\r\n{number}\r\n")),
            "{response}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_more_streams_share_a_connection_than_the_cluster_says() {
    let (held, mut holding) = mpsc::unbounded_channel();
    let connections = Arc::new(AtomicUsize::new(0));
    let counter = connections.clone();
    let upstream = listen(move |tcp, _| {
        counter.fetch_add(1, SeqCst);
        let held = held.clone();
        async move {
            let mut connection = h2::server::handshake(tcp).await.unwrap();
            while let Some(Ok((_, respond))) = connection.accept().await {
                // Kept, so that the stream stays open.
                let _ = held.send(respond);
            }
        }
    })
    .await;
    let one = Setup::new(upstream)
        .speaking(UpstreamProtocol::Http2)
        .with(|setup| setup.adjust = |cluster| cluster.http2.max_concurrent_streams = 1);
    let proxy = Proxy::start(one);
    let mut clients = Vec::new();
    for _ in 0..3 {
        let mut client = Client::connect(proxy.address).await;
        client.send(&get("/")).await;
        clients.push((client, holding.recv().await.unwrap()));
    }
    assert_eq!(connections.load(SeqCst), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_responses_head_may_have_as_many_bytes_as_the_cluster_says() {
    let long = "x".repeat(8 * 1024);
    let answer = format!("HTTP/1.1 200 OK\r\nX-Long: {long}\r\nContent-Length: 4\r\n\r\nfine");
    let (upstream, _) = counted(answer).await;
    let proxy = Proxy::start(Setup::new(upstream));
    let mut client = Client::connect(proxy.address).await;
    assert!(client.ask(&get("/")).await.ends_with("fine"));

    let narrow = Setup::new(upstream)
        .with(|setup| setup.adjust = |cluster| cluster.max_response_headers_bytes = 4096);
    let proxy = Proxy::start(narrow);
    let mut client = Client::connect(proxy.address).await;
    let response = client.ask(&get("/")).await;
    assert!(response.starts_with("HTTP/1.1 502 "), "{response}");
}

/// An upstream that reads a request and sends nothing.
async fn silent() -> std::net::SocketAddr {
    listen(|mut tcp, _| async move {
        let _ = tcp.read_to_end(&mut Vec::new()).await;
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_may_not_last_longer_than_it_may() {
    let short = Some(Duration::from_millis(50));
    let of_manager =
        Setup::new(silent().await).with(|setup| setup.manager.max_stream_duration = short);
    let of_route =
        Setup::new(silent().await).with(|setup| setup.forward.max_stream_duration = Some(short));
    for setup in [of_manager, of_route] {
        let proxy = Proxy::start(setup);
        let mut client = Client::connect(proxy.address).await;
        let response = client.ask(&get("/")).await;
        assert!(response.starts_with("HTTP/1.1 504 "), "{response}");
        assert!(
            response.contains("downstream duration timeout"),
            "{response}"
        );
    }
    // The route's setting has precedence: here no bound, so another time-out comes first.
    let unbound = Setup::new(silent().await).with(|setup| {
        setup.manager.max_stream_duration = Some(Duration::from_nanos(1));
        setup.forward.max_stream_duration = Some(None);
        setup.forward.timeout = short;
    });
    let proxy = Proxy::start(unbound);
    let mut client = Client::connect(proxy.address).await;
    let response = client.ask(&get("/")).await;
    assert!(response.contains("upstream request timeout"), "{response}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_response_that_never_ends_is_cut_and_does_not_look_complete() {
    let upstream = listen(|mut tcp, _| async move {
        let mut buffer = Vec::new();
        if read_message(&mut tcp, &mut buffer).await.is_none() {
            return;
        }
        let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
        let mut open = tcp.write_all(head.as_bytes()).await.is_ok();
        while open {
            open = tcp.write_all(b"1\r\nx\r\n").await.is_ok();
            // A slow server.
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    let setup = Setup::new(upstream).with(|setup| {
        setup.manager.max_stream_duration = Some(Duration::from_millis(100));
    });
    let proxy = Proxy::start(setup);
    let mut client = Client::connect(proxy.address).await;
    client.send(&get("/")).await;
    let response = client.rest().await;
    assert!(response.starts_with("HTTP/1.1 200 "), "{response}");
    assert!(!response.ends_with("0\r\n\r\n"), "{response}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_outlives_the_chain_it_came_by() {
    let (speak, listening) = mpsc::unbounded_channel::<Bytes>();
    let listening = Arc::new(tokio::sync::Mutex::new(listening));
    let upstream = h2(move |_, mut respond| {
        let listening = listening.clone();
        async move {
            let mut body = respond.send_response(Response::new(()), false).unwrap();
            while let Some(words) = listening.lock().await.recv().await {
                body.send_data(words, false).unwrap();
            }
            body.send_data(Bytes::new(), true).unwrap();
        }
    })
    .await;
    let setup = |upstream| {
        Setup::new(upstream)
            .speaking(UpstreamProtocol::Http2)
            .with(|setup| setup.manager.drain_timeout = Duration::from_millis(20))
    };
    let proxy = Proxy::start(setup(upstream));
    let mut client = h2_client(proxy.address).await;
    let head = Request::builder().uri("http://shop/").body(()).unwrap();
    let (answer, _) = client.send_request(head, true).unwrap();
    let mut body = answer.await.unwrap().into_body();
    speak.send("one".into()).unwrap();
    assert_eq!(body.data().await.unwrap().unwrap(), "one");

    let mut snapshot = setup(upstream).snapshot(2);
    let gone = snapshot.listeners.keys();
    let drain_time = Duration::from_secs(600);
    let removed = snapshot
        .removed
        .after(gone, |_| false, Instant::now(), drain_time);
    snapshot.removed = Arc::new(removed);
    snapshot.listeners = Default::default();
    proxy.store.publish(snapshot);
    // GOAWAY: no new stream is taken.
    while client.clone().ready().await.is_ok() {
        tokio::task::yield_now().await;
    }
    // Longer than the manager's drain time-out takes.
    tokio::time::sleep(Duration::from_millis(200)).await;
    speak.send("two".into()).unwrap();
    assert_eq!(body.data().await.unwrap().unwrap(), "two");
    drop(speak);
    assert_eq!(body.data().await.unwrap().unwrap(), "");
    assert!(body.data().await.is_none());
}

/// The kernel answers bytes to a socket that was closed with a reset, which discards what the
/// client has not read yet.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_still_sends_receives_the_answer() {
    const PIECE: usize = 64 * 1024;
    const PIECES: usize = 1024;
    let proxy = Proxy::start(Setup::new(silent().await).with(|setup| {
        setup.manager.delayed_close_timeout = Duration::from_secs(60);
    }));
    let mut client = Client::connect(proxy.address).await;
    let length = PIECE * PIECES;
    client
        .send(&format!(
            "POST / HTTP/1.1\r\nHost: shop\r\nExpect: more\r\nContent-Length: {length}\r\n\r\n"
        ))
        .await;
    for _ in 0..PIECES {
        client.tcp.write_all(&[b'x'; PIECE]).await.unwrap();
    }
    client.tcp.shutdown().await.unwrap();
    let answer = client.rest().await;
    assert!(answer.starts_with("HTTP/1.1 417 "), "{answer}");
}

/// One that never stops sending is closed when `delayed_close_timeout` is over.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_never_stops_is_closed() {
    let proxy = Proxy::start(Setup::new(silent().await).with(|setup| {
        setup.manager.delayed_close_timeout = Duration::from_millis(50);
    }));
    let mut client = Client::connect(proxy.address).await;
    client
        .send(
            "POST / HTTP/1.1\r\nHost: shop\r\nExpect: more\r\nContent-Length: 99999999999\r\n\r\n",
        )
        .await;
    let closed = async { while client.tcp.write_all(&[b'x'; 64 * 1024]).await.is_ok() {} };
    // Other time-outs are minutes.
    let limit = Duration::from_secs(20);
    tokio::time::timeout(limit, closed).await.unwrap();
}
