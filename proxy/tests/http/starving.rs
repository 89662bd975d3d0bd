//! Limits of connections, of a cluster and of a listener, when other endpoints or workers need a
//! connection.

use std::net::SocketAddr;
use std::time::Duration;

use anyam_proxy::config::cluster::Thresholds;
use anyam_proxy::config::cluster::UpstreamProtocol;
use anyam_proxy::connection_limit::ConnectionLimit;
use bytes::Bytes;
use http::{Request, Response};

use crate::harness::{Proxy, Setup};
use crate::peers::{Client, get, h1, h2, h2_client, listen, ok, read_message};

/// Far less than what idle connections are kept for.
const SOON: Duration = Duration::from_secs(8);

fn limited(upstreams: Vec<SocketAddr>, connections: u32) -> Setup {
    Setup::new(upstreams[0]).with(|setup| {
        setup.upstreams = upstreams;
        setup.thresholds = Thresholds {
            connections,
            ..Thresholds::default()
        };
    })
}

async fn asked(client: &mut Client, path: &str) -> String {
    let answer = tokio::time::timeout(SOON, client.ask(&get(path))).await;
    answer.expect("the request starves")
}

/// Ends once so many connections are open.
async fn open(proxy: &Proxy, most: u32) {
    let limits = proxy.store.load().clusters["shop"].limits.clone();
    let waiting = async {
        while limits.active_connections() > most {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let closed = tokio::time::timeout(SOON, waiting).await;
    assert!(closed.is_ok(), "{} open", limits.active_connections());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_connection_gives_way_to_another_endpoint() {
    let (one, two) = (h1(|_| ok("one")).await, h1(|_| ok("two")).await);
    let proxy = Proxy::start(limited(vec![one, two], 1));
    let mut client = Client::connect(proxy.address).await;
    let mut seen = Vec::new();
    for _ in 0..10 {
        seen.push(asked(&mut client, "/").await.ends_with("one"));
    }
    assert!(seen.contains(&true) && seen.contains(&false));
    open(&proxy, 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn so_does_one_of_http2() {
    let serve = |request: Request<h2::RecvStream>, mut respond: h2::server::SendResponse<Bytes>| async move {
        drop(request);
        let _ = respond.send_response(Response::new(()), true);
    };
    let (one, two) = (h2(serve).await, h2(serve).await);
    let proxy = Proxy::start(limited(vec![one, two], 1).speaking(UpstreamProtocol::Http2));
    let mut client = h2_client(proxy.address).await;
    for _ in 0..10 {
        client = client.ready().await.unwrap();
        let head = Request::builder().uri("http://shop/").body(()).unwrap();
        let (answer, _) = client.send_request(head, true).unwrap();
        let answer = tokio::time::timeout(SOON, answer).await;
        let answer = answer.expect("the request starves").unwrap();
        assert_eq!(answer.status(), 200);
    }
    open(&proxy, 1).await;
}

/// A listener's limit counts the connections to all clusters.
#[tokio::test(flavor = "multi_thread")]
async fn an_idle_connection_is_closed_under_the_listener_s_limit() {
    for protocol in [UpstreamProtocol::Http1, UpstreamProtocol::Http2] {
        let serve = |_: Request<h2::RecvStream>, mut respond: h2::server::SendResponse<Bytes>| async move {
            let mut body = respond.send_response(Response::new(()), false).unwrap();
            body.send_data("fine".into(), true).unwrap();
        };
        let upstreams = match protocol {
            UpstreamProtocol::Http2 => vec![h2(serve).await, h2(serve).await],
            _ => vec![h1(|_| ok("fine")).await, h1(|_| ok("fine")).await],
        };
        let setup = limited(upstreams, u32::MAX).speaking(protocol);
        let proxy = Proxy::start(setup.with(|setup| {
            setup.upstream_limit = Some(ConnectionLimit::new(1));
        }));
        let second = proxy.another_worker();
        let mut clients = [
            Client::connect(proxy.address).await,
            Client::connect(second.address).await,
        ];
        for place in [0, 0, 0, 1, 1, 0] {
            let answer = asked(&mut clients[place], "/").await;
            assert!(answer.contains("fine"), "{answer}");
        }
        open(&proxy, 1).await;
    }
}

/// At a listener's limit a request waits for as long as a connection may take to be established.
#[tokio::test(flavor = "multi_thread")]
async fn a_request_beyond_the_listener_s_limit_is_refused() {
    let silent = listen(|mut tcp, _| async move {
        read_message(&mut tcp, &mut Vec::new()).await;
        std::future::pending().await
    })
    .await;
    let setup = limited(vec![silent, silent], u32::MAX).with(|setup| {
        setup.upstream_limit = Some(ConnectionLimit::new(1));
        setup.adjust = |cluster| cluster.connect_timeout = Duration::from_millis(200);
    });
    let proxy = Proxy::start(setup);
    let mut first = Client::connect(proxy.address).await;
    first.send(&get("/")).await;
    let limits = proxy.store.load().clusters["shop"].limits.clone();
    while limits.active_connections() == 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let answer = asked(&mut Client::connect(proxy.address).await, "/").await;
    assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
    assert!(answer.ends_with("reset reason: overflow"), "{answer}");
}

/// A busy connection is not returned soon, so an endpoint without a connection may have one beyond
/// the limit.
#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_without_a_connection_may_have_one() {
    let silent = listen(|mut tcp, _| async move {
        read_message(&mut tcp, &mut Vec::new()).await;
        std::future::pending().await
    })
    .await;
    let live = h1(|_| ok("live")).await;
    let proxy = Proxy::start(limited(vec![silent, live], 1));
    let mut waiting = Vec::new();
    let mut answered = false;
    for _ in 0..2 {
        let mut client = Client::connect(proxy.address).await;
        client.send(&get("/")).await;
        let answer = tokio::time::timeout(Duration::from_secs(2), client.receive()).await;
        answered |= answer.is_ok_and(|answer| answer.ends_with("live"));
        waiting.push(client);
    }
    assert!(answered);
}

#[tokio::test(flavor = "multi_thread")]
async fn idle_connections_of_another_worker_keep_none_away() {
    let upstream = listen(|mut tcp, _| async move {
        let mut buffer = Vec::new();
        while let Some(request) = read_message(&mut tcp, &mut buffer).await {
            if request.starts_with("GET /held") {
                return std::future::pending().await;
            }
            let _ = tokio::io::AsyncWriteExt::write_all(&mut tcp, ok("fine").as_bytes()).await;
        }
    })
    .await;
    let first = Proxy::start(limited(vec![upstream], 2));
    let second = first.another_worker();
    // Two that stay idle on the first worker.
    let asking = (0..2).map(|_| async {
        let mut client = Client::connect(first.address).await;
        asked(&mut client, "/").await
    });
    for answer in futures_util::future::join_all(asking).await {
        assert!(answer.ends_with("fine"), "{answer}");
    }
    // The second holds one, and needs another.
    let mut held = Client::connect(second.address).await;
    held.send(&get("/held")).await;
    let mut client = Client::connect(second.address).await;
    assert!(asked(&mut client, "/").await.ends_with("fine"));
    open(&first, 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_workers_share_one_connection_without_starving() {
    let upstream = h1(|_| ok("fine")).await;
    let first = Proxy::start(limited(vec![upstream], 1));
    let second = first.another_worker();
    for _ in 0..5 {
        for proxy in [&first, &second] {
            let mut client = Client::connect(proxy.address).await;
            assert!(asked(&mut client, "/").await.ends_with("fine"));
        }
    }
    open(&first, 1).await;
}
