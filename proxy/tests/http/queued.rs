//! How much the streams of one connection queue for a client that sends no WINDOW_UPDATE.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use anyam_proxy::config::cluster::UpstreamProtocol;
use bytes::Bytes;
use futures_util::future::join_all;
use http::{Request, Response};
use tokio::net::TcpStream;

use crate::harness::{Proxy, Setup};
use crate::peers::h2;

const STREAMS: usize = 200;
/// Bytes that the upstream may send on each stream without WINDOW_UPDATE.
const WINDOW: usize = 65_535;
/// Bytes of a DATA frame.
const PIECE: usize = 16 << 10;
/// What all streams of a connection may queue, besides a piece for each.
const QUEUE: usize = 1 << 20;

/// Sends on each stream as much as its window allows, and counts the bytes.
async fn pouring(sent: Arc<AtomicUsize>) -> SocketAddr {
    h2(move |_, mut respond| {
        let sent = sent.clone();
        async move {
            let mut body = respond.send_response(Response::new(()), false).unwrap();
            loop {
                body.reserve_capacity(PIECE);
                let Some(Ok(room)) = poll_fn(|cx| body.poll_capacity(cx)).await else {
                    return;
                };
                if body.send_data(Bytes::from(vec![0; room]), false).is_err() {
                    return;
                }
                sent.fetch_add(room, SeqCst);
            }
        }
    })
    .await
}

/// The number once it is stable.
async fn settled(sent: &AtomicUsize) -> usize {
    let mut before = 0;
    loop {
        tokio::time::sleep(Duration::from_millis(300)).await;
        let now = sent.load(SeqCst);
        if now == before && now > 0 {
            return now;
        }
        before = now;
    }
}

async fn answered(
    mut send: h2::client::SendRequest<Bytes>,
) -> (h2::client::SendRequest<Bytes>, h2::RecvStream) {
    send = send.ready().await.unwrap();
    let head = Request::builder().uri("http://shop/").body(()).unwrap();
    let (answer, _) = send.send_request(head, true).unwrap();
    (send, answer.await.unwrap().into_body())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_streams_of_a_connection_queue_little_for_a_client_that_does_not_read() {
    let sent = Arc::new(AtomicUsize::new(0));
    let upstream = pouring(sent.clone()).await;
    let setup = Setup::new(upstream).speaking(UpstreamProtocol::Http2);
    let proxy = Proxy::start(setup.with(|setup| {
        setup.manager.http2.max_concurrent_streams = 1000;
        // The client waits as long as it takes until nothing moves.
        setup.forward.timeout = None;
        setup.adjust = |cluster| {
            cluster.http2.max_concurrent_streams = 1000;
            cluster.http2.initial_stream_window = WINDOW as u32;
            cluster.http2.initial_connection_window = 1 << 30;
        };
    }));
    let tcp = TcpStream::connect(proxy.address).await.unwrap();
    let mut builder = h2::client::Builder::new();
    // The connection's window of 64 KiB is never enlarged, so all bytes beyond it are queued.
    builder.initial_window_size(1 << 20);
    let (mut send, connection) = builder.handshake::<_, Bytes>(tcp).await.unwrap();
    tokio::spawn(connection);
    let mut bodies = Vec::new();
    for _ in 0..STREAMS {
        let (again, body) = answered(send).await;
        send = again;
        bodies.push(body);
    }
    let taken = settled(&sent).await - STREAMS * WINDOW;
    let most = QUEUE + STREAMS * PIECE + WINDOW;
    assert!(taken <= most, "{taken} bytes are queued");
    // Each stream continues once the client reads.
    let reading = bodies.into_iter().map(|mut body| async move {
        let mut left = 2 * WINDOW;
        while left > 0 {
            let data = body.data().await.unwrap().unwrap();
            let _ = body.flow_control().release_capacity(data.len());
            left = left.saturating_sub(data.len());
        }
    });
    let all = tokio::time::timeout(Duration::from_secs(30), join_all(reading)).await;
    assert!(all.is_ok(), "a stream starves");
}
