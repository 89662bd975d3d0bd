//! Long HTTP/1 bodies, which pass through kernel pipes where both sides are plain sockets.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};

use crate::proxy::{Proxy, Settings, http_manager, upstream};
use crate::running::TIMEOUT;

const LONG: usize = 5 << 20;
const SPLICED: &str = "anyam_splice_bytes_total";

/// Bytes that depend on their offset.
fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|at| ((at / 7) ^ at) as u8).collect()
}

fn start(upstream: SocketAddr, descriptors: Option<usize>) -> Proxy {
    let settings = Settings {
        filters: &http_manager("", ""),
        descriptors,
        ..Settings::default()
    };
    Proxy::start(upstream, &settings)
}

struct Peer(BufReader<TcpStream>);

impl Peer {
    fn connect(to: SocketAddr) -> Self {
        Self::of(TcpStream::connect(to).unwrap())
    }

    fn of(tcp: TcpStream) -> Self {
        tcp.set_nodelay(true).unwrap();
        tcp.set_read_timeout(Some(TIMEOUT)).unwrap();
        tcp.set_write_timeout(Some(TIMEOUT)).unwrap();
        Self(BufReader::new(tcp))
    }

    fn write(&mut self, bytes: &[u8]) {
        self.0.get_mut().write_all(bytes).unwrap();
    }

    /// A head, and the length of the body after it; `None` at the end.
    fn head(&mut self) -> Option<(String, usize)> {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if self.0.read_line(&mut head).unwrap_or(0) == 0 {
                return None;
            }
        }
        let mut lines = head.lines();
        let length = lines.find_map(|line| {
            line.to_ascii_lowercase()
                .strip_prefix("content-length: ")
                .map(str::to_owned)
        });
        let length = length.map_or(0, |length| length.parse().unwrap());
        Some((head, length))
    }

    fn body(&mut self, length: usize) -> Vec<u8> {
        let mut body = vec![0; length];
        self.0.read_exact(&mut body).unwrap();
        body
    }

    fn ask(&mut self, body: &[u8]) -> (String, Vec<u8>) {
        self.write(
            format!(
                "POST / HTTP/1.1\r\nhost: app\r\ncontent-length: {}\r\n\r\n",
                body.len()
            )
            .as_bytes(),
        );
        self.write(body);
        let (head, length) = self.head().unwrap();
        let body = self.body(length);
        (head, body)
    }
}

/// Gives every body back.
fn echo(tcp: TcpStream) {
    let mut peer = Peer::of(tcp);
    while let Some((_, length)) = peer.head() {
        let body = peer.body(length);
        peer.write(format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n").as_bytes());
        peer.write(&body);
    }
}

#[test]
fn long_bodies_are_spliced_both_ways_and_connections_are_reused() {
    let proxy = start(upstream(echo), None);
    let mut client = Peer::connect(proxy.front);
    for round in 0..3 {
        let body = pattern(LONG + round);
        let (head, back) = client.ask(&body);
        assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
        assert!(back == body, "round {round}: another body came back");
        let (_, back) = client.ask(b"short");
        assert_eq!(back, b"short");
    }
    let spliced = proxy.metric(SPLICED);
    let both_ways = (2 * 3 * LONG) as f64;
    assert!(
        spliced > 0.5 * both_ways && spliced < 1.01 * both_ways,
        "{spliced}"
    );
    // The same two connections all along.
    assert_eq!(proxy.metric("anyam_cluster_connections_total"), 1.0);
}

#[test]
fn a_body_that_its_upstream_cuts_short_is_cut_for_the_client() {
    let proxy = start(
        upstream(|tcp| {
            let mut peer = Peer::of(tcp);
            peer.head().unwrap();
            peer.write(format!("HTTP/1.1 200 OK\r\ncontent-length: {LONG}\r\n\r\n").as_bytes());
            peer.write(&pattern(LONG / 2));
        }),
        None,
    );
    let mut client = Peer::connect(proxy.front);
    client.write(b"GET / HTTP/1.1\r\nhost: app\r\n\r\n");
    let (_, length) = client.head().unwrap();
    assert_eq!(length, LONG);
    let mut got = Vec::new();
    // An end or a reset, but no further byte.
    let _ = client.0.read_to_end(&mut got);
    assert!(got == pattern(LONG / 2), "{} bytes", got.len());
    assert!(proxy.metric(SPLICED) > 0.0);
}

#[test]
fn a_client_that_disconnects_in_a_body_closes_its_upstream_connection() {
    let (told, hears) = channel();
    let proxy = start(
        upstream(move |tcp| {
            let mut peer = Peer::of(tcp);
            peer.head().unwrap();
            let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", 1u64 << 40);
            peer.write(head.as_bytes());
            let piece = pattern(1 << 20);
            while peer.0.get_mut().write_all(&piece).is_ok() {}
            told.send(()).unwrap();
        }),
        None,
    );
    let mut client = Peer::connect(proxy.front);
    client.write(b"GET / HTTP/1.1\r\nhost: app\r\n\r\n");
    client.head().unwrap();
    client.body(LONG);
    drop(client);
    hears
        .recv_timeout(TIMEOUT)
        .expect("the upstream still writes");
}

#[test]
fn a_body_in_small_pieces_is_not_spliced() {
    const PIECE: usize = 1000;
    let body = pattern(200 * PIECE);
    let whole = body.clone();
    let (got, next) = channel();
    let next = Arc::new(Mutex::new(next));
    let proxy = start(
        upstream(move |tcp| {
            let mut peer = Peer::of(tcp);
            peer.head().unwrap();
            peer.write(
                format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", whole.len()).as_bytes(),
            );
            for piece in whole.chunks(PIECE) {
                peer.write(piece);
                // The next one comes when the client has this one.
                next.lock().unwrap().recv_timeout(TIMEOUT).unwrap();
            }
        }),
        None,
    );
    let mut client = Peer::connect(proxy.front);
    client.write(b"GET / HTTP/1.1\r\nhost: app\r\n\r\n");
    let (_, length) = client.head().unwrap();
    let mut back = Vec::new();
    while back.len() < length {
        back.extend(client.body(PIECE));
        got.send(()).unwrap();
    }
    assert!(back == body);
    proxy.until("the pipe was given up", |proxy| proxy.metric(SPLICED) > 0.0);
    assert!(proxy.metric(SPLICED) < 16.0 * PIECE as f64);
}

#[test]
fn without_descriptors_for_a_pipe_bodies_are_not_spliced() {
    let proxy = start(upstream(echo), Some(64));
    let mut client = Peer::connect(proxy.front);
    client.ask(b"short");
    // Idle connections take the rest of the descriptors.
    let others: Vec<_> = (0..64)
        .map(|_| TcpStream::connect(proxy.front).unwrap())
        .collect();
    proxy.until("no descriptor is left", |proxy| {
        let folder = format!("/proc/{}/fd", proxy.pid());
        std::fs::read_dir(folder).unwrap().count() >= 64
    });
    let body = pattern(LONG);
    assert!(client.ask(&body).1 == body);
    drop(others);
    proxy.until("descriptors are back", |proxy| proxy.is_ready());
    assert!(proxy.metric("anyam_splice_refused_total") > 0.0);
    assert_eq!(proxy.metric(SPLICED), 0.0);
}
