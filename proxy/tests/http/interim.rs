//! Interim responses towards a client that does not read: an HTTP/1 upstream has to wait too. (In
//! HTTP/2, HEADERS are not subject to flow control, and a connection that is not read would block
//! its other streams: there they are counted as they arrive, and one too many resets the stream.)
//!
//! Runs in a network namespace of its own, with small socket buffers.

use std::any::Any;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

use anyam_proxy::config::cluster::UpstreamProtocol;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};

use crate::harness::{Proxy, Setup};
use crate::hostile2::{END_HEADERS, GOAWAY, HEADERS, PING, RST_STREAM, Raw, SETTINGS, field};
use crate::namespace::run_in_namespace;
use crate::peers::{Client, get, h1, h2_client, listen, ok, read_message};

/// The limit for one response.
const COUNT: usize = 32;
/// Bytes of one head. Half of the heads exceed all buffers in between.
const HEAD: usize = 48 << 10;
/// When nothing has been forwarded for this long, forwarding has stopped. On a slower machine less
/// is forwarded, not more.
const STANDS_STILL: Duration = Duration::from_millis(500);

/// A relay whose return direction can be blocked.
struct Gated {
    address: SocketAddr,
    /// Bytes that came back from the target and were accepted by the client's side.
    returned: watch::Receiver<usize>,
    /// While false, nothing is sent back.
    open: watch::Sender<bool>,
}

impl Gated {
    async fn to(target: SocketAddr, open: bool) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (count, returned) = watch::channel(0);
        let (open, mut opened) = watch::channel(open);
        tokio::spawn(async move {
            let (near, _) = listener.accept().await.unwrap();
            let far = TcpStream::connect(target).await.unwrap();
            let (mut near_read, mut near_write) = near.into_split();
            let (mut far_read, mut far_write) = far.into_split();
            let back = async {
                opened.wait_for(|open| *open).await.unwrap();
                let mut piece = vec![0; 4096];
                loop {
                    let read = far_read.read(&mut piece).await.unwrap_or(0);
                    if read == 0 || near_write.write_all(&piece[..read]).await.is_err() {
                        return;
                    }
                    count.send_modify(|count| *count += read);
                }
            };
            let there = tokio::io::copy(&mut near_read, &mut far_write);
            let _ = tokio::join!(back, there);
        });
        Self {
            address,
            returned,
            open,
        }
    }

    /// The bytes that were sent back, once no more follow.
    async fn still(&mut self) -> usize {
        while let Ok(Ok(())) = tokio::time::timeout(STANDS_STILL, self.returned.changed()).await {}
        *self.returned.borrow()
    }
}

/// A proxy before an upstream that sends interim responses, with a relay on either side.
async fn mesh() -> (Proxy, Gated, Gated) {
    let link = "h".repeat(HEAD);
    let text = format!("HTTP/1.1 103 Early Hints\r\nlink: {link}\r\n\r\n").repeat(COUNT);
    let text = text + &ok("done");
    let upstream = Gated::to(h1(move |_| text.clone()).await, true).await;
    let proxy = Proxy::start(Setup::new(upstream.address));
    let client = Gated::to(proxy.address, false).await;
    (proxy, upstream, client)
}

#[test]
fn interim_responses_wait_for_clients() {
    run_in_namespace("interim::http1_in_a_namespace");
    run_in_namespace("interim::http2_in_a_namespace");
    run_in_namespace("interim::endless_http1_in_a_namespace");
    run_in_namespace("interim::endless_http2_in_a_namespace");
}

/// Sets the loopback interface of the namespace up, and small socket buffers.
pub fn use_small_buffers() {
    let up = Command::new("ip")
        .args(["link", "set", "lo", "up"])
        .status();
    assert!(up.unwrap().success());
    for buffers in ["tcp_rmem", "tcp_wmem"] {
        let path = format!("/proc/sys/net/ipv4/{buffers}");
        std::fs::write(path, "4096 16384 65536").unwrap();
    }
}

#[ignore = "run by interim_responses_wait_for_clients"]
#[tokio::test(flavor = "multi_thread")]
async fn http1_in_a_namespace() {
    use_small_buffers();
    let (_proxy, mut upstream, gated) = mesh().await;
    let mut client = Client::connect(gated.address).await;
    client.send(&get("/")).await;
    let taken = upstream.still().await;
    assert!(taken > 0 && taken < COUNT * HEAD / 2, "{taken} bytes");
    gated.open.send_replace(true);
    for _ in 0..COUNT {
        assert!(client.receive().await.starts_with("HTTP/1.1 103"));
    }
    assert!(client.receive().await.ends_with("done"));
}

#[ignore = "run by interim_responses_wait_for_clients"]
#[tokio::test(flavor = "multi_thread")]
async fn http2_in_a_namespace() {
    use_small_buffers();
    let (_proxy, mut upstream, gated) = mesh().await;
    let mut client = h2_client(gated.address).await;
    let request = http::Request::get("http://shop/").body(()).unwrap();
    let (mut response, _) = client.send_request(request, true).unwrap();
    let taken = upstream.still().await;
    assert!(taken > 0 && taken < COUNT * HEAD / 2, "{taken} bytes");
    gated.open.send_replace(true);
    let mut interim = 0;
    while let Some(hints) = poll_fn(|cx| response.poll_informational(cx)).await {
        assert_eq!(hints.unwrap().status(), 103);
        interim += 1;
    }
    assert_eq!(interim, COUNT);
    assert_eq!(response.await.unwrap().status(), 200);
}

/// An upstream that never stops is read no further than the client allows, then no further than the
/// limit.
#[ignore = "run by interim_responses_wait_for_clients"]
#[tokio::test(flavor = "multi_thread")]
async fn endless_http1_in_a_namespace() {
    use_small_buffers();
    let endless = listen(|mut tcp, _| async move {
        let link = "h".repeat(HEAD);
        let hints = format!("HTTP/1.1 103 Early Hints\r\nlink: {link}\r\n\r\n");
        read_message(&mut tcp, &mut Vec::new()).await.unwrap();
        while tcp.write_all(hints.as_bytes()).await.is_ok() {}
    });
    let mut upstream = Gated::to(endless.await, true).await;
    let proxy = Proxy::start(Setup::new(upstream.address));
    let gated = Gated::to(proxy.address, false).await;
    let mut client = Client::connect(gated.address).await;
    client.send(&get("/")).await;
    let taken = upstream.still().await;
    assert!(taken > 0 && taken < COUNT * HEAD / 2, "{taken} bytes");
    gated.open.send_replace(true);
    for _ in 0..COUNT {
        assert!(client.receive().await.starts_with("HTTP/1.1 103"));
    }
    assert!(client.receive().await.starts_with("HTTP/1.1 502"));
}

/// Interim responses without end, with so many fields of 130 bytes which compression makes no smaller,
/// each once the proxy has read the one before. Fewer than cost an upstream its connection are too
/// many for a stream.
///
/// # Errors
/// When the proxy ends the connection instead of the stream. In both cases: after how many.
async fn endless_http2(tcp: TcpStream, fields: usize) -> Result<usize, usize> {
    let mut raw = Raw(tcp);
    raw.0.read_exact(&mut [0; 24]).await.unwrap();
    raw.send(SETTINGS, 0, 0, &[]).await;
    let (_, stream, _) = raw.wait_for(HEADERS).await;
    for sent in 1.. {
        let hint = |n| field("x-hint", &format!("{:~<126}", sent * 100 + n));
        let hints: Vec<_> = (0..fields).map(hint).collect();
        let hints = [field(":status", "103"), hints.concat()].concat();
        raw.send(HEADERS, END_HEADERS, stream, &hints).await;
        raw.send(PING, 0, 0, &[0; 8]).await;
        loop {
            match raw.receive().await {
                Some((RST_STREAM, _, reset, _)) if reset == stream => return Ok(sent),
                Some((GOAWAY, ..)) | None => return Err(sent),
                Some((PING, 1, ..)) => break,
                Some(_) => {}
            }
        }
    }
    unreachable!()
}

/// A request by HTTP/2; what keeps it open.
async fn ask2(address: SocketAddr) -> Box<dyn Any> {
    let mut client = h2_client(address).await;
    let request = http::Request::get("http://shop/").body(()).unwrap();
    let stream = client.send_request(request, true).unwrap();
    Box::new((client, stream))
}

/// The same by HTTP/1.
async fn ask1(address: SocketAddr) -> Box<dyn Any> {
    let mut client = Client::connect(address).await;
    client.send(&get("/")).await;
    Box::new(client)
}

#[ignore = "run by interim_responses_wait_for_clients"]
#[tokio::test(flavor = "multi_thread")]
async fn endless_http2_in_a_namespace() {
    use_small_buffers();
    // Too many in number, and before that too many bytes to wait for the client.
    for (version, fields, limit) in [
        (1, 9, COUNT + 1..2 * COUNT),
        (2, 9, COUNT + 1..2 * COUNT),
        (1, 99, 4..COUNT),
        (2, 99, 4..COUNT),
    ] {
        let (tell, mut told) = mpsc::unbounded_channel();
        let upstream = listen(move |tcp, _| {
            let tell = tell.clone();
            async move {
                let _ = tell.send(endless_http2(tcp, fields).await);
            }
        });
        let setup = Setup::new(upstream.await).speaking(UpstreamProtocol::Http2);
        let proxy = Proxy::start(setup);
        let gated = Gated::to(proxy.address, false).await;
        let _open = match version {
            1 => ask1(gated.address).await,
            _ => ask2(gated.address).await,
        };
        match told.recv().await.unwrap() {
            Ok(sent) if limit.contains(&sent) => {}
            ended => panic!("{ended:?} of {fields} fields, to a client of HTTP/{version}"),
        }
    }
}
