//! An exchange as it is on the wire.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::UdpSocket;

use crate::filters::side::Side;

/// What came back.
#[derive(Debug, PartialEq, Eq)]
pub struct Exchange {
    pub status: u16,
    /// Interim responses, whole.
    pub interim: Vec<String>,
    /// Status line and headers, in order; what differs from run to run is masked.
    pub head: Vec<String>,
    /// As it came, chunks and all.
    pub body: String,
    /// The connection ended before the body was whole.
    pub cut: bool,
}

/// Sends a request on a connection of its own.
pub fn exchange(side: &Side, request: &[u8]) -> Exchange {
    let mut tcp = side.connect();
    tcp.write_all(request).unwrap();
    let is_head = request.starts_with(b"HEAD");
    let mut reader = BufReader::new(tcp);
    let mut interim = Vec::new();
    let (status, head) = loop {
        let head = read_head(&mut reader);
        let status: u16 = head[0].split(' ').nth(1).unwrap().parse().unwrap();
        match status {
            100..=199 => interim.push(head.join("\r\n")),
            _ => break (status, head),
        }
    };
    let value = |name: &str| {
        let prefix = format!("{name}: ");
        let line = head.iter().find(|line| line.starts_with(&prefix))?;
        Some(line[prefix.len()..].to_owned())
    };
    let mut body = Vec::new();
    let mut cut = false;
    match (value("content-length"), value("transfer-encoding")) {
        _ if is_head || matches!(status, 204 | 304) => {}
        (Some(length), _) => {
            let length: u64 = length.parse().unwrap();
            // A reset ends it like an orderly end.
            let _ = reader.take(length).read_to_end(&mut body);
            cut = (body.len() as u64) < length;
        }
        (None, Some(_)) => {
            while !body.ends_with(b"\r\n0\r\n\r\n") && body != b"0\r\n\r\n" {
                if reader.read_until(b'\n', &mut body).unwrap_or(0) == 0 {
                    cut = true;
                    break;
                }
            }
        }
        (None, None) => {
            let _ = reader.read_to_end(&mut body);
        }
    }
    let body = String::from_utf8_lossy(&body).into_owned();
    Exchange {
        status,
        interim,
        head: head.into_iter().map(masked).collect(),
        body: body
            .split("\r\n")
            .map(|line| masked(line.to_owned()))
            .collect::<Vec<_>>()
            .join("\r\n"),
        cut,
    }
}

/// A loopback client's hop is Envoy's own address in `x-forwarded-for`, and the client's in ours.
fn without_own_address(value: &str) -> String {
    let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
    // Nothing is sent: the kernel only chooses the route.
    let routed = socket.connect("198.51.100.1:9");
    let own = routed.and_then(|()| socket.local_addr());
    let own = own.map_or("127.0.0.1".to_owned(), |own| own.ip().to_string());
    let hop = |hop: &str| match hop == own || hop == "127.0.0.1" {
        true => "own".to_owned(),
        false => hop.to_owned(),
    };
    value.split(',').map(hop).collect::<Vec<_>>().join(",")
}

fn read_head(reader: &mut impl BufRead) -> Vec<String> {
    let mut head = Vec::new();
    loop {
        let mut line = String::new();
        assert!(reader.read_line(&mut line).unwrap() > 0, "after {head:?}");
        match line.trim_end_matches("\r\n") {
            "" => return head,
            line => head.push(line.to_owned()),
        }
    }
}

/// A line without what is another at each time, or the proxy's name.
fn masked(line: String) -> String {
    let (name, value) = line.split_once(": ").unwrap_or((&line, ""));
    if name == "x-envoy-expected-rq-timeout-ms" && value.len() > 3 {
        // Of a retry: some milliseconds are gone.
        let left: u32 = value.parse().unwrap();
        return format!("{name}: {}", left.next_multiple_of(1000));
    }
    if name == "x-forwarded-for" {
        return format!("{name}: {}", without_own_address(value));
    }
    let same = match (name, value) {
        ("server", "envoy" | "anyam") => "own",
        ("date", value) if value.ends_with(" GMT") => "now",
        ("x-envoy-upstream-service-time", _) => "some",
        ("x-request-id", value) if value.len() == 36 => "made",
        _ => return line,
    };
    format!("{name}: {same}")
}
