//! Responses' bodies that a filter changes as they pass: here, the compressor.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use anyam_proxy::config::cluster::UpstreamProtocol;
use anyam_proxy::config::filter::{
    CommonDirection, Compression, CompressionLibrary, EtagPolicy, FilterConfig,
    ResponseCompression, ZstdParameters,
};
use anyam_proxy::metrics::CompressorMetrics;
use anyam_proxy::metrics::registry::Registry;
use anyam_proxy::metrics::resource::CompressorFamilies;
use brotli::enc::BrotliEncoderParams;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::Notify;
use zlib_rs::{DeflateConfig, Inflate, InflateFlush, Status};

use crate::harness::{Proxy, Setup};
use crate::peers::{Client, get, h1, h2, h2_client, listen, read_all, read_message};
use crate::settings::filter;

/// When an upstream could write nothing for this long, it is not read. On a slower machine less is
/// read, not more.
const STANDS_STILL: Duration = Duration::from_millis(500);

fn gzip() -> CompressionLibrary {
    CompressionLibrary::Gzip(DeflateConfig {
        window_bits: 12 + 16,
        mem_level: 5,
        ..DeflateConfig::new(6)
    })
}

/// Compresses all responses; its counters.
fn compressing(setup: Setup, library: CompressionLibrary) -> (Setup, Arc<CompressorMetrics>) {
    let families = CompressorFamilies::new(&Registry::new().unwrap()).unwrap();
    let metrics = Arc::new(families.handles("test"));
    let compression = Compression {
        algorithm: library,
        choose_first: false,
        request: None,
        response: ResponseCompression {
            common: CommonDirection {
                enabled: true,
                min_length: 30,
                content_types: vec![anyam_proxy::matcher::StringMatch::Prefix {
                    value: "".into(),
                    ignore_case: false,
                }],
                metrics: metrics.clone(),
            },
            etag: EtagPolicy::Remove,
            remove_accept_encoding: false,
            uncompressible: Vec::new(),
        },
    };
    let compressor = filter(
        "compressor",
        FilterConfig::Compressor(Arc::new(compression)),
    );
    let setup = setup.with(|setup| setup.manager.filters.push(compressor));
    (setup, metrics)
}

fn asking(coding: &str) -> String {
    format!("GET / HTTP/1.1\r\nHost: shop\r\nAccept-Encoding: {coding}\r\n\r\n")
}

/// A gzip stream that is decoded as it comes.
struct Gunzip(Inflate);

impl Gunzip {
    fn new() -> Self {
        Self(Inflate::new(true, 15 + 16))
    }

    /// What a piece adds, and whether the stream is over.
    fn take(&mut self, coded: &[u8]) -> (Vec<u8>, bool) {
        let mut plain = vec![0; 8 << 20];
        let before = self.0.total_out();
        let status = self.0.decompress(coded, &mut plain, InflateFlush::NoFlush);
        plain.truncate((self.0.total_out() - before) as usize);
        (plain, status.unwrap() == Status::StreamEnd)
    }
}

/// Reads a head.
async fn head(tcp: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(tcp.read_u8().await.unwrap());
    }
    String::from_utf8(head).unwrap()
}

/// Reads a chunk; empty: the last one.
async fn chunk(tcp: &mut TcpStream) -> Vec<u8> {
    let mut size = Vec::new();
    while !size.ends_with(b"\r\n") {
        size.push(tcp.read_u8().await.unwrap());
    }
    let size = usize::from_str_radix(std::str::from_utf8(&size).unwrap().trim(), 16).unwrap();
    let mut chunk = vec![0; size + 2];
    tcp.read_exact(&mut chunk).await.unwrap();
    chunk.truncate(size);
    chunk
}

/// An upstream that sends its body in two pieces, the second once `more` is notified; then it ends the
/// body in order, or closes the connection before the body's end.
async fn in_two(more: Arc<Notify>, ends: bool) -> SocketAddr {
    listen(move |mut tcp, _| {
        let more = more.clone();
        async move {
            let mut buffer = Vec::new();
            while read_message(&mut tcp, &mut buffer).await.is_some() {
                let first = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n";
                tcp.write_all(first.as_bytes()).await.unwrap();
                more.notified().await;
                tcp.write_all(b"7\r\n, later\r\n").await.unwrap();
                if !ends {
                    return;
                }
                tcp.write_all(b"0\r\n\r\n").await.unwrap();
            }
        }
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_upstream_has_sent_is_not_held_back() {
    let more = Arc::new(Notify::new());
    let (setup, metrics) = compressing(Setup::new(in_two(more.clone(), true).await), gzip());
    let proxy = Proxy::start(setup);
    let mut tcp = TcpStream::connect(proxy.address).await.unwrap();
    tcp.write_all(asking("gzip").as_bytes()).await.unwrap();
    let head = head(&mut tcp).await.to_lowercase();
    assert!(head.contains("\r\ncontent-encoding: gzip\r\n"), "{head}");
    assert!(
        head.contains("\r\ntransfer-encoding: chunked\r\n"),
        "{head}"
    );
    assert!(!head.contains("content-length"), "{head}");
    let (mut gunzip, mut plain) = (Gunzip::new(), Vec::new());
    while plain != b"first" {
        plain.extend(gunzip.take(&chunk(&mut tcp).await).0);
    }
    more.notify_one();
    let mut is_over = false;
    loop {
        let piece = chunk(&mut tcp).await;
        if piece.is_empty() {
            break;
        }
        let (more, over) = gunzip.take(&piece);
        plain.extend(more);
        is_over |= over;
    }
    assert!(is_over && plain == b"first, later");
    assert_eq!(metrics.compressed.get(), 1);
    assert_eq!(metrics.total_uncompressed_bytes.get(), 12);
    assert!(metrics.total_compressed_bytes.get() > 12);
    // The connection goes on, and what is not asked for in gzip passes as it is.
    more.notify_one();
    tcp.write_all(asking("br").as_bytes()).await.unwrap();
    let head = self::head(&mut tcp).await.to_lowercase();
    assert!(!head.contains("content-encoding"), "{head}");
    assert_eq!(metrics.header_not_valid.get(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_breaks_off_does_not_end_as_if_it_were_whole() {
    let more = Arc::new(Notify::new());
    let (setup, _) = compressing(Setup::new(in_two(more.clone(), false).await), gzip());
    let proxy = Proxy::start(setup);
    let mut tcp = TcpStream::connect(proxy.address).await.unwrap();
    tcp.write_all(asking("gzip").as_bytes()).await.unwrap();
    head(&mut tcp).await;
    more.notify_one();
    let mut rest = Vec::new();
    let _ = tcp.read_to_end(&mut rest).await;
    assert!(!rest.ends_with(b"0\r\n\r\n"));
}

/// gRPC's status travels in trailers, after all of the body.
#[tokio::test(flavor = "multi_thread")]
async fn trailers_follow_the_last_bytes() {
    let upstream = h2(|_, mut respond| async move {
        let mut response = Response::new(());
        let length = HeaderValue::from_static("3000");
        response.headers_mut().insert("content-length", length);
        let mut send = respond.send_response(response, false).unwrap();
        for _ in 0..3 {
            send.send_data(Bytes::from(vec![b'a'; 1000]), false)
                .unwrap();
        }
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", HeaderValue::from_static("0"));
        send.send_trailers(trailers).unwrap();
    })
    .await;
    let setup = Setup::new(upstream).speaking(UpstreamProtocol::Http2);
    let (setup, _) = compressing(setup, gzip());
    let proxy = Proxy::start(setup);
    let mut client = h2_client(proxy.address).await;
    let request = http::Request::get("http://shop/").header("accept-encoding", "gzip");
    let (response, _) = client
        .send_request(request.body(()).unwrap(), true)
        .unwrap();
    let response = response.await.unwrap();
    assert_eq!(response.headers()["content-encoding"], "gzip");
    assert!(!response.headers().contains_key("content-length"));
    let mut body = response.into_body();
    let coded = read_all(&mut body).await;
    assert_eq!(Gunzip::new().take(&coded), (vec![b'a'; 3000], true));
    let trailers = body.trailers().await.unwrap().unwrap();
    assert_eq!(trailers["grpc-status"], "0");
}

/// An upstream of noise without end; how many bytes of it were taken.
async fn noise(taken: Arc<AtomicUsize>) -> SocketAddr {
    listen(move |mut tcp, _| {
        let taken = taken.clone();
        async move {
            read_message(&mut tcp, &mut Vec::new()).await;
            tcp.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
            let mut random = fastrand::Rng::with_seed(5);
            let mut piece = vec![0; 64 << 10];
            loop {
                // Anew each time: what repeats is not noise to a coding with a long window.
                random.fill(&mut piece);
                let Ok(written) = tcp.write(&piece).await else {
                    return;
                };
                taken.fetch_add(written, SeqCst);
            }
        }
    })
    .await
}

/// A client that does not read stops the reading of the upstream, for each library.
#[tokio::test(flavor = "multi_thread")]
async fn a_slow_client_slows_the_upstream() {
    let zstd = ZstdParameters {
        level: 3,
        checksum: false,
        strategy: None,
    };
    // As configured with the largest window.
    let brotli = BrotliEncoderParams {
        quality: 5,
        lgwin: 24,
        lgblock: 18,
        ..BrotliEncoderParams::default()
    };
    for (coding, library) in [
        ("gzip", gzip()),
        ("br", CompressionLibrary::Brotli(Box::new(brotli))),
        ("zstd", CompressionLibrary::Zstd(zstd)),
    ] {
        let taken = Arc::new(AtomicUsize::new(0));
        let (setup, metrics) = compressing(Setup::new(noise(taken.clone()).await), library);
        let proxy = Proxy::start(setup);
        let mut tcp = TcpStream::connect(proxy.address).await.unwrap();
        tcp.write_all(asking(coding).as_bytes()).await.unwrap();
        let mut seen = usize::MAX;
        while taken.load(SeqCst) != seen || seen == 0 {
            seen = taken.load(SeqCst);
            tokio::time::sleep(STANDS_STILL).await;
        }
        // What the proxy itself has read and not written, beside the kernel's buffers.
        let head = head(&mut tcp).await.to_lowercase();
        assert!(
            head.contains(&format!("content-encoding: {coding}\r\n")),
            "{head}"
        );
        let (plain, coded) = (
            metrics.total_uncompressed_bytes.get(),
            metrics.total_compressed_bytes.get(),
        );
        assert!(plain < 32 << 20, "{coding}: {plain}");
        assert!(
            plain - coded.min(plain) < 8 << 20,
            "{coding}: {plain} {coded}"
        );
        // And it goes on when the client does.
        let mut piece = vec![0; 64 << 10];
        let mut read = 0;
        while read < 16 << 20 {
            let more = tcp.read(&mut piece).await.unwrap();
            assert!(more > 0, "{coding}: {read}");
            read += more;
        }
    }
}

/// Where no filter wants the body it passes through a pipe, also beside one that a filter has.
#[tokio::test(flavor = "multi_thread")]
async fn other_bodies_are_spliced_as_before() {
    const LONG: usize = 4 << 20;
    let body = "b".repeat(LONG);
    let upstream = h1(move |_| crate::peers::ok(&body)).await;
    let (setup, metrics) = compressing(Setup::new(upstream), gzip());
    let proxy = Proxy::start(setup);
    // The pipe is counted when it is taken, before any byte of it reaches the client.
    let pipes = || {
        let text = String::from_utf8(proxy.registry.expose().unwrap()).unwrap();
        let mut values = text
            .lines()
            .filter_map(|line| line.strip_prefix("anyam_splice_pipes_taken_total "));
        values
            .next()
            .map_or(0.0, |value| value.parse::<f64>().unwrap())
    };
    let mut tcp = TcpStream::connect(proxy.address).await.unwrap();
    tcp.write_all(asking("gzip").as_bytes()).await.unwrap();
    head(&mut tcp).await;
    let (mut gunzip, mut length) = (Gunzip::new(), 0);
    loop {
        let piece = chunk(&mut tcp).await;
        if piece.is_empty() {
            break;
        }
        length += gunzip.take(&piece).0.len();
    }
    assert_eq!(length, LONG);
    assert_eq!(pipes(), 0.0);
    let mut client = Client::connect(proxy.address).await;
    let answer = client.ask(&get("/")).await;
    assert!(answer.len() > LONG && answer.ends_with("bbb"));
    assert!(pipes() > 0.0);
    assert_eq!(metrics.no_accept_header.get(), 1);
    assert_eq!(
        (metrics.compressed.get(), metrics.not_compressed.get()),
        (1, 1)
    );
}

/// A response made here has its length, since all of it is here.
#[tokio::test(flavor = "multi_thread")]
async fn a_local_reply_is_compressed_whole() {
    // Bound, so that no other test gets it, and not listening.
    let closed = TcpSocket::new_v4().unwrap();
    closed.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = closed.local_addr().unwrap();
    let (setup, _) = compressing(Setup::new(address), gzip());
    let proxy = Proxy::start(setup);
    let mut tcp = TcpStream::connect(proxy.address).await.unwrap();
    tcp.write_all(asking("gzip").as_bytes()).await.unwrap();
    let head = head(&mut tcp).await.to_lowercase();
    assert!(head.starts_with("http/1.1 503 "), "{head}");
    let length = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length: "));
    let mut coded = vec![0; length.unwrap().parse().unwrap()];
    tcp.read_exact(&mut coded).await.unwrap();
    let mut plain = String::new();
    let (bytes, over) = Gunzip::new().take(&coded);
    std::io::Read::read_to_string(&mut bytes.as_slice(), &mut plain).unwrap();
    assert!(
        over && plain.ends_with("remote connection failure"),
        "{plain}"
    );
}
