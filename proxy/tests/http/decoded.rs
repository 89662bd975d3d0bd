//! Requests' bodies that a filter changes as they pass: here, the decompressor.

use std::net::SocketAddr;
use std::sync::Arc;

use anyam_proxy::config::ClusterRef;
use anyam_proxy::config::filter::{
    ContentCoding, Decompression, DecompressionDirection, DecompressionLibrary, FilterConfig,
};
use anyam_proxy::config::route::{Mirror, RetryOn};
use anyam_proxy::metrics::registry::Registry;
use anyam_proxy::metrics::resource::DecompressorFamilies;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use crate::harness::{Proxy, Setup};
use crate::peers::{Client, h2_client, listen, ok, read_message};
use crate::settings::{filter, retry};

/// Decodes requests in zstd.
fn decoding(setup: Setup) -> Setup {
    let families = DecompressorFamilies::new(&Registry::new().unwrap()).unwrap();
    let direction = |name: &str| DecompressionDirection {
        enabled: true,
        ignore_no_transform: false,
        metrics: Arc::new(families.handles(name)),
    };
    let decompression = Decompression {
        algorithm: DecompressionLibrary {
            coding: ContentCoding::Zstd,
            max_ratio: 100,
            window_bits: 15,
        },
        request: direction("request"),
        advertise: false,
        response: direction("response"),
    };
    let config = FilterConfig::Decompressor(Arc::new(decompression));
    setup.with(|setup| setup.manager.filters.push(filter("decompressor", config)))
}

fn plain() -> String {
    (0..3_000).map(|number| format!("{number};")).collect()
}

fn coded(plain: &str) -> Vec<u8> {
    zstd::encode_all(plain.as_bytes(), 3).unwrap()
}

fn post(body: &[u8], length: usize) -> Vec<u8> {
    let head = format!(
        "POST / HTTP/1.1\r\nHost: shop\r\nContent-Encoding: zstd\r\nContent-Length: {length}\r\n\r\n"
    );
    [head.as_bytes(), body].concat()
}

/// The body of a message in chunks, and its trailers.
fn unchunked(message: &str) -> (String, String) {
    let (mut body, mut rest) = (String::new(), message.split_once("\r\n\r\n").unwrap().1);
    loop {
        let (size, after) = rest.split_once("\r\n").unwrap();
        let size = usize::from_str_radix(size, 16).unwrap();
        if size == 0 {
            return (body, after.trim_end().to_owned());
        }
        body.push_str(&after[..size]);
        rest = &after[size + 2..];
    }
}

/// Reports each request, and answers those of clients by `answers`: the n-th by the n-th, `None`
/// closes the connection. Copies are answered by 200.
async fn upstream(answers: Vec<Option<u16>>, told: UnboundedSender<String>) -> SocketAddr {
    let next = Arc::new(std::sync::Mutex::new(answers.into_iter()));
    listen(move |mut tcp, _| {
        let (next, told) = (next.clone(), told.clone());
        async move {
            let mut buffer = Vec::new();
            while let Some(request) = read_message(&mut tcp, &mut buffer).await {
                let answer = match request.contains("shop-shadow") {
                    true => Some(200),
                    false => next.lock().unwrap().next().unwrap(),
                };
                told.send(request).unwrap();
                let Some(status) = answer else {
                    return;
                };
                let text = ok("fine").replacen("200", &status.to_string(), 1);
                tcp.write_all(text.as_bytes()).await.unwrap();
            }
        }
    })
    .await
}

async fn requests(hear: &mut UnboundedReceiver<String>, count: usize) -> Vec<String> {
    let mut all = Vec::new();
    while all.len() < count {
        all.push(hear.recv().await.unwrap());
    }
    all
}

/// A retry decodes nothing again.
#[tokio::test(flavor = "multi_thread")]
async fn every_attempt_and_every_copy_has_the_decoded_body() {
    let (told, mut hear) = unbounded_channel();
    let upstream = upstream(vec![Some(503), None, Some(200)], told).await;
    let setup = Setup::new(upstream).with(|setup| {
        setup.forward.retry = retry(RetryOn::FIVE_XX, 3);
        setup.forward.mirrors.push(Mirror {
            cluster: ClusterRef(0),
            fraction: 1_000_000,
            keep_host: false,
        });
    });
    let proxy = Proxy::start(decoding(setup));
    let mut client = Client::connect(proxy.address).await;
    let body = coded(&plain());
    client
        .tcp
        .write_all(&post(&body, body.len()))
        .await
        .unwrap();
    let answer = client.receive().await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    let seen = requests(&mut hear, 4).await;
    let copies = seen.iter().filter(|seen| seen.contains("shop-shadow"));
    assert_eq!(copies.count(), 1);
    for request in &seen {
        assert!(!request.to_lowercase().contains("content-encoding"));
        assert_eq!(unchunked(request), (plain(), String::new()));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn trailers_of_a_request_follow_its_decoded_body() {
    let (told, mut hear) = unbounded_channel();
    let upstream = upstream(vec![Some(200)], told).await;
    let proxy = Proxy::start(decoding(Setup::new(upstream)));
    let mut client = h2_client(proxy.address).await;
    let request = http::Request::post("http://shop/").header("content-encoding", "zstd");
    let (response, mut send) = client
        .send_request(request.body(()).unwrap(), false)
        .unwrap();
    let body = coded(&plain());
    let (first, second) = body.split_at(body.len() / 2);
    for piece in [first, second] {
        send.send_data(Bytes::copy_from_slice(piece), false)
            .unwrap();
    }
    let mut trailers = HeaderMap::new();
    trailers.insert("x-sum", HeaderValue::from_static("4711"));
    send.send_trailers(trailers).unwrap();
    assert_eq!(response.await.unwrap().status(), 200);
    let seen = requests(&mut hear, 1).await;
    assert_eq!(unchunked(&seen[0]), (plain(), "x-sum: 4711".to_owned()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_breaks_off_does_not_end_as_if_it_were_whole() {
    let (told, mut hear) = unbounded_channel();
    let upstream = listen(move |mut tcp, _| {
        let told = told.clone();
        async move {
            let mut all = vec![tcp.read_u8().await.unwrap()];
            told.send(String::new()).unwrap();
            let _ = tcp.read_to_end(&mut all).await;
            told.send(String::from_utf8(all).unwrap()).unwrap();
        }
    })
    .await;
    let proxy = Proxy::start(decoding(Setup::new(upstream)));
    let body = coded(&plain());
    let mut client = Client::connect(proxy.address).await;
    let half = &body[..body.len() / 2];
    client.tcp.write_all(&post(half, body.len())).await.unwrap();
    // It disconnects once the upstream has something of it.
    requests(&mut hear, 1).await;
    drop(client);
    let seen = requests(&mut hear, 1).await;
    assert!(seen[0].starts_with("POST / "), "{}", seen[0]);
    assert!(!seen[0].ends_with("0\r\n\r\n"), "{}", seen[0]);
}

/// What an ignored upgrade follows is an ordinary request.
#[tokio::test(flavor = "multi_thread")]
async fn a_request_whose_upgrade_is_ignored_is_decoded() {
    let (told, mut hear) = unbounded_channel();
    let upstream = upstream(vec![Some(200)], told).await;
    let proxy = Proxy::start(decoding(Setup::new(upstream)));
    let mut client = Client::connect(proxy.address).await;
    let body = coded(&plain());
    let request = post(&body, body.len());
    let fields = b"POST / HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: foo/1\r\n";
    let rest = &request[b"POST / HTTP/1.1\r\n".len()..];
    let request = [fields.as_slice(), rest].concat();
    client.tcp.write_all(&request).await.unwrap();
    let answer = client.receive().await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    let seen = requests(&mut hear, 1).await;
    assert!(!seen[0].to_lowercase().contains("upgrade"), "{}", seen[0]);
    assert_eq!(unchunked(&seen[0]).0, plain());
}
