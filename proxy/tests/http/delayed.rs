//! Clients that leave while a fault delays their request, whatever they have sent of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::Duration;

use anyam_proxy::config::filter::FilterConfig;

use crate::harness::{Proxy, Setup};
use crate::leaving::MOMENTS;
use crate::peers::{Client, h1, ok};
use crate::settings::{delay, filter};

/// A proxy that delays every request for an hour, and the number of requests that are being
/// delayed.
async fn delaying() -> (Proxy, Arc<AtomicU32>) {
    let active = Arc::<AtomicU32>::default();
    let fault = delay(Duration::from_secs(3600), active.clone());
    let setup = Setup::new(h1(|_| ok("fine")).await).with(|setup| {
        let fault = FilterConfig::Fault(Arc::new(fault));
        setup.manager.filters.push(filter("fault", fault));
    });
    (Proxy::start(setup), active)
}

async fn until_delayed(active: &AtomicU32, wanted: u32, what: &str) {
    let waiting = async {
        while active.load(Relaxed) != wanted {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let reached = tokio::time::timeout(Duration::from_secs(20), waiting).await;
    assert!(reached.is_ok(), "{what}: not {wanted} delayed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delay_ends_when_its_client_has_left() {
    let (mut proxy, active) = delaying().await;
    for (what, request) in MOMENTS {
        let mut client = Client::connect(proxy.address).await;
        client.send(request).await;
        until_delayed(&active, 1, what).await;
        drop(client);
        until_delayed(&active, 0, what).await;
        let seen = proxy.tap.recv().await.unwrap();
        assert_eq!((seen.status, &*seen.flags), (0, "DI,DC"), "{what}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delay_ends_with_its_stream_or_its_streams_connection() {
    let (mut proxy, active) = delaying().await;
    for resets in [true, false] {
        for (what, ended, body) in [
            ("no body", true, ""),
            ("before its body", false, ""),
            ("in its body", false, "abc"),
        ] {
            let tcp = tokio::net::TcpStream::connect(proxy.address).await.unwrap();
            let (client, connection) = h2::client::handshake(tcp).await.unwrap();
            let connection = tokio::spawn(connection);
            let head = http::Request::builder().uri("http://shop/").body(());
            let mut client = client.ready().await.unwrap();
            let (answer, mut send) = client.send_request(head.unwrap(), ended).unwrap();
            if !body.is_empty() {
                send.send_data(bytes::Bytes::from(body), false).unwrap();
            }
            until_delayed(&active, 1, what).await;
            let flags = if resets {
                send.send_reset(h2::Reason::CANCEL);
                "DI,DR"
            } else {
                connection.abort();
                "DI,DC"
            };
            until_delayed(&active, 0, what).await;
            let seen = proxy.tap.recv().await.unwrap();
            assert_eq!((seen.status, &*seen.flags), (0, flags), "{what} {resets}");
            drop((answer, send));
        }
    }
}
