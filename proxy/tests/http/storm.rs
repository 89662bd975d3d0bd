//! Mutated bytes at the whole proxy, with everything on: logs with every operator, a tap, retries and
//! mirrors. Whatever comes in on either side, in either protocol, the worker does not panic, no head
//! is left pointing outside of its bytes, and the next request is served.
//!
//! A test by its seed; a fuzzer for `ANYAM_FUZZ_MINUTES` (`make fuzz MINUTES=n`).

use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyam_proxy::bug;
use anyam_proxy::config::cluster::UpstreamProtocol;
use anyam_proxy::config::route::{RetryOn, RetryPolicy};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::harness::{Proxy, Setup};
use crate::peers;

/// Inputs of each kind in a test.
const ROUNDS: usize = 150;
/// At once.
const BATCH: usize = 16;
/// A peer that has been silent this long is taken to be done.
const QUIET: Duration = Duration::from_millis(200);

const WORDS: [&[u8]; 16] = [
    b"\n",
    b"\r",
    b"\r\n\r\n",
    b"\0",
    b":",
    b" ",
    b"%2e%2e/",
    b"//",
    b"Content-Length: 5\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"Content-Type: application/grpc\r\n",
    b"grpc-status: 0\r\n",
    b"Connection: close, x\r\n",
    b"Upgrade: websocket\r\n",
    b"Expect: 100-continue\r\n",
    b"HTTP/1.0",
];

/// Until the time is over, or so many rounds were.
struct Rounds {
    rng: fastrand::Rng,
    left: usize,
    until: Option<Instant>,
}

impl Rounds {
    fn new() -> Self {
        let minutes = std::env::var("ANYAM_FUZZ_MINUTES").ok();
        let minutes = minutes.map(|text| text.parse::<u64>().unwrap());
        let seed = match minutes {
            Some(_) => fastrand::u64(..),
            None => 1,
        };
        eprintln!("seed {seed}");
        Self {
            rng: fastrand::Rng::with_seed(seed),
            left: ROUNDS / BATCH,
            until: minutes.map(|minutes| Instant::now() + Duration::from_secs(60 * minutes)),
        }
    }

    fn next(&mut self, corpus: &[Vec<u8>]) -> Option<Vec<Vec<u8>>> {
        let over = match self.until {
            Some(until) => Instant::now() >= until,
            None => self.left == 0,
        };
        self.left = self.left.saturating_sub(1);
        (!over).then(|| (0..BATCH).map(|_| mutated(corpus, &mut self.rng)).collect())
    }
}

fn mutated(corpus: &[Vec<u8>], rng: &mut fastrand::Rng) -> Vec<u8> {
    let mut bytes = corpus[rng.usize(..corpus.len())].clone();
    for _ in 0..rng.usize(0..4) {
        let at = rng.usize(..=bytes.len());
        let end = (at + rng.usize(..16)).min(bytes.len());
        match rng.u8(0..6) {
            0 if at < bytes.len() => bytes[at] = rng.u8(..),
            1 => drop(bytes.drain(at..end)),
            2 => {
                let piece = bytes[at..end].to_vec();
                bytes.splice(at..at, piece);
            }
            3 => {
                let other = &corpus[rng.usize(..corpus.len())];
                bytes.truncate(at);
                bytes.extend_from_slice(&other[rng.usize(..=other.len())..]);
            }
            4 if rng.u8(..) < 16 => {
                bytes.splice(at..at, std::iter::repeat_n(b'x', 70 << 10));
            }
            _ => {
                bytes.splice(at..at, WORDS[rng.usize(..WORDS.len())].iter().copied());
            }
        }
    }
    bytes
}

fn corpus(name: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("fuzz/corpus")
        .join(name);
    let mut paths: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    paths.sort();
    paths
        .iter()
        .map(|path| std::fs::read(path).unwrap())
        .collect()
}

fn frame(kind: u8, flags: u8, stream: u8, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let head = [
        length[1], length[2], length[3], kind, flags, 0, 0, 0, stream,
    ];
    [&head[..], payload].concat()
}

/// The frames that an HTTP/2 peer may send after SETTINGS, as a client or as a server.
fn frames(first: &[u8], block: &[u8]) -> Vec<Vec<u8>> {
    let settings = [first, &frame(4, 0, 0, &[])].concat();
    let trailers = b"\x00\x0bgrpc-status\x010";
    let streams = [
        vec![frame(1, 5, 1, block)],
        vec![frame(1, 4, 1, block), frame(0, 1, 1, b"body")],
        vec![
            frame(1, 4, 1, block),
            frame(0, 0, 1, b"b"),
            frame(1, 5, 1, trailers),
        ],
        vec![frame(1, 1, 1, block), frame(9, 4, 1, trailers)],
        vec![frame(1, 4, 1, block), frame(3, 0, 1, &[0, 0, 0, 8])],
        vec![frame(6, 0, 0, &[0; 8]), frame(1, 5, 1, block)],
        vec![frame(1, 5, 1, block), frame(7, 0, 0, &[0; 8])],
        vec![
            frame(8, 0, 0, &[0x7f, 255, 255, 255]),
            frame(1, 5, 1, block),
        ],
        vec![frame(4, 0, 0, &[0, 4, 0, 0, 0, 0]), frame(1, 5, 1, block)],
    ];
    let all = streams.into_iter().map(|frames| frames.concat());
    all.map(|frames| [&settings[..], &frames].concat())
        .collect()
}

fn setup(upstream: SocketAddr) -> Setup {
    Setup::new(upstream).with(|setup| {
        setup.forward.timeout = Some(Duration::from_secs(1));
        setup.forward.retry = Some(Arc::new(RetryPolicy {
            on: RetryOn::RESET | RetryOn::FIVE_XX,
            num_retries: 1,
            per_try_timeout: None,
            per_try_idle_timeout: None,
            retriable_status_codes: Vec::new(),
            retriable_headers: Vec::new(),
            back_off_base: Duration::from_millis(1),
            back_off_max: Duration::from_millis(1),
            avoid_previous_hosts: false,
        }));
    })
}

/// Writes, and reads until the peer has ended or is quiet.
async fn exchange(mut tcp: TcpStream, bytes: &[u8]) {
    let mut sink = vec![0; 16 << 10];
    // The proxy may have ended the connection before all of it.
    let _ = tokio::time::timeout(QUIET, tcp.write_all(bytes)).await;
    while let Ok(Ok(1..)) = tokio::time::timeout(QUIET, tcp.read(&mut sink)).await {}
}

/// Mutated bytes from clients.
async fn from_clients(corpus: Vec<Vec<u8>>) {
    let before = bug::failures();
    let upstream = peers::h1(|_| peers::ok("fine")).await;
    let proxy = Proxy::start(setup(upstream));
    let mut rounds = Rounds::new();
    while let Some(batch) = rounds.next(&corpus) {
        let address = proxy.address;
        let sending = batch.into_iter().map(|bytes| async move {
            exchange(TcpStream::connect(address).await.unwrap(), &bytes).await;
        });
        futures_util::future::join_all(sending).await;
        let mut client = peers::Client::connect(proxy.address).await;
        let answer = client.ask(&peers::get("/")).await;
        assert!(answer.ends_with("fine"), "{answer}");
    }
    assert!(proxy.end().len() > ROUNDS / BATCH);
    assert_eq!(bug::failures(), before);
}

/// Mutated bytes from upstreams.
async fn from_upstreams(corpus: Vec<Vec<u8>>, protocol: UpstreamProtocol) {
    let before = bug::failures();
    let answers = Arc::new(Mutex::new(Vec::<Vec<u8>>::new()));
    let next = answers.clone();
    let upstream = peers::listen(move |tcp, _| {
        let bytes = next.lock().unwrap().pop();
        async move {
            exchange(tcp, &bytes.unwrap_or_default()).await;
        }
    })
    .await;
    let proxy = Proxy::start(setup(upstream).speaking(protocol));
    let mut rounds = Rounds::new();
    let mut asked = 0;
    while let Some(batch) = rounds.next(&corpus) {
        let count = batch.len();
        *answers.lock().unwrap() = batch;
        let asking = (0..count).map(|_| async {
            let tcp = TcpStream::connect(proxy.address).await.unwrap();
            exchange(tcp, peers::get("/").as_bytes()).await;
        });
        futures_util::future::join_all(asking).await;
        asked += count;
    }
    assert!(proxy.end().len() > asked / 2);
    assert_eq!(bug::failures(), before);
}

#[tokio::test]
async fn storm_of_http1_requests() {
    from_clients(corpus("requests")).await;
}

#[tokio::test]
async fn storm_of_http2_requests() {
    // `:method: GET`, `:scheme: http`, `:path: /`, `:authority: shop`.
    let block = b"\x82\x86\x84\x41\x04shop";
    from_clients(frames(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", block)).await;
}

#[tokio::test]
async fn storm_of_http1_responses() {
    from_upstreams(corpus("responses"), UpstreamProtocol::Http1).await;
}

#[tokio::test]
async fn storm_of_http2_responses() {
    // `:status: 200`, `grpc-status: 0`.
    let block = b"\x88\x00\x0bgrpc-status\x010";
    from_upstreams(frames(b"", block), UpstreamProtocol::Http2).await;
}
