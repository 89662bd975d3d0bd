//! What stands on both sides of the proxy.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use crate::bootstrap::IDENTITY;

/// A peer that has been silent this long is taken to be done.
const QUIET: Duration = Duration::from_millis(200);
/// A message of this size is more than the proxy lets through.
const MAX_HEAD: usize = 1 << 20;

async fn listen<F, Fut>(serve: F) -> SocketAddr
where
    F: Fn(TcpStream) -> Fut + Send + 'static,
    Fut: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (tcp, _) = listener.accept().await.unwrap();
            tokio::spawn(serve(tcp));
        }
    });
    address
}

/// How a peer sends, and leaves.
#[derive(Clone, Copy)]
pub enum Manner {
    Whole,
    /// In two writes.
    Split(usize),
    /// It ends its side, and reads the rest.
    HalfClose,
    /// It leaves without reading.
    Leave,
}

impl Manner {
    pub fn any(rng: &mut fastrand::Rng, length: usize) -> Self {
        match rng.u8(..8) {
            0 => Self::Split(rng.usize(..=length)),
            1 => Self::HalfClose,
            2 => Self::Leave,
            _ => Self::Whole,
        }
    }
}

/// Writes, and reads until the peer has ended or is quiet; what came back.
pub async fn exchange<Io>(mut tcp: Io, bytes: &[u8], manner: Manner) -> Vec<u8>
where
    Io: AsyncRead + AsyncWrite + Unpin,
{
    let (first, second) = match manner {
        Manner::Split(at) => bytes.split_at(at.min(bytes.len())),
        _ => (bytes, &[][..]),
    };
    // The proxy may have ended the connection before all of it.
    let _ = timeout(QUIET, tcp.write_all(first)).await;
    if !second.is_empty() {
        tokio::task::yield_now().await;
        let _ = timeout(QUIET, tcp.write_all(second)).await;
    }
    let mut all = Vec::new();
    match manner {
        Manner::Leave => return all,
        Manner::HalfClose => drop(tcp.shutdown().await),
        Manner::Whole | Manner::Split(_) => {}
    }
    while let Ok(Ok(1..)) = timeout(QUIET, tcp.read_buf(&mut all)).await {}
    all
}

/// An app with an HTTP/1 parser of its own, which records what should not have reached it: bytes
/// that are no request, paths that the policy denies in any spelling, identities that were not proven.
#[derive(Clone, Default)]
pub struct App {
    pub complaints: Arc<Mutex<Vec<String>>>,
    /// Requests that carried an identity proven by TLS.
    pub proven: Arc<AtomicUsize>,
}

impl App {
    pub async fn start() -> (Self, SocketAddr) {
        let app = Self::default();
        let serving = app.clone();
        let address = listen(move |tcp| serving.clone().serve(tcp)).await;
        (app, address)
    }

    fn complain(&self, what: &str, bytes: &[u8]) {
        let shown = &bytes[..bytes.len().min(400)];
        let text = format!("{what}: {}", shown.escape_ascii());
        self.complaints.lock().unwrap().push(text);
    }

    async fn serve(self, mut tcp: TcpStream) {
        let mut buffer = Vec::new();
        loop {
            let Some(head) = self.head(&mut tcp, &mut buffer).await else {
                return;
            };
            let line = head.split(|byte| *byte == b'\r').next().unwrap_or_default();
            let words: Vec<&[u8]> = line.split(|byte| *byte == b' ').collect();
            let [method, path, b"HTTP/1.1"] = words[..] else {
                return self.complain("no request line", &head);
            };
            if method != b"CONNECT" && reaches_admin(path) {
                self.complain("denied", &head);
            }
            let names = String::from_utf8_lossy(&head)
                .to_ascii_lowercase()
                .replace('_', "-");
            for line in names.lines() {
                match line.strip_prefix("x-forwarded-client-cert:") {
                    None => {}
                    Some(value) if is_proven(value) => drop(self.proven.fetch_add(1, Relaxed)),
                    Some(_) => self.complain("an identity that TLS did not prove", &head),
                }
            }
            if !self.body(&mut tcp, &mut buffer, &head).await {
                return;
            }
            let answer: &[u8] = match method {
                b"HEAD" => b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n",
                b"CONNECT" => b"HTTP/1.1 405 No\r\nContent-Length: 0\r\n\r\n",
                _ => b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nfine",
            };
            if tcp.write_all(answer).await.is_err() {
                return;
            }
        }
    }

    async fn head(&self, tcp: &mut TcpStream, buffer: &mut Vec<u8>) -> Option<Vec<u8>> {
        loop {
            if let Some(at) = find(buffer, b"\r\n\r\n") {
                let rest = buffer.split_off(at + 4);
                return Some(std::mem::replace(buffer, rest));
            }
            if buffer.len() > MAX_HEAD {
                self.complain("a head without an end", buffer);
                return None;
            }
            match tcp.read_buf(buffer).await {
                Ok(1..) => {}
                _ => return None,
            }
        }
    }

    /// Passes over a body; `false` at the end of the connection.
    async fn body(&self, tcp: &mut TcpStream, buffer: &mut Vec<u8>, head: &[u8]) -> bool {
        let head = String::from_utf8_lossy(head).to_ascii_lowercase();
        let value = |name: &str| head.lines().find_map(|line| line.strip_prefix(name));
        if value("transfer-encoding:").is_some() {
            return self.chunks(tcp, buffer).await;
        }
        let length = value("content-length:").map_or(Ok(0), |text| text.trim().parse::<usize>());
        let Ok(length) = length else {
            self.complain("no length", head.as_bytes());
            return false;
        };
        self.skip(tcp, buffer, length).await
    }

    async fn chunks(&self, tcp: &mut TcpStream, buffer: &mut Vec<u8>) -> bool {
        loop {
            let Some(line) = self.line(tcp, buffer).await else {
                return false;
            };
            let length = std::str::from_utf8(&line).ok();
            let length = length.and_then(|digits| usize::from_str_radix(digits, 16).ok());
            match length {
                // Trailers, to an empty line.
                Some(0) => loop {
                    match self.line(tcp, buffer).await {
                        None => return false,
                        Some(line) if line.is_empty() => return true,
                        Some(_) => {}
                    }
                },
                Some(length) => {
                    if !self.skip(tcp, buffer, length + 2).await {
                        return false;
                    }
                }
                None => {
                    self.complain("no chunk", &line);
                    return false;
                }
            }
        }
    }

    async fn line(&self, tcp: &mut TcpStream, buffer: &mut Vec<u8>) -> Option<Vec<u8>> {
        loop {
            if let Some(at) = find(buffer, b"\r\n") {
                let rest = buffer.split_off(at + 2);
                let mut line = std::mem::replace(buffer, rest);
                line.truncate(at);
                return Some(line);
            }
            match tcp.read_buf(buffer).await {
                Ok(1..) => {}
                _ => return None,
            }
        }
    }

    async fn skip(&self, tcp: &mut TcpStream, buffer: &mut Vec<u8>, length: usize) -> bool {
        let mut left = length;
        loop {
            let here = left.min(buffer.len());
            buffer.drain(..here);
            left -= here;
            if left == 0 {
                return true;
            }
            match tcp.read_buf(buffer).await {
                Ok(1..) => {}
                _ => return false,
            }
        }
    }
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|w| w == needle)
}

/// Whether the last element of an `x-forwarded-client-cert`, in lower case, is the proxy's own.
fn is_proven(value: &str) -> bool {
    let last = value.trim_start().rsplit(',').next();
    last.is_some_and(|element| {
        element.starts_with(&format!("by={IDENTITY};hash="))
            && element.ends_with(&format!(";uri={IDENTITY}"))
            && element.matches('=').count() == 3
    })
}

/// Whether some app takes this target for `/admin` or what is below it. They all decode, take `\` for `/`
/// and remove dot segments; they differ in whether they drop parameters, and merge slashes before that.
pub fn reaches_admin(target: &[u8]) -> bool {
    let path = target
        .split(|byte| b"?#".contains(byte))
        .next()
        .unwrap_or_default();
    let path = decoded(path);
    let apps = [(false, false), (false, true), (true, false), (true, true)];
    apps.into_iter().any(|(drops_params, merges_first)| {
        let mut segments: Vec<&[u8]> = Vec::new();
        for segment in path.split(|byte| b"/\\".contains(byte)).skip(1) {
            let name = match drops_params {
                true => segment
                    .split(|byte| *byte == b';')
                    .next()
                    .unwrap_or_default(),
                false => segment,
            };
            match name {
                b"" if merges_first => {}
                b"." => {}
                b".." => drop(segments.pop()),
                name => segments.push(name),
            }
        }
        let first = segments.into_iter().find(|segment| !segment.is_empty());
        first == Some(b"admin")
    })
}

fn decoded(mut path: &[u8]) -> Vec<u8> {
    let mut decoded = Vec::new();
    while let [first, rest @ ..] = path {
        let digits = rest
            .get(..2)
            .and_then(|digits| std::str::from_utf8(digits).ok());
        let byte = digits.and_then(|digits| u8::from_str_radix(digits, 16).ok());
        match (first, byte) {
            (b'%', Some(byte)) => {
                decoded.push(byte);
                path = &rest[2..];
            }
            _ => {
                decoded.push(*first);
                path = rest;
            }
        }
    }
    decoded
}

/// An upstream whose answers a test chooses; without one left, it answers in order or not at all.
#[derive(Clone, Default)]
pub struct HostileUpstream {
    pub answers: Arc<Mutex<VecDeque<Vec<u8>>>>,
    /// Answers that were sent.
    pub sent: Arc<AtomicUsize>,
}

impl HostileUpstream {
    pub async fn start() -> (Self, SocketAddr) {
        let upstream = Self::default();
        let serving = upstream.clone();
        let address = listen(move |tcp| serving.clone().serve(tcp)).await;
        (upstream, address)
    }

    /// An answer to each piece that comes: the whole of a request, or of an HTTP/2 connection's
    /// first frames.
    async fn serve(self, mut tcp: TcpStream) {
        let mut piece = vec![0; 64 << 10];
        while let Ok(Ok(1..)) = timeout(QUIET, tcp.read(&mut piece)).await {
            let answer = self.answers.lock().unwrap().pop_front();
            let Some(answer) = answer else { return };
            self.sent.fetch_add(1, Relaxed);
            let _ = timeout(QUIET, tcp.write_all(&answer)).await;
        }
    }
}

#[test]
fn spellings_of_admin_are_known() {
    for target in [
        "/admin",
        "//admin/x",
        "/%61dmin",
        "/x/..;/admin",
        "/admin;a=b?q",
        "/\\admin",
        "/x%2f..%2fadmin",
    ] {
        assert!(reaches_admin(target.as_bytes()), "{target}");
    }
    for target in ["/", "/x/admin", "/administration", "/x?/admin"] {
        assert!(!reaches_admin(target.as_bytes()), "{target}");
    }
}
