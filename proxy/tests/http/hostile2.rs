//! What a hostile HTTP/2 peer sends, frame by frame.

use std::net::SocketAddr;
use std::time::Duration;

use anyam_proxy::config::cluster::UpstreamProtocol;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::harness::{Proxy, Setup};
use crate::peers::{Client, get, h1, listen, ok};

pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const PRIORITY: u8 = 2;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;
pub const END_STREAM: u8 = 1;
pub const END_HEADERS: u8 = 4;
pub const ENHANCE_YOUR_CALM: u32 = 11;

pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut frame = length[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// `name: value` as a literal without indexing.
pub fn field(name: &str, value: &str) -> Vec<u8> {
    let mut field = vec![0, u8::try_from(name.len()).unwrap()];
    field.extend(name.bytes());
    assert!(value.len() < 127);
    field.push(u8::try_from(value.len()).unwrap());
    field.extend(value.bytes());
    field
}

pub fn head(path: &str) -> Vec<u8> {
    [
        field(":method", "GET"),
        field(":scheme", "http"),
        field(":authority", "shop"),
        field(":path", path),
    ]
    .concat()
}

/// A peer that writes frames by hand.
pub struct Raw<T = TcpStream>(pub T);

impl Raw {
    pub async fn connect(address: SocketAddr) -> Self {
        let mut tcp = TcpStream::connect(address).await.unwrap();
        tcp.write_all(PREFACE).await.unwrap();
        let mut raw = Self(tcp);
        raw.send(SETTINGS, 0, 0, &[]).await;
        raw
    }

    /// Sends; a peer that has closed already is no surprise here.
    pub async fn send(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) -> bool {
        let frame = frame(kind, flags, stream, payload);
        self.0.write_all(&frame).await.is_ok()
    }

    pub async fn wait_for(&mut self, wanted: u8) -> (u8, u32, Vec<u8>) {
        loop {
            let (kind, flags, stream, payload) = self.receive().await.unwrap();
            if kind == wanted {
                return (flags, stream, payload);
            }
        }
    }
}

impl<T: AsyncRead + Unpin> Raw<T> {
    pub async fn receive(&mut self) -> Option<(u8, u8, u32, Vec<u8>)> {
        let mut header = [0; 9];
        self.0.read_exact(&mut header).await.ok()?;
        let length = u32::from_be_bytes([0, header[0], header[1], header[2]]);
        let mut payload = vec![0; usize::try_from(length).unwrap()];
        self.0.read_exact(&mut payload).await.ok()?;
        let stream = u32::from_be_bytes(header[5..].try_into().unwrap());
        Some((header[3], header[4], stream, payload))
    }

    /// The code of the GOAWAY that ends the connection.
    pub async fn goaway(mut self) -> Option<u32> {
        let waiting = async {
            let mut code = None;
            while let Some((kind, _, _, payload)) = self.receive().await {
                if kind == GOAWAY {
                    code = Some(u32::from_be_bytes(payload[4..8].try_into().unwrap()));
                }
            }
            code
        };
        let ended = tokio::time::timeout(Duration::from_secs(10), waiting).await;
        ended.expect("the connection was not closed")
    }
}

pub async fn proxy() -> Proxy {
    Proxy::start(Setup::new(h1(|_| ok("fine")).await))
}

/// The proxy serves others as if nothing had happened.
pub async fn still_serves(proxy: &Proxy) {
    let mut client = Client::connect(proxy.address).await;
    assert!(client.ask(&get("/")).await.ends_with("fine"));
}

#[tokio::test(flavor = "multi_thread")]
async fn rapid_reset_is_answered_with_calm() {
    let proxy = proxy().await;
    let mut raw = Raw::connect(proxy.address).await;
    for n in 0..5000 {
        let stream = n * 2 + 1;
        let flags = END_STREAM | END_HEADERS;
        if !raw.send(HEADERS, flags, stream, &head("/")).await
            || !raw.send(RST_STREAM, 0, stream, &8u32.to_be_bytes()).await
        {
            break;
        }
    }
    let code = raw.goaway().await;
    assert!(
        code.is_none_or(|code| code == ENHANCE_YOUR_CALM),
        "{code:?}"
    );
    still_serves(&proxy).await;
}

/// The client makes the server reset its own streams (CVE-2025-8671): by a window update of
/// nothing, by data after the end, by a window that overflows. The connection ends.
#[tokio::test(flavor = "multi_thread")]
async fn provoked_resets_end_the_connection() {
    let proxy = proxy().await;
    let full = 0x7fff_ffff_u32.to_be_bytes();
    for (end, kind, payload) in [
        (0, WINDOW_UPDATE, 0u32.to_be_bytes().as_slice()),
        (END_STREAM, DATA, b"more"),
        (0, WINDOW_UPDATE, &full),
    ] {
        let mut raw = Raw::connect(proxy.address).await;
        for n in 0..5000u32 {
            let stream = n * 2 + 1;
            if !raw
                .send(HEADERS, END_HEADERS | end, stream, &head("/"))
                .await
                || !raw.send(kind, 0, stream, payload).await
            {
                break;
            }
        }
        let code = raw.goaway().await;
        assert_ne!(code, Some(0));
    }
    still_serves(&proxy).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn endless_continuations_end_the_connection() {
    let proxy = proxy().await;
    let mut raw = Raw::connect(proxy.address).await;
    raw.send(HEADERS, END_STREAM, 1, &head("/")).await;
    let filler = field("x-filler", &"a".repeat(100)).repeat(100);
    for _ in 0..2000 {
        if !raw.send(CONTINUATION, 0, 1, &filler).await {
            break;
        }
    }
    assert_ne!(raw.goaway().await, Some(0));
    let mut raw = Raw::connect(proxy.address).await;
    raw.send(HEADERS, END_STREAM, 1, &head("/")).await;
    for _ in 0..200_000 {
        if !raw.send(CONTINUATION, 0, 1, &[]).await {
            break;
        }
    }
    assert_ne!(raw.goaway().await, Some(0));
    still_serves(&proxy).await;
}

/// One indexed field of 4 KiB, named ten thousand times in one byte each (CVE-2026-47774).
#[tokio::test(flavor = "multi_thread")]
async fn a_small_head_that_decodes_large_is_refused() {
    let proxy = proxy().await;
    let mut raw = Raw::connect(proxy.address).await;
    let mut block = head("/");
    // Literal with incremental indexing: a value of 3000 bytes (7-bit prefix, continued).
    block.extend([0x40, 1, b'x', 0x7f]);
    let mut rest = 3000 - 127;
    while rest >= 128 {
        block.push(u8::try_from(rest % 128).unwrap() | 128);
        rest /= 128;
    }
    block.push(u8::try_from(rest).unwrap());
    block.extend([b'v'; 3000]);
    block.extend(vec![0x80 | 62; 10_000]);
    raw.send(HEADERS, END_STREAM | END_HEADERS, 1, &block).await;
    // Refused alone, or with the connection; never served.
    let refused = async {
        loop {
            match raw.receive().await {
                None => return true,
                Some((HEADERS, _, 1, payload)) => return payload.first() != Some(&0x88),
                Some((RST_STREAM, ..)) => return true,
                Some(_) => {}
            }
        }
    };
    let refused = tokio::time::timeout(Duration::from_secs(10), refused).await;
    assert!(refused.unwrap());
    still_serves(&proxy).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn floods_of_small_frames_neither_hang_nor_grow() {
    for (kind, payload, stream) in [
        (PING, vec![0; 8], 0),
        (SETTINGS, Vec::new(), 0),
        (PRIORITY, vec![0, 0, 0, 0, 1], 3),
        (WINDOW_UPDATE, 1u32.to_be_bytes().to_vec(), 0),
    ] {
        let proxy = proxy().await;
        let mut raw = Raw::connect(proxy.address).await;
        let frames = frame(kind, 0, stream, &payload).repeat(1000);
        for _ in 0..50 {
            // Nothing is read meanwhile: what the proxy would answer must not pile up in it.
            let sent = raw.0.write_all(&frames);
            match tokio::time::timeout(Duration::from_millis(500), sent).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) | Err(_) => break,
            }
        }
        still_serves(&proxy).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn empty_data_frames_do_not_go_on_for_ever() {
    let proxy = proxy().await;
    let mut raw = Raw::connect(proxy.address).await;
    raw.send(HEADERS, END_HEADERS, 1, &head("/")).await;
    let empty = frame(DATA, 0, 1, &[]).repeat(1000);
    for _ in 0..100 {
        if raw.0.write_all(&empty).await.is_err() {
            break;
        }
    }
    // Either the connection is closed, or the request ends as any other.
    raw.send(DATA, END_STREAM, 1, &[]).await;
    let ended = async {
        while let Some((kind, ..)) = raw.receive().await {
            if kind == HEADERS {
                break;
            }
        }
    };
    let ended = tokio::time::timeout(Duration::from_secs(10), ended).await;
    ended.unwrap();
    still_serves(&proxy).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn malformed_pseudo_headers_reset_the_stream() {
    let proxy = proxy().await;
    let upper = [head("/"), field("X-Upper", "1")].concat();
    let connection = [head("/"), field("connection", "close")].concat();
    let late = [field("x-a", "1"), head("/")].concat();
    let twice = [head("/"), field(":path", "/b")].concat();
    let missing = [field(":method", "GET"), field(":scheme", "http")].concat();
    let unknown = [head("/"), field(":nonsense", "1")].concat();
    let newline = [head("/"), field("x-a", "1\r\nx-b: 2")].concat();
    let te = [head("/"), field("te", "gzip")].concat();
    for block in [
        upper, connection, late, twice, missing, unknown, newline, te,
    ] {
        let mut raw = Raw::connect(proxy.address).await;
        raw.send(HEADERS, END_STREAM | END_HEADERS, 1, &block).await;
        loop {
            match raw.receive().await {
                None | Some((RST_STREAM | GOAWAY, ..)) => break,
                // A 4xx of ours is as good.
                Some((HEADERS, _, 1, payload)) => {
                    assert_ne!(payload.first(), Some(&0x88), "{block:?} was served");
                    break;
                }
                Some(_) => {}
            }
        }
    }
    still_serves(&proxy).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_contradicts_the_authority_is_refused() {
    let proxy = proxy().await;
    let mut raw = Raw::connect(proxy.address).await;
    let block = [head("/"), field("host", "other")].concat();
    raw.send(HEADERS, END_STREAM | END_HEADERS, 1, &block).await;
    let (_, _, payload) = raw.wait_for(HEADERS).await;
    // Indexed field 12 of the static table: `:status: 400`.
    assert_eq!(payload.first(), Some(&0x8c));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_a_zero_window_holds_is_reaped() {
    let upstream = h1(|_| ok(&"x".repeat(50_000))).await;
    let setup = Setup::new(upstream).with(|setup| {
        setup.manager.stream_idle_timeout = Some(Duration::from_millis(100));
    });
    let proxy = Proxy::start(setup);
    let mut tcp = TcpStream::connect(proxy.address).await.unwrap();
    tcp.write_all(PREFACE).await.unwrap();
    let mut raw = Raw(tcp);
    // SETTINGS_INITIAL_WINDOW_SIZE 0.
    raw.send(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 0]).await;
    raw.send(HEADERS, END_STREAM | END_HEADERS, 1, &head("/"))
        .await;
    let waiting = raw.wait_for(RST_STREAM);
    let (_, stream, _) = tokio::time::timeout(Duration::from_secs(5), waiting)
        .await
        .unwrap();
    assert_eq!(stream, 1);
}

/// GOAWAY, then SETTINGS that allow no stream (CVE-2021-32780).
#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_that_goes_away_and_allows_no_streams() {
    let upstream = listen(|mut tcp, _| async move {
        let _ = tcp.write_all(&frame(SETTINGS, 0, 0, &[])).await;
        let mut first = [0; 24];
        let _ = tcp.read_exact(&mut first).await;
        let goaway = [0u32.to_be_bytes(), 0u32.to_be_bytes()].concat();
        let _ = tcp.write_all(&frame(GOAWAY, 0, 0, &goaway)).await;
        // SETTINGS_MAX_CONCURRENT_STREAMS 0.
        let _ = tcp
            .write_all(&frame(SETTINGS, 0, 0, &[0, 3, 0, 0, 0, 0]))
            .await;
        let _ = tcp.read_to_end(&mut Vec::new()).await;
    })
    .await;
    let setup = Setup::new(upstream)
        .speaking(UpstreamProtocol::Http2)
        .with(|setup| setup.forward.timeout = Some(Duration::from_secs(1)));
    let proxy = Proxy::start(setup);
    let mut client = Client::connect(proxy.address).await;
    let request = get("/");
    let asking = client.ask(&request);
    let response = tokio::time::timeout(Duration::from_secs(10), asking).await;
    let response = response.unwrap();
    assert!(response.starts_with("HTTP/1.1 50"), "{response}");
}
