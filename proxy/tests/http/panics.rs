//! A panic costs the connection or stream that it happens in. Whatever else is under way goes on,
//! and nothing that was taken stays taken.

use std::time::Duration;

use anyam_proxy::bug;
use anyam_proxy::config::cluster::Thresholds;
use anyam_proxy::config::cluster::UpstreamProtocol;
use tokio::io::AsyncWriteExt;

use crate::harness::{Proxy, Setup};
use crate::peers::{self, Client};

/// In a request before it has a connection, while a connection is established that others wait for,
/// between a response's head and its end, and when a connection is returned to its pool.
const PLACES: [&str; 4] = ["request", "dial", "relay", "checkin"];

fn setup(upstream: std::net::SocketAddr) -> Setup {
    Setup::new(upstream).with(|setup| {
        // Requests fail once one of these is not given back.
        setup.thresholds = Thresholds {
            connections: 2,
            requests: 2,
            ..Thresholds::default()
        };
        setup.forward.timeout = Some(Duration::from_millis(300));
    })
}

/// Answers at once, `/never` never.
async fn upstream() -> std::net::SocketAddr {
    peers::listen(|mut tcp, _| async move {
        let mut buffer = Vec::new();
        while let Some(request) = peers::read_message(&mut tcp, &mut buffer).await {
            if request.starts_with("GET /never ") {
                continue;
            }
            let _ = tcp.write_all(peers::ok("ok").as_bytes()).await;
        }
    })
    .await
}

#[tokio::test]
async fn a_panic_costs_its_connection_and_nothing_else() {
    for place in PLACES {
        let before = bug::panics();
        let mut proxy = Proxy::start(setup(upstream().await));
        let mut other = Client::connect(proxy.address).await;
        // Not where this client's own request could reach the place, now or just after its
        // response.
        if !matches!(place, "dial" | "checkin") {
            other.ask(&peers::get("/")).await;
        }
        // More often than there are permits.
        for _ in 0..5 {
            proxy.panic_at(place);
            let mut client = Client::connect(proxy.address).await;
            client.send(&peers::get("/")).await;
            let cut = client.rest().await;
            // A connection is returned to the pool after the response.
            assert_eq!(cut.ends_with("ok"), place == "checkin", "{place}: {cut}");
        }
        let answer = other.ask(&peers::get("/")).await;
        assert!(answer.starts_with("HTTP/1.1 200 "), "{place}: {answer}");
        // Time passes, and time-outs fire.
        let late = other.ask(&peers::get("/never")).await;
        assert!(late.starts_with("HTTP/1.1 504 "), "{place}: {late}");
        let limits = proxy.store.load().clusters["shop"].limits.clone();
        // The last request's is given back a moment after its answer.
        let free = || (limits.try_request(), limits.try_request()).1.is_some();
        let given_back = async {
            while !free() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        let waited = tokio::time::timeout(Duration::from_secs(5), given_back).await;
        assert!(waited.is_ok(), "{place}");
        assert!(bug::panics() >= before + 5);
        let metrics = String::from_utf8(proxy.registry.expose().unwrap()).unwrap();
        let count = metrics
            .lines()
            .find_map(|line| line.strip_prefix("anyam_panics_total "));
        assert!(count.unwrap().parse::<u64>().unwrap() >= before + 5);
        // Each line of the log is whole.
        proxy.end();
    }
}

#[tokio::test]
async fn a_panic_costs_its_stream_and_not_the_others_of_its_connection() {
    for (place, protocol) in [
        ("request", UpstreamProtocol::Http1),
        ("dial", UpstreamProtocol::Http2),
        ("dialled", UpstreamProtocol::Http2),
        ("relay", UpstreamProtocol::Http1),
    ] {
        let upstream = match protocol {
            UpstreamProtocol::Http2 => {
                peers::h2(|_, mut respond| async move {
                    let _ = respond.send_response(http::Response::new(()), true);
                })
                .await
            }
            _ => upstream().await,
        };
        let mut proxy = Proxy::start(setup(upstream).speaking(protocol));
        let mut client = peers::h2_client(proxy.address).await;
        // The connection that was established then serves the other requests.
        let rounds = if place.starts_with("dial") { 1 } else { 5 };
        for _ in 0..rounds {
            proxy.panic_at(place);
            let (first, _) = client.send_request(request(), true).unwrap();
            let failed = match first.await {
                Ok(answer) => peers::try_read_all(&mut answer.into_body()).await.is_err(),
                Err(_) => true,
            };
            assert!(failed, "{place}");
            let (second, _) = client.send_request(request(), true).unwrap();
            assert_eq!(second.await.unwrap().status(), 200, "{place}");
        }
        proxy.end();
    }
}

fn request() -> http::Request<()> {
    http::Request::get("http://shop/").body(()).unwrap()
}
