//! Clients that leave, at each moment of a request, and clients that only close their half.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyam_proxy::config::cluster::UpstreamProtocol;
use anyam_proxy::config::route::RetryOn;
use socket2::{Domain, SockRef, Socket, Type};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::harness::{Proxy, Setup};
use crate::peers::{Client, get, h1, h2_client, listen, ok, read_message};
use crate::settings::retry_after;

/// What a client may have sent when it leaves.
pub const MOMENTS: [(&str, &str); 5] = [
    ("no body", "GET / HTTP/1.1\r\nHost: shop\r\n\r\n"),
    (
        "before its body",
        "POST / HTTP/1.1\r\nHost: shop\r\nContent-Length: 5\r\n\r\n",
    ),
    (
        "in its body",
        "POST / HTTP/1.1\r\nHost: shop\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n",
    ),
    (
        "after its body",
        "POST / HTTP/1.1\r\nHost: shop\r\nContent-Length: 5\r\n\r\nhello",
    ),
    (
        "after a pipelined request",
        "POST / HTTP/1.1\r\nHost: shop\r\nContent-Length: 5\r\n\r\nhello\
         GET / HTTP/1.1\r\nHost: shop\r\n\r\n",
    ),
];

/// Ends once as many requests are under way towards the upstream.
async fn under_way(proxy: &Proxy, wanted: u32, what: &str) {
    let limits = proxy.store.load().clusters["shop"].limits.clone();
    let waiting = async {
        while limits.active_requests() != wanted {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let reached = tokio::time::timeout(Duration::from_secs(20), waiting).await;
    assert!(reached.is_ok(), "{what}: not {wanted} under way");
}

/// Each client that leaves takes its request along.
async fn all_notice(proxy: &Proxy) {
    for (what, request) in MOMENTS {
        let mut client = Client::connect(proxy.address).await;
        client.send(request).await;
        under_way(proxy, 1, what).await;
        drop(client);
        under_way(proxy, 0, what).await;
    }
}

/// Accepts connections and sends nothing.
async fn silent() -> SocketAddr {
    listen(|mut tcp, _| async move {
        let _ = tcp.read_to_end(&mut Vec::new()).await;
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_upstream_is_silent() {
    all_notice(&Proxy::start(Setup::new(silent().await))).await;
    let upstream = crate::peers::h2(|_, respond| async move {
        std::future::pending::<()>().await;
        drop(respond);
    })
    .await;
    let setup = Setup::new(upstream).speaking(UpstreamProtocol::Http2);
    all_notice(&Proxy::start(setup)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_upstream_is_dialled() {
    // A queue that is full: the kernel drops further SYNs.
    let listener = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    listener
        .bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into())
        .unwrap();
    listener.listen(0).unwrap();
    let upstream = listener.local_addr().unwrap().as_socket().unwrap();
    let _fills = std::net::TcpStream::connect(upstream).unwrap();
    let setup = Setup::new(upstream).with(|setup| {
        setup.adjust = |cluster| cluster.connect_timeout = Duration::from_secs(600);
        setup.forward.timeout = None;
    });
    all_notice(&Proxy::start(setup)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn in_a_retrys_pause() {
    let upstream = listen(|mut tcp, _| async move {
        let mut byte = [0];
        tcp.read_exact(&mut byte).await.unwrap();
        let busy = "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n";
        tcp.write_all(busy.as_bytes()).await.unwrap();
        let _ = tcp.read_to_end(&mut Vec::new()).await;
    })
    .await;
    let setup = Setup::new(upstream).with(|setup| {
        setup.forward.timeout = None;
        let policy = retry_after(Duration::from_secs(1 << 30), RetryOn::FIVE_XX, 1);
        setup.forward.retry = Some(Arc::new(policy));
    });
    all_notice(&Proxy::start(setup)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reset_while_the_upstream_reads_nothing() {
    let upstream = listen(|tcp, _| async move {
        std::future::pending::<()>().await;
        drop(tcp);
    })
    .await;
    let proxy = Proxy::start(Setup::new(upstream));
    let mut client = Client::connect(proxy.address).await;
    let length = 1u64 << 32;
    client
        .send(&format!(
            "POST / HTTP/1.1\r\nHost: shop\r\nContent-Length: {length}\r\n\r\n"
        ))
        .await;
    let piece = vec![0; 1 << 20];
    let stuck = Duration::from_secs(1);
    while tokio::time::timeout(stuck, client.tcp.write_all(&piece))
        .await
        .is_ok()
    {}
    SockRef::from(&client.tcp)
        .set_linger(Some(Duration::ZERO))
        .unwrap();
    drop(client);
    under_way(&proxy, 0, "reset").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_its_client_resets() {
    let proxy = Proxy::start(Setup::new(silent().await));
    let mut client = h2_client(proxy.address).await;
    for ended in [true, false] {
        client = client.ready().await.unwrap();
        let head = http::Request::builder().uri("http://shop/").body(());
        let (answer, mut send) = client.send_request(head.unwrap(), ended).unwrap();
        under_way(&proxy, 1, "stream").await;
        send.send_reset(h2::Reason::CANCEL);
        under_way(&proxy, 0, "stream").await;
        drop(answer);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_closes_its_half_gets_its_answer() {
    let upstream = listen(|mut tcp, _| async move {
        let mut buffer = Vec::new();
        while let Some(request) = read_message(&mut tcp, &mut buffer).await {
            let wait = match request.split(' ').nth(1) {
                Some("/slow") => 3000,
                _ => 300,
            };
            // A server that needs its time.
            tokio::time::sleep(Duration::from_millis(wait)).await;
            tcp.write_all(ok("fine").as_bytes()).await.unwrap();
        }
    })
    .await;
    let proxy = Proxy::start(Setup::new(upstream));
    let post = "POST / HTTP/1.1\r\nHost: shop\r\nContent-Length: 5\r\n\r\nhello";
    for request in [
        &get("/"),
        post,
        // The request has `connection: close`.
        "GET /slow HTTP/1.1\r\nHost: shop\r\nConnection: close\r\n\r\n",
        "GET /slow HTTP/1.0\r\n\r\n",
    ] {
        let mut client = Client::connect(proxy.address).await;
        client.send(request).await;
        client.tcp.shutdown().await.unwrap();
        let answer = client.rest().await;
        assert!(answer.ends_with("fine"), "{request}: {answer:?}");
    }
    under_way(&proxy, 0, "answered").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_moves_is_not_cut_after_a_half_close() {
    let upstream = listen(|mut tcp, _| async move {
        read_message(&mut tcp, &mut Vec::new()).await;
        let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
        tcp.write_all(head.as_bytes()).await.unwrap();
        for _ in 0..8 {
            // A slow server: each pause is short, all of them are long.
            tokio::time::sleep(Duration::from_millis(400)).await;
            tcp.write_all(b"4\r\ntick\r\n").await.unwrap();
        }
        tcp.write_all(b"0\r\n\r\n").await.unwrap();
    })
    .await;
    let proxy = Proxy::start(Setup::new(upstream));
    let mut client = Client::connect(proxy.address).await;
    client.send(&get("/")).await;
    client.tcp.shutdown().await.unwrap();
    let answer = client.rest().await;
    assert_eq!(answer.matches("tick").count(), 8, "{answer}");
    assert!(answer.ends_with("0\r\n\r\n"), "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_cut_short_by_fin_is_no_request() {
    let proxy = Proxy::start(Setup::new(h1(|_| ok("fine")).await));
    let mut client = Client::connect(proxy.address).await;
    client
        .send("POST / HTTP/1.1\r\nHost: shop\r\nContent-Length: 5\r\n\r\nhel")
        .await;
    client.tcp.shutdown().await.unwrap();
    let answer = client.rest().await;
    assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
}
