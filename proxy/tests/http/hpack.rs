//! What enters HPACK's dynamic table, by the bytes that reach an upstream.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyam_proxy::config::cluster::UpstreamProtocol;
use http::Response;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::harness::{Proxy, Setup};
use crate::peers::{Client, listen};

/// Bytes that three equal requests with this header bring to an upstream after the first of them.
async fn bytes_of_repeats(header: &str) -> usize {
    let received = Arc::new(AtomicUsize::new(0));
    let count = received.clone();
    let upstream = listen(move |tcp, _| {
        let count = count.clone();
        async move {
            let (near, far) = tokio::io::duplex(1 << 16);
            let ((mut from, mut to), (mut inward, mut outward)) =
                (tokio::io::split(tcp), tokio::io::split(far));
            let reading = async {
                let mut room = [0; 4096];
                loop {
                    let read = from.read(&mut room).await.unwrap();
                    count.fetch_add(read, Ordering::SeqCst);
                    if read == 0 || outward.write_all(&room[..read]).await.is_err() {
                        return;
                    }
                }
            };
            let serving = async {
                let mut connection = h2::server::handshake(near).await.unwrap();
                while let Some(Ok((_, mut respond))) = connection.accept().await {
                    let response = Response::builder().body(()).unwrap();
                    respond.send_response(response, true).unwrap();
                }
            };
            tokio::join!(reading, serving, tokio::io::copy(&mut inward, &mut to))
                .2
                .unwrap();
        }
    })
    .await;
    let proxy = Proxy::start(Setup::new(upstream).speaking(UpstreamProtocol::Http2));
    let mut client = Client::connect(proxy.address).await;
    let value = "v".repeat(800);
    let request = format!("GET / HTTP/1.1\r\nhost: shop\r\n{header}: {value}\r\n\r\n");
    client.ask(&request).await;
    let first = received.load(Ordering::SeqCst);
    client.ask(&request).await;
    client.ask(&request).await;
    received.load(Ordering::SeqCst) - first
}

/// HPACK's table is for what comes again.
#[tokio::test(flavor = "multi_thread")]
async fn what_no_other_request_has_stays_out_of_hpacks_table() {
    assert!(bytes_of_repeats("x-usual").await < 400);
    for unique in ["x-request-id", "traceparent"] {
        let bytes = bytes_of_repeats(unique).await;
        assert!(bytes > 1000, "{unique}: {bytes}");
    }
}
