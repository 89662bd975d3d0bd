//! Answers each request with what it got: the head's lines of interest, sorted, and the body.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};

pub struct Reflector {
    pub address: SocketAddr,
}

/// Header fields in which proxies differ for the same request; Envoy sends `content-length: 0` with
/// more methods.
const OWN: [&str; 6] = [
    "content-length: 0",
    "x-request-id",
    "x-forwarded-proto",
    "x-envoy-expected-rq-timeout-ms",
    "x-envoy-internal",
    "connection",
];

impl Reflector {
    pub fn start() -> Self {
        Self {
            address: crate::proxy::upstream(reflect),
        }
    }
}

fn reflect(tcp: TcpStream) {
    let mut writer = tcp.try_clone().unwrap();
    let mut reader = BufReader::new(tcp);
    while let Some(text) = request(&mut reader) {
        let length = text.len();
        let answer = format!(
            "HTTP/1.1 200 OK\r\nx-from: upstream\r\ncontent-length: {length}\r\n\r\n{text}"
        );
        if writer.write_all(answer.as_bytes()).is_err() {
            return;
        }
    }
}

/// `None`: the connection ended.
fn request(reader: &mut impl BufRead) -> Option<String> {
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).ok()? == 0 {
            return None;
        }
        match line.trim_end() {
            "" => break,
            line => lines.push(line.to_owned()),
        }
    }
    let start = lines.remove(0);
    let value = |name: &str| {
        let prefix = format!("{name}: ");
        let line = lines.iter().find(|line| line.starts_with(&prefix))?;
        Some(line[prefix.len()..].to_owned())
    };
    let body = match (value("content-length"), value("transfer-encoding")) {
        (Some(length), _) => {
            let mut body = vec![0; length.parse().unwrap()];
            reader.read_exact(&mut body).ok()?;
            body
        }
        (None, Some(_)) => chunked(reader)?,
        (None, None) => Vec::new(),
    };
    lines.retain(|line| !OWN.iter().any(|own| line.starts_with(own)));
    lines.sort();
    let body = String::from_utf8(body).unwrap();
    Some(format!("{start}\n{}\n\n{body}", lines.join("\n")))
}

/// A body in chunks. Trailers are read over.
pub fn chunked(reader: &mut impl BufRead) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let mut size = String::new();
        reader.read_line(&mut size).ok()?;
        let size = usize::from_str_radix(size.trim_end(), 16).ok()?;
        if size == 0 {
            // Trailers.
            let mut line = String::from("more");
            while !line.trim_end().is_empty() {
                line.clear();
                reader.read_line(&mut line).ok()?;
            }
            return Some(body);
        }
        let mut chunk = vec![0; size + 2];
        reader.read_exact(&mut chunk).ok()?;
        body.extend_from_slice(&chunk[..size]);
    }
}
