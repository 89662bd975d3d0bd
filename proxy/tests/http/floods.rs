//! What a peer repeats at no cost to itself, and what it costs here: control frames of HTTP/2 and
//! interim responses, from clients and from upstreams.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::time::Duration;

use anyam_proxy::config::cluster::UpstreamProtocol;
use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use crate::harness::{Proxy, Setup};
use crate::hostile2::{
    DATA, END_HEADERS, ENHANCE_YOUR_CALM, HEADERS, PING, PRIORITY, Raw, SETTINGS, WINDOW_UPDATE,
    field, frame, head, proxy, still_serves,
};
use crate::peers::{Client, get, h1, h2_client, listen, ok};

/// Interim responses that one response may have.
const MAX_INTERIM: usize = 32;

/// Frames that carry nothing.
fn control_frames() -> [(&'static str, Vec<u8>); 6] {
    [
        ("ping", frame(PING, 0, 0, &[0; 8])),
        ("pong", frame(PING, 1, 0, &[0; 8])),
        ("settings", frame(SETTINGS, 0, 0, &[])),
        ("priority", frame(PRIORITY, 0, 3, &[0, 0, 0, 0, 1])),
        (
            "window update",
            frame(WINDOW_UPDATE, 0, 0, &1u32.to_be_bytes()),
        ),
        ("an unknown type", frame(0xbe, 0, 0, &[])),
    ]
}

/// Sends `flood` repeatedly while reading; returns the code of the GOAWAY.
async fn goaway_code_after(tcp: TcpStream, flood: Vec<u8>) -> Option<u32> {
    let (reader, mut writer) = tcp.into_split();
    let writing = tokio::spawn(async move {
        let some = flood.repeat(100);
        for _ in 0..500 {
            if writer.write_all(&some).await.is_err() {
                break;
            }
            tokio::task::yield_now().await;
        }
        // The connection is for the other side to end.
        writer
    });
    let code = Raw(reader).goaway().await;
    writing.abort();
    code
}

#[tokio::test(flavor = "multi_thread")]
async fn control_frames_of_a_client_without_end_are_answered_with_calm() {
    let proxy = proxy().await;
    let empty = ("empty data", frame(DATA, 0, 1, &[]));
    for (what, flood) in control_frames().into_iter().chain([empty]) {
        let mut raw = Raw::connect(proxy.address).await;
        raw.send(HEADERS, END_HEADERS, 1, &head("/")).await;
        let code = goaway_code_after(raw.0, flood).await;
        assert_eq!(code, Some(ENHANCE_YOUR_CALM), "{what}");
        still_serves(&proxy).await;
    }
}

/// An upstream that answers the first request's head with `flood`, and reports the error code it
/// received.
async fn flooding_upstream(flood: Vec<u8>) -> (SocketAddr, UnboundedReceiver<Option<u32>>) {
    let (tell, told) = unbounded_channel();
    let address = listen(move |mut tcp: TcpStream, _| {
        let (flood, tell) = (flood.clone(), tell.clone());
        async move {
            let mut preface = [0; 24];
            tcp.read_exact(&mut preface).await.unwrap();
            let mut raw = Raw(tcp);
            raw.send(SETTINGS, 0, 0, &[]).await;
            raw.wait_for(HEADERS).await;
            let code = goaway_code_after(raw.0, flood).await;
            let _ = tell.send(code);
        }
    })
    .await;
    (address, told)
}

#[tokio::test(flavor = "multi_thread")]
async fn control_frames_of_an_upstream_without_end_are_answered_with_calm() {
    for (what, flood) in control_frames() {
        let (upstream, mut told) = flooding_upstream(flood).await;
        let proxy = Proxy::start(Setup::new(upstream).speaking(UpstreamProtocol::Http2));
        let mut client = Client::connect(proxy.address).await;
        let answer = client.ask(&get("/")).await;
        assert!(answer.starts_with("HTTP/1.1 50"), "{what}: {answer}");
        let code = told.recv().await.unwrap();
        assert_eq!(code, Some(ENHANCE_YOUR_CALM), "{what}");
    }
}

/// `:status: 103` and a field of 100 bytes, for ever.
#[tokio::test(flavor = "multi_thread")]
async fn interim_responses_without_end_cost_the_upstream_its_connection() {
    let hints = [field(":status", "103"), field("x-hint", &"h".repeat(100))].concat();
    let flood = frame(HEADERS, END_HEADERS, 1, &hints);
    let (upstream, mut told) = flooding_upstream(flood).await;
    let proxy = Proxy::start(Setup::new(upstream).speaking(UpstreamProtocol::Http2));
    let mut client = Client::connect(proxy.address).await;
    client.send(&get("/")).await;
    let mut interim = 0;
    let answer = loop {
        let answer = client.receive().await;
        if !answer.starts_with("HTTP/1.1 103") {
            break answer;
        }
        interim += 1;
    };
    assert!(interim <= MAX_INTERIM, "{interim} interim responses");
    assert!(answer.starts_with("HTTP/1.1 502"), "{answer}");
    assert_eq!(told.recv().await.unwrap(), Some(ENHANCE_YOUR_CALM));
}

/// Both protocols towards the upstream, both towards the client: so many come through, one more is
/// an error.
#[tokio::test(flavor = "multi_thread")]
async fn interim_responses_are_counted() {
    for (count, status) in [(MAX_INTERIM, 200u16), (MAX_INTERIM + 1, 502)] {
        let text = "HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n".repeat(count) + &ok("done");
        let old = h1(move |_| text.clone()).await;
        let new = crate::peers::h2(move |_, mut respond| async move {
            for _ in 0..count {
                let hints = http::Response::builder().status(103).header("link", "</a>");
                if respond.send_informational(hints.body(()).unwrap()).is_err() {
                    return;
                }
                // The proxy takes them one by one.
                tokio::task::yield_now().await;
            }
            let _ = respond
                .send_response(http::Response::new(()), false)
                .and_then(|mut body| body.send_data(Bytes::from_static(b"done"), true));
        })
        .await;
        for (upstream, protocol) in [
            (old, UpstreamProtocol::Http1),
            (new, UpstreamProtocol::Http2),
        ] {
            let proxy = Proxy::start(Setup::new(upstream).speaking(protocol));
            let mut client = Client::connect(proxy.address).await;
            client.send(&get("/")).await;
            let mut interim = 0;
            let last = loop {
                let answer = client.receive().await;
                if !answer.starts_with("HTTP/1.1 103") {
                    break answer;
                }
                interim += 1;
            };
            assert_eq!(interim, MAX_INTERIM);
            assert!(last.starts_with(&format!("HTTP/1.1 {status}")), "{last}");

            let mut send = h2_client(proxy.address).await;
            let request = http::Request::get("http://shop/").body(()).unwrap();
            let (mut response, _) = send.send_request(request, true).unwrap();
            let mut interim = 0;
            while let Some(hints) = poll_fn(|cx| response.poll_informational(cx)).await {
                assert_eq!(hints.unwrap().status(), 103);
                interim += 1;
            }
            // Where one too many has arrived, those that wait for the client are not sent any more.
            assert!(interim <= MAX_INTERIM, "{interim}");
            assert!(interim == MAX_INTERIM || status == 502, "{interim}");
            assert_eq!(response.await.unwrap().status().as_u16(), status);
        }
    }
}

/// Interim responses, however slowly they come, do not keep a request for ever.
#[tokio::test(flavor = "multi_thread")]
async fn interim_responses_do_not_move_the_idle_clock_for_ever() {
    let upstream = listen(|mut tcp: TcpStream, _| async move {
        let mut buffer = Vec::new();
        crate::peers::read_message(&mut tcp, &mut buffer).await;
        loop {
            let hints = b"HTTP/1.1 103 Early Hints\r\n\r\n";
            if tcp.write_all(hints).await.is_err() {
                return;
            }
            // A slow server.
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    let setup = Setup::new(upstream).with(|setup| {
        setup.manager.stream_idle_timeout = Some(Duration::from_millis(500));
    });
    let proxy = Proxy::start(setup);
    let mut client = Client::connect(proxy.address).await;
    client.send(&get("/")).await;
    let ended = async {
        loop {
            let answer = client.receive().await;
            if !answer.starts_with("HTTP/1.1 103") {
                return answer;
            }
        }
    };
    let ended = tokio::time::timeout(Duration::from_secs(20), ended).await;
    assert!(ended.unwrap().starts_with("HTTP/1.1 502"));
}
